# ruff: noqa: A002 - the argument is called filter in SQL, and so it is here
"""Reading lists and explanations."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from dynrec_store.results import Explanation, Recommendation
from dynrec_store.store.arguments import key, keys
from dynrec_store.store.calls import Calls, Key


class Reading(Calls):
    """The part of FeatureStore that reads.

    Arguments that the methods share: `k`, length of the list, 1 to 10000. `filter`, a SQL predicate over the item
    table, run with the caller's rights, its values in `filter_args`: `filter="price < (args->>'top')::numeric",
    filter_args={"top": 20}`. `exclude_items`, items that must not come. `diversity`, 0 (none) to 1. `as_of`, a moment
    in the past to answer as it would have been answered then. All raise UnknownNameError for a recommender that does
    not exist and InvalidArgumentError for a value that will not do.
    """

    def recommend(
        self,
        recommender: str,
        user_id: Key,
        *,
        k: int = 10,
        filter: str | None = None,
        filter_args: Mapping[str, Any] | None = None,
        exclude_items: Iterable[Key] = (),
        exclude_seen: bool | None = None,
        diversity: float = 0.0,
        as_of: datetime | None = None,
        by_model: int | None = None,
        experiment: str | None = None,
    ) -> list[Recommendation]:
        """The best items for a user; trending ones, and `source` says so, for a user who is not known.

        `exclude_seen` defaults to the recommender's option. `by_model`: another live model version than the active one.
        `experiment`: as the arm that the user is in says.
        """
        return self._rows(
            Recommendation,
            "recommend",
            recommender=recommender,
            user_id=key("user_id", user_id),
            k=k,
            filter=filter,
            filter_args=filter_args,
            exclude_items=keys("exclude_items", exclude_items),
            exclude_seen=exclude_seen,
            diversity=diversity,
            as_of=as_of,
            by_model=by_model,
            experiment=experiment,
        )

    def recommend_for_items(
        self,
        recommender: str,
        item_ids: Iterable[Key],
        *,
        k: int = 10,
        filter: str | None = None,
        filter_args: Mapping[str, Any] | None = None,
        exclude_items: Iterable[Key] = (),
        diversity: float = 0.0,
        as_of: datetime | None = None,
    ) -> list[Recommendation]:
        """The best items for somebody of whom only these items are known, oldest first: an anonymous session."""
        return self._rows(
            Recommendation,
            "recommend_for_items",
            recommender=recommender,
            item_ids=keys("item_ids", item_ids),
            k=k,
            filter=filter,
            filter_args=filter_args,
            exclude_items=keys("exclude_items", exclude_items),
            diversity=diversity,
            as_of=as_of,
        )

    def similar_items(
        self,
        recommender: str,
        item: Key,
        *,
        k: int = 10,
        filter: str | None = None,
        filter_args: Mapping[str, Any] | None = None,
        exclude_items: Iterable[Key] = (),
        diversity: float = 0.0,
        as_of: datetime | None = None,
    ) -> list[Recommendation]:
        """The items whose vectors are nearest to this item's; DatabaseError for an item that does not exist."""
        return self._rows(
            Recommendation,
            "similar_items",
            recommender=recommender,
            item=key("item", item),
            k=k,
            filter=filter,
            filter_args=filter_args,
            exclude_items=keys("exclude_items", exclude_items),
            diversity=diversity,
            as_of=as_of,
        )

    def trending(
        self,
        recommender: str,
        *,
        k: int = 10,
        filter: str | None = None,
        filter_args: Mapping[str, Any] | None = None,
        exclude_items: Iterable[Key] = (),
        as_of: datetime | None = None,
    ) -> list[Recommendation]:
        """The items with the highest popularity, decayed by the option trending_half_life."""
        return self._rows(
            Recommendation,
            "trending",
            recommender=recommender,
            k=k,
            filter=filter,
            filter_args=filter_args,
            exclude_items=keys("exclude_items", exclude_items),
            as_of=as_of,
        )

    def explain(
        self, recommender: str, user_id: Key, item_id: Key, *, k: int = 3, as_of: datetime | None = None
    ) -> list[Explanation]:
        """The k past interactions of the user that speak most for this item."""
        return self._rows(
            Explanation,
            "explain",
            recommender=recommender,
            user_id=key("user_id", user_id),
            item_id=key("item_id", item_id),
            k=k,
            as_of=as_of,
        )
