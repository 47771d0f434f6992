"""Watching quality: what is measured time and again, how inputs drift, and what is wrong."""

from datetime import datetime

from dynrec_store.results import Alert, CalibrationBin, DataDrift, Measurement
from dynrec_store.store.calls import Calls


class Watching(Calls):
    """The part of FeatureStore that watches."""

    def watch(self, recommender: str) -> int:
        """Measure a recommender now, as workers do every `measure_every`; returns how many values were noted."""
        measured: int = self._value("watch", recommender=recommender)
        return measured

    def measurements(self) -> list[Measurement]:
        """What was measured when, of all recommenders."""
        return self._view(Measurement, "measurements")

    def alerts(self) -> list[Alert]:
        """What is wrong and what to do about it; nothing if all is well."""
        return self._view(Alert, "alerts")

    def data_drift(self, recommender: str, *, by_model: int | None = None) -> list[DataDrift]:
        """How far inputs and vectors have moved since the model version was made, the farthest first."""
        return self._rows(DataDrift, "data_drift", recommender=recommender, by_model=by_model)

    def score_calibration(
        self,
        recommender: str,
        begin: datetime,
        end: datetime,
        *,
        k: int = 10,
        bins: int = 10,
        by_model: int | None = None,
        users: int | None = None,
        seed: int = 0,
    ) -> list[CalibrationBin]:
        """Whether a higher score means more, by the lists of `begin` and what users did in [begin, end).

        Arguments as those of `evaluate`; `bins`: into how many parts the scores are divided, 1 to 100.
        """
        return self._rows(
            CalibrationBin,
            "score_calibration",
            recommender=recommender,
            **{"from": begin, "to": end},
            k=k,
            bins=bins,
            by_model=by_model,
            users=users,
            seed=seed,
        )
