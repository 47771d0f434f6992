"""What workers count: a histogram as Prometheus has it, and totals that only grow."""

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from workers.meters import BUCKETS, Meters

AGES = st.lists(st.floats(0, 1e6) | st.sampled_from(BUCKETS), max_size=50)


def reported(meters: Meters) -> dict[tuple[str, str | None], float]:
    """The counters by name and the limit of the bucket."""
    return {(str(one["name"]), dict(one["labels"]).get("le")): one["value"] for one in meters.report()}  # type: ignore[call-overload, misc]


@given(st.lists(AGES))
def test_a_histogram_counts_what_is_within_each_limit(batches: Sequence[Sequence[float]]) -> None:
    meters = Meters()
    for ages in batches:
        meters.fresh(ages, recommender="shop", kind="item", lane="live")
    every = [age for ages in batches for age in ages]
    counts = reported(meters)
    if not every:
        assert counts == {}
        return
    for limit in (*BUCKETS, math.inf):
        label = "+Inf" if limit == math.inf else str(limit)
        assert counts["commit_to_fresh_seconds_bucket", label] == sum(age <= limit for age in every)
    assert counts["commit_to_fresh_seconds_count", None] == len(every)
    assert math.isclose(counts["commit_to_fresh_seconds_sum", None], sum(every))


def test_labels_and_recommenders_are_told_apart() -> None:
    meters = Meters()
    for recommender, kind, amount in (("a", "item", 1), ("a", "user", 2), ("b", "item", 3), ("a", "item", 4)):
        meters.add("batches", amount, recommender=recommender, kind=kind)
    meters.add("batches", 5)
    assert meters.report() == [
        {"recommender": "a", "name": "batches", "labels": {"kind": "item"}, "value": 5},
        {"recommender": "a", "name": "batches", "labels": {"kind": "user"}, "value": 2},
        {"recommender": "b", "name": "batches", "labels": {"kind": "item"}, "value": 3},
        {"recommender": None, "name": "batches", "labels": {}, "value": 5},
    ]
