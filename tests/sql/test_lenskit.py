"""The metrics in sql/57_metrics.sql against lenskit, which needs an environment of its own: `make test-lenskit`.

What lenskit defines otherwise, and how it is brought together here:

- Repetitions and nulls in a list are misses: lenskit gets other, irrelevant items for them.
- Precision and average precision are divided by the length of a list that is shorter than k, not by k.
- Recall is divided by the lesser of k and the number of relevant items.
- nDCG does not discount position 2, unless a weight with an offset is given.
- An empty list has no precision; for us it has 0.
"""

from typing import Any

import numpy as np
import pytest

from tests.drain import Session
from tests.sql import metrics
from tests.sql.metrics import KS, Case, cases, close, evaluated

lenskit_data = pytest.importorskip("lenskit.data", reason="lenskit is not installed")
lenskit = pytest.importorskip("lenskit.metrics")
precision = pytest.importorskip("lenskit.metrics.ranking._map")
weighting = pytest.importorskip("lenskit.metrics.ranking._weighting")

migrated, reader = metrics.migrated, metrics.reader

K = np.array(KS)


def lists() -> list[Case]:
    """Those with something in the list, filled with misses, as lenskit ranks no empty ones."""
    return [case for case in cases() if case.recommended]


def judged(make: Any, given: list[Case], *, graded: bool = False) -> np.ndarray:
    """What lenskit says of each list at each k."""
    values = []
    for case in given:
        shown = lenskit_data.ItemList(item_ids=np.array(case.cleaned, dtype=object), ordered=True)
        gains = {"rating": np.array(case.gains)} if graded else {}
        truth = lenskit_data.ItemList(item_ids=np.array(case.relevant, dtype=object), **gains)
        values.append([make(k).measure_list(shown, truth) for k in KS])
    return np.array(values, dtype=float)


def shown(given: list[Case]) -> np.ndarray:
    """How long each list is at each k."""
    lengths: np.ndarray = np.array([[len(case.cleaned)] for case in given])
    return np.array(np.minimum(lengths, K), dtype=float)


def wanted(given: list[Case]) -> np.ndarray:
    return np.array([[len(case.relevant)] for case in given])


def ours(reader: Session, function: str) -> np.ndarray:
    return evaluated(reader, f"dynrec.{function}(c.recommended, c.relevant, k.k)", lists())


def test_precision(reader: Session) -> None:
    theirs = judged(lambda k: lenskit.Precision(n=k), lists()) * shown(lists()) / K
    assert ours(reader, "precision_at_k") == close(theirs)


def test_recall(reader: Session) -> None:
    theirs = judged(lambda k: lenskit.Recall(n=k), lists()) * np.minimum(wanted(lists()), K) / wanted(lists())
    assert ours(reader, "recall_at_k") == close(theirs)


def test_hits_and_the_first_of_them(reader: Session) -> None:
    assert ours(reader, "hit_rate_at_k") == close(judged(lambda k: lenskit.Hit(n=k), lists()))
    assert ours(reader, "reciprocal_rank") == close(judged(lambda k: lenskit.RecipRank(n=k), lists()))


def test_average_precision(reader: Session) -> None:
    theirs = judged(lambda k: precision.AveragePrecision(n=k), lists()) * np.minimum(wanted(lists()), shown(lists()))
    assert ours(reader, "average_precision_at_k") == close(theirs / np.minimum(wanted(lists()), K))


def test_ndcg(reader: Session) -> None:
    weight = weighting.LogRankWeight(offset=1)
    assert ours(reader, "ndcg_at_k") == close(judged(lambda k: lenskit.NDCG(n=k, weight=weight), lists()))
    graded = evaluated(reader, "dynrec.ndcg_at_k(c.recommended, c.relevant, c.gains, k.k)", lists())
    theirs = judged(lambda k: lenskit.NDCG(n=k, weight=weight, gain="rating"), lists(), graded=True)
    assert graded == close(theirs)
    undiscounted = judged(lambda k: lenskit.NDCG(n=k), lists())
    assert not np.allclose(undiscounted, ours(reader, "ndcg_at_k"))


def test_gini_of_exposure(reader: Session) -> None:
    given = [[item for item in case.cleaned if not item.startswith("miss")] for case in lists()]
    metric = lenskit.ListGini(items=40)
    data = [
        metric.compute_list_data(lenskit_data.ItemList(item_ids=np.array(items, dtype=object), ordered=True), None)
        for items in given
        if items
    ]
    (found,) = reader.execute(
        "select dynrec.gini_of_exposure(%s::text[], 40)", [[item for items in given for item in items]]
    ).fetchone() or (None,)
    assert found == pytest.approx(metric.global_aggregate(data))
