"""How good lists are, by case, and how certain their mean is.

A list of 10 against the set of items that came; relevance is binary. Of each list:

    nDCG@10   sum over hits of 1 / log2(1 + rank), divided by that sum for min(10, |truth|) hits at the top
    recall@10 hits / |truth|
    hit rate  1 if there is a hit

Of all lists of a model together:

    coverage  distinct items in them / items that could be recommended
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.bench.quality.dataset import Flags, Ints
from workers.bench.quality.protocols import Cases

K = 10
RESAMPLES = 1000

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lists:
    """What a model answered to cases: for each K items, best first, -1 where there were fewer."""

    top: Ints  # (cases, K)
    cold: Ints  # (cold cases, K): the answer if only cold items may be recommended


@dataclass(frozen=True)
class Scores:
    """A model's figures by case; arrays of as many numbers as there are (cold) cases."""

    ndcg: Values
    recall: Values
    hit: Values
    cold_recall: Values  # of cold items, in the unrestricted list
    cold_only_recall: Values
    cold_only_ndcg: Values
    cold_only_hit: Values


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def cold_rows(cases: Cases, cold: Flags) -> Ints:
    """The cases in whose truth there is a cold item."""
    return np.flatnonzero([cold[truth].any() for truth in cases.truth])


def score(lists: Lists, cases: Cases, cold: Flags) -> Scores:
    """Compare lists with what came."""
    rows = cold_rows(cases, cold)
    cold_truth = [truth[cold[truth]] for truth in (cases.truth[row] for row in rows)]
    ndcg, recall, hit = by_list(lists.top, cases.truth)
    cold_only_ndcg, cold_only_recall, cold_only_hit = by_list(lists.cold, cold_truth)
    return Scores(
        ndcg=ndcg,
        recall=recall,
        hit=hit,
        cold_recall=by_list(lists.top[rows], cold_truth)[1],
        cold_only_recall=cold_only_recall,
        cold_only_ndcg=cold_only_ndcg,
        cold_only_hit=cold_only_hit,
    )


def by_list(top: Ints, truth: Sequence[Ints]) -> tuple[Values, Values, Values]:
    """Return nDCG, recall and hit of each list (lists, K) against the items that came."""
    hits = np.array([np.isin(row, came) for row, came in zip(top, truth, strict=True)]).reshape(-1, K)
    came = np.array([len(items) for items in truth], dtype=np.int64)
    discount = 1 / np.log2(np.arange(2, K + 2))
    best = np.cumsum(discount)[np.minimum(came, K) - 1]
    return hits @ discount / best, hits.sum(axis=1) / came, hits.any(axis=1).astype(float)


def interval(values: Values, groups: Ints, seed: int) -> Interval | None:
    """The mean of values, with whole groups (users) resampled: events of one user are no independent evidence.

    None where there is no value.
    """
    if not len(values):
        return None
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    draws = _resamples(len(sums), seed)
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def coverage(top: Ints, groups: Ints, items: int, seed: int) -> Interval | None:
    """Distinct items in lists (lists, K) / `items`, with whole groups (users) resampled; None where there is no list.

    A resample misses more than a third of the users, and what they alone were shown, so that its coverage is below
    that of all: the interval has the spread of the resamples' coverage, with their mean moved to what was observed.
    """
    if not len(top):
        return None
    _, group = np.unique(groups, return_inverse=True)
    users = int(group.max()) + 1
    observed = _distinct(top)
    drawn = np.array([_distinct(top[np.isin(group, draw)]) for draw in _resamples(users, seed)])
    low, high = (np.quantile(drawn, (0.025, 0.975)) - drawn.mean() + observed) / items
    return Interval(observed / items, max(float(low), 0.0), min(float(high), 1.0))


def _resamples(groups: int, seed: int) -> Ints:
    """Which groups are in each resample (RESAMPLES, groups), some of them more than once."""
    return np.random.default_rng(seed).integers(0, groups, (RESAMPLES, groups))


def _distinct(top: Ints) -> int:
    """How many items there are in lists."""
    return int(np.count_nonzero(np.bincount(top[top >= 0])))
