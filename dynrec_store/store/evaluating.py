"""How good the recommendations of a moment were, and which of two model versions would have done better."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dynrec_store.results import Comparison, EvaluatedList, IndexRecall, Metric
from dynrec_store.store.arguments import listed
from dynrec_store.store.calls import Calls


class Evaluating(Calls):
    """The part of FeatureStore that evaluates, by time travel: lists as of `begin`, judged by [begin, end).

    Everywhere: `users`: a sample of so many, drawn by `seed`; `user_ids`: among these alone; `filter`, `filter_args`,
    `exclude_seen`, `diversity` as in `recommend`; `category`: a categorical column whose values become slices. All
    raise InvalidArgumentError for a moment at which the model version had no vectors yet.
    """

    def evaluate(
        self,
        recommender: str,
        begin: datetime,
        end: datetime,
        *,
        k: Sequence[int] = (10,),
        by_model: int | None = None,
        users: int | None = None,
        seed: int = 0,
        user_ids: Sequence[str] | None = None,
        filter: str | None = None,  # noqa: A002 - as in SQL
        filter_args: Mapping[str, Any] | None = None,
        exclude_seen: bool | None = None,
        diversity: float = 0.0,
        category: str | None = None,
    ) -> list[Metric]:
        """The metrics of the model version that answered at `begin`, or of `by_model`, for each k and slice."""
        return self._rows(
            Metric,
            "evaluate",
            recommender=recommender,
            **{"from": begin, "to": end},
            k=listed("k", k),
            by_model=by_model,
            users=users,
            seed=seed,
            user_ids=user_ids,
            filter=filter,
            filter_args=filter_args,
            exclude_seen=exclude_seen,
            diversity=diversity,
            category=category,
        )

    def evaluation_lists(
        self,
        recommender: str,
        begin: datetime,
        end: datetime,
        *,
        k: int = 10,
        by_model: int | None = None,
        users: int | None = None,
        seed: int = 0,
        user_ids: Sequence[str] | None = None,
        filter: str | None = None,  # noqa: A002 - as in SQL
        filter_args: Mapping[str, Any] | None = None,
        exclude_seen: bool | None = None,
        diversity: float = 0.0,
    ) -> list[EvaluatedList]:
        """What each user would have been shown at `begin`, beside what the list should have found."""
        return self._rows(
            EvaluatedList,
            "evaluation_lists",
            recommender=recommender,
            **{"from": begin, "to": end},
            k=k,
            by_model=by_model,
            users=users,
            seed=seed,
            user_ids=user_ids,
            filter=filter,
            filter_args=filter_args,
            exclude_seen=exclude_seen,
            diversity=diversity,
        )

    def compare_models(
        self,
        recommender: str,
        begin: datetime,
        end: datetime,
        model_version: int,
        baseline: int,
        *,
        k: Sequence[int] = (10,),
        users: int | None = None,
        seed: int = 0,
        user_ids: Sequence[str] | None = None,
        filter: str | None = None,  # noqa: A002 - as in SQL
        filter_args: Mapping[str, Any] | None = None,
        exclude_seen: bool | None = None,
        diversity: float = 0.0,
        category: str | None = None,
    ) -> list[Comparison]:
        """Both model versions on the same users, in pairs."""
        return self._rows(
            Comparison,
            "compare_models",
            recommender=recommender,
            **{"from": begin, "to": end},
            model_version=model_version,
            baseline=baseline,
            k=listed("k", k),
            users=users,
            seed=seed,
            user_ids=user_ids,
            filter=filter,
            filter_args=filter_args,
            exclude_seen=exclude_seen,
            diversity=diversity,
            category=category,
        )

    def index_recall(
        self, recommender: str, *, k: int = 10, sample: int = 100, seed: int = 0, by_model: int | None = None
    ) -> IndexRecall:
        """How much of what an exact search finds the vector index finds, over the vectors of a sample of items."""
        return self._row(
            IndexRecall, "index_recall", recommender=recommender, k=k, sample=sample, seed=seed, by_model=by_model
        )
