"""The metrics of one list in sql/57_metrics.sql against other people's code.

The oracles are ranx and, for gains that are not whole numbers, scikit-learn; lenskit, whose releases want pandas 2, is
one in test_lenskit.py, in an environment of its own. What we define otherwise:

- Repetitions and nulls in a list, which ranx cannot be given, are misses: ranx gets other, irrelevant items for them.
- ranx has 0 for a user with nothing to find, we have null, so that such users do not count in an average.
- ranx divides the average precision by the number of relevant items, we by the lesser of it and k.
- lenskit divides precision by the length of a list shorter than k, recall by the lesser of k and the number of
  relevant items, and by default does not discount position 2 in nDCG; there we agree with ranx and scikit-learn.
"""

import random
import warnings

import numpy as np
import pytest
import ranx  # type: ignore[import-untyped]
from numba.core.errors import NumbaTypeSafetyWarning
from sklearn.metrics import ndcg_score

from tests.drain import Session
from tests.sql import metrics
from tests.sql.metrics import KS, Case, cases, close, evaluated

migrated, reader = metrics.migrated, metrics.reader


RANX = {
    "precision_at_k": "precision",
    "recall_at_k": "recall",
    "hit_rate_at_k": "hit_rate",
    "reciprocal_rank": "mrr",
    "average_precision_at_k": "map",
    "ndcg_at_k": "ndcg",
}


def judged(metric: str, given: list[Case], *, graded: bool = False) -> np.ndarray:
    """What ranx says."""
    names = [f"q{n:04}" for n in range(len(given))]
    qrels = ranx.Qrels(
        {
            name: {
                item: int(gain) if graded else 1
                for item, gain in zip(case.relevant, case.gains, strict=True)
                if gain or not graded
            }
            for name, case in zip(names, given, strict=True)
        }
    )
    run = ranx.Run(
        {
            name: {item: 1.0 / (rank + 1) for rank, item in enumerate([*case.cleaned, "last"])}
            for name, case in zip(names, given, strict=True)
        }
    )
    assert list(qrels.keys()) == names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaTypeSafetyWarning)  # about the thread numbers of ranx, when it is compiled
        scores = [ranx.evaluate(qrels, run, f"{metric}@{k}", return_mean=False, threads=1) for k in KS]
    return np.array(scores).T


@pytest.mark.parametrize("function", RANX)
def test_one_list_against_ranx(reader: Session, function: str) -> None:
    ours = evaluated(reader, f"dynrec.{function}(c.recommended, c.relevant, k.k)", cases())
    theirs = judged(RANX[function], cases())
    if function == "average_precision_at_k":
        found = np.array([[len(case.relevant)] for case in cases()])
        theirs = theirs * found / np.minimum(found, KS)
    assert ours == close(theirs)
    assert len(np.unique(ours)) > 1
    assert 0.05 < ours.mean() < 0.95


def test_gains_against_ranx(reader: Session) -> None:
    ours = evaluated(reader, "dynrec.ndcg_at_k(c.recommended, c.relevant, c.gains, k.k)", cases())
    assert ours == close(judged("ndcg", cases(), graded=True))
    exponential = evaluated(
        reader,
        "dynrec.ndcg_at_k(c.recommended, c.relevant, array(select 2 ^ g - 1 from unnest(c.gains) g), k.k)",
        cases(),
    )
    assert exponential == close(judged("ndcg_burges", cases(), graded=True))
    assert not np.allclose(ours, exponential)


def test_gains_against_sklearn(reader: Session) -> None:
    rng = random.Random(7)
    given = [
        Case(case.recommended, case.relevant, [rng.random() * 10 for _ in case.relevant], [], []) for case in cases()
    ]
    expected = []
    for case in given:
        gains = dict(zip(case.relevant, case.gains, strict=True))
        listed = [*case.cleaned, *(f"none{n}" for n in range(max(KS)))]
        listed += [item for item in case.relevant if item not in listed]
        truth = [[gains.get(item, 0) for item in listed]]
        expected.append([ndcg_score(truth, [list(range(len(listed), 0, -1))], k=k) for k in KS])
    ours = evaluated(reader, "dynrec.ndcg_at_k(c.recommended, c.relevant, c.gains, k.k)", given)
    assert ours == close(np.array(expected))


def test_all_gains_alike_are_binary(reader: Session) -> None:
    ones = "array_fill(7::double precision, array[cardinality(c.relevant)])"
    graded = evaluated(reader, f"dynrec.ndcg_at_k(c.recommended, c.relevant, {ones}, k.k)", cases())
    assert graded == close(evaluated(reader, "dynrec.ndcg_at_k(c.recommended, c.relevant, k.k)", cases()))


def test_reciprocal_rank_of_the_whole_list(reader: Session) -> None:
    ours = evaluated(reader, "dynrec.reciprocal_rank(c.recommended, c.relevant)", cases(), (1,))
    hits = [[rank for rank, item in enumerate(case.cleaned, 1) if item in case.relevant] for case in cases()]
    assert ours[:, 0] == close([1 / ranks[0] if ranks else 0 for ranks in hits])


def test_serendipity(reader: Session) -> None:
    ours = evaluated(reader, "dynrec.serendipity_at_k(c.recommended, c.relevant, c.expected, k.k)", cases())
    wanted = [
        [len((set(case.cleaned[:k]) & set(case.relevant)) - set(case.expected)) / k for k in KS] for case in cases()
    ]
    assert ours == close(np.array(wanted))
    assert ours.max() > 0.1
