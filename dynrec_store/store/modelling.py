"""The life of model versions: stage, promote, roll back, retire."""

from collections.abc import Mapping
from typing import Any

from dynrec_store.results import ModelVersion
from dynrec_store.store.calls import Calls


class Modelling(Calls):
    """The part of FeatureStore that looks after model versions."""

    def stage_model(
        self,
        recommender: str,
        *,
        encoder: str | None = None,
        options: Mapping[str, Any] | None = None,
        continue_active: bool = False,
        base_model: int | None = None,
    ) -> int:
        """Begin a model version and return its number.

        A learned one waits for a worker that trains it; with `encoder` it is another content space, whose backfill
        begins at once. `continue_active`: training goes on from the active model. `base_model`: the content space that
        a learned one is made of, by default the one in use. `options`: of training.
        """
        staged: int = self._value(
            "stage_model",
            recommender=recommender,
            encoder=encoder,
            options={} if options is None else options,
            continue_active=continue_active,
            base_model=base_model,
        )
        return staged

    def promote_model(self, recommender: str, model_version: int | None = None, *, force: bool = False) -> int:
        """Let a model version answer, by default the newest in the shadow; returns its number.

        Raises InvalidArgumentError if its backfill is not done, or if it lost against the active one and `force` is
        not given.
        """
        promoted: int = self._value("promote_model", recommender=recommender, model_version=model_version, force=force)
        return promoted

    def rollback_model(self, recommender: str) -> int:
        """Go back at once to the model version that answered before; returns its number."""
        back: int = self._value("rollback_model", recommender=recommender)
        return back

    def retire_model(self, recommender: str, model_version: int) -> None:
        """Give up a model version that does not answer; its vectors and artefacts go.

        Raises BusyError, with nothing done, while somebody reads vectors for long.
        """
        self._value("retire_model", recommender=recommender, model_version=model_version)

    def model_versions(self) -> list[ModelVersion]:
        """Every model version with its state, data cut-off, metrics and size."""
        return self._view(ModelVersion, "model_versions")
