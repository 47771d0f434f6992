"""The metrics of one list in sql/57_metrics.sql against other people's code.

The oracles are trec_eval and, for gains that are not whole numbers, scikit-learn; lenskit, whose releases want pandas 2,
is one in test_lenskit.py, in an environment of its own. What we define otherwise:

- Repetitions and nulls in a list, which trec_eval cannot be given, are misses: it gets other, irrelevant items for them.
- trec_eval leaves out a user with nothing to find, we have null, so that such users do not count in an average.
- trec_eval divides the average precision by the number of relevant items, we by the lesser of it and k.
- lenskit divides precision by the length of a list shorter than k, recall by the lesser of k and the number of
  relevant items, and by default does not discount position 2 in nDCG; there we agree with trec_eval and scikit-learn.
"""

import random

import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import ndcg_score

from tests.drain import Session
from tests.sql import metrics
from tests.sql.metrics import KS, Case, cases, close, evaluated

migrated, reader = metrics.migrated, metrics.reader


TREC_EVAL = {
    "precision_at_k": "P",
    "recall_at_k": "recall",
    "hit_rate_at_k": "success",
    "average_precision_at_k": "map_cut",
    "ndcg_at_k": "ndcg_cut",
}


def judged(measure: str, given: list[Case], gains: list[list[int]] | None = None) -> np.ndarray:
    """What trec_eval says at each of KS; without gains, all of them are 1."""
    cuts = {f"{measure}.{','.join(map(str, KS))}"}
    scores = scored(cuts, given, gains)
    return np.array([[score[f"{measure}_{k}"] for k in KS] for score in scores])


def scored(
    measures: set[str], given: list[Case], gains: list[list[int]] | None = None, k: int | None = None
) -> list[dict[str, float]]:
    """What trec_eval says of each case, of lists that are cut at `k` if it is given."""
    names = [f"q{n}" for n in range(len(given))]
    judgements = gains or [[1] * len(case.relevant) for case in given]
    truth = {
        name: dict(zip(case.relevant, judgement, strict=True))
        for name, case, judgement in zip(names, given, judgements, strict=True)
    }
    lists = {
        name: {item: 1 / (rank + 1) for rank, item in enumerate([*case.cleaned, "last"][:k])}
        for name, case in zip(names, given, strict=True)
    }
    found = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(lists)
    return [found[name] for name in names]


@pytest.mark.parametrize("function", TREC_EVAL)
def test_one_list_against_trec_eval(reader: Session, function: str) -> None:
    ours = evaluated(reader, f"dynrec.{function}(c.recommended, c.relevant, k.k)", cases())
    theirs = judged(TREC_EVAL[function], cases())
    if function == "average_precision_at_k":
        found = np.array([[len(case.relevant)] for case in cases()])
        theirs = theirs * found / np.minimum(found, KS)
    assert ours == close(theirs)
    assert len(np.unique(ours)) > 1
    assert 0.05 < ours.mean() < 0.95


def test_reciprocal_rank_against_trec_eval(reader: Session) -> None:
    ours = evaluated(reader, "dynrec.reciprocal_rank(c.recommended, c.relevant, k.k)", cases())
    columns = [[score["recip_rank"] for score in scored({"recip_rank"}, cases(), k=k)] for k in KS]
    assert ours == close(np.array(columns).T)
    assert 0.05 < ours.mean() < 0.95


def test_gains_against_trec_eval(reader: Session) -> None:
    ours = evaluated(reader, "dynrec.ndcg_at_k(c.recommended, c.relevant, c.gains, k.k)", cases())
    linear = [list(map(int, case.gains)) for case in cases()]
    assert ours == close(judged("ndcg_cut", cases(), linear))
    exponential = evaluated(
        reader,
        "dynrec.ndcg_at_k(c.recommended, c.relevant, array(select 2 ^ g - 1 from unnest(c.gains) g), k.k)",
        cases(),
    )
    assert exponential == close(judged("ndcg_cut", cases(), [[2**gain - 1 for gain in gains] for gains in linear]))
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
