"""Live traffic: what was shown, and how users took to it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dynrec_store.results import OnlineMetrics
from dynrec_store.store.arguments import json_text, listed
from dynrec_store.store.calls import Calls


class Traffic(Calls):
    """The part of FeatureStore that notes what was shown."""

    def log_impressions(self, recommender: str, impressions: Sequence[Mapping[str, Any]]) -> int:
        """Note lists that were shown, all or none of them; returns how many.

        Each has `user_id` and `item_ids`, and where known `shown_at` (ISO 8601; default: now), `first_position`,
        `model_version`, `surface`, `experiment`, `arm`, `propensities` (above 0 and up to 1). Raises
        InvalidArgumentError naming the first that is wrong.
        """
        logged: int = self._value(
            "log_impressions", recommender=recommender, impressions=json_text("impressions", impressions)
        )
        return logged

    def online_metrics(
        self,
        recommender: str,
        begin: datetime,
        end: datetime,
        *,
        by: Sequence[str] = ("model_version",),
        within: timedelta = timedelta(days=1),
        click_kinds: Sequence[str] | None = None,
        conversion_kinds: Sequence[str] | None = None,
        kind_weights: Mapping[str, float] | None = None,
    ) -> list[OnlineMetrics]:
        """How users took to what was shown in [begin, end), told apart by the names in `by`.

        `kind_weights`: what an interaction of each kind adds to satisfaction, instead of the recommender's own weights;
        "*" is every other kind.
        """
        return self._rows(
            OnlineMetrics,
            "online_metrics",
            recommender=recommender,
            **{"from": begin, "to": end},
            by=listed("by", by),
            within=within,
            click_kinds=None if click_kinds is None else listed("click_kinds", click_kinds),
            conversion_kinds=None if conversion_kinds is None else listed("conversion_kinds", conversion_kinds),
            kind_weights=kind_weights,
        )
