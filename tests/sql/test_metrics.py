"""The metrics of sql/57_metrics.sql against other people's code and against formulas of another shape.

The oracles of the metrics of one list are ranx and, for gains that are not whole numbers, scikit-learn. (lenskit was
considered as well: its releases want pandas 2, beside pandas 3 they cannot be installed.) What we define otherwise:

- Repetitions and nulls in a list, which ranx cannot be given, are misses: ranx gets other, irrelevant items for them.
- ranx has 0 for a user with nothing to find, we have null, so that such users do not count in an average.
- ranx divides the average precision by the number of relevant items, we by the lesser of it and k.
- lenskit divides precision by the length of a list shorter than k, recall by the lesser of k and the number of
  relevant items, and by default does not discount position 2 in nDCG; there we agree with ranx and scikit-learn.

The metrics of many lists have oracles in numpy here. Vectors have whole components, whose products are exact in the
single precision of pgvector.
"""

import json
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import psycopg
import pytest
import ranx  # type: ignore[import-untyped]
from numba.core.errors import NumbaTypeSafetyWarning
from sklearn.metrics import ndcg_score

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.drain import Session

KS = (1, 3, 5, 10, 40)
CATALOGUE = [f"i{n}" for n in range(40)]
RANX = {
    "precision_at_k": "precision",
    "recall_at_k": "recall",
    "hit_rate_at_k": "hit_rate",
    "reciprocal_rank": "mrr",
    "average_precision_at_k": "map",
    "ndcg_at_k": "ndcg",
}


@pytest.fixture(scope="module")
def _migrated(make_database: MakeDatabase, template: str) -> Iterator[Session]:
    with database.connect(make_database(template)) as connection:
        yield connection


@pytest.fixture
def reader(_migrated: Session) -> Session:
    """A connection to a database that no test here writes to."""
    _migrated.execute("reset all")
    return _migrated


def close(wanted: Any) -> Any:
    """Equal but for rounding; nan, which stands for null in arrays, equals nan."""
    return pytest.approx(wanted, rel=1e-9, abs=1e-9, nan_ok=True)


@dataclass(frozen=True)
class Case:
    """A list and what is relevant, with gains; `counts` are the users that met each item of the catalogue."""

    recommended: list[str | None]
    relevant: list[str]
    gains: list[float]
    expected: list[str]
    counts: list[int]

    @property
    def cleaned(self) -> list[str]:
        """The list with another irrelevant item for each null and each repetition."""
        first = {item: position for position, item in reversed(list(enumerate(self.recommended)))}
        return [
            item if item is not None and first[item] == position else f"miss{position}"
            for position, item in enumerate(self.recommended)
        ]


def make_case(rng: random.Random) -> Case:
    recommended: list[str | None] = list(rng.choices(CATALOGUE, k=rng.randrange(13)))
    if rng.random() < 0.5:
        recommended = list(rng.sample(CATALOGUE, rng.randrange(30)))
    for _ in range(rng.randrange(3)):
        recommended.insert(rng.randrange(len(recommended) + 1), None)
    relevant = rng.sample(CATALOGUE, rng.randrange(1, 15))
    gains = [rng.randrange(5) for _ in relevant]
    gains[rng.randrange(len(gains))] = 3
    return Case(
        recommended,
        relevant,
        list(map(float, gains)),
        rng.sample(CATALOGUE, rng.randrange(15)),
        [rng.randrange(30) for _ in CATALOGUE],
    )


@cache
def cases() -> list[Case]:
    rng = random.Random(20021001)
    return [make_case(rng) for _ in range(300)]


def evaluated(connection: Session, expression: str, given: list[Case], ks: tuple[int, ...] = KS) -> np.ndarray:
    """An expression of a case and k, in one statement: a row for each case, a column for each k."""
    rows = connection.execute(
        f"""
        select {expression}
        from jsonb_to_recordset(%(cases)s::jsonb) as c
          (n int, recommended text[], relevant text[], gains double precision[], expected text[], counts bigint[])
        cross join unnest(%(ks)s::int[]) as k (k)
        order by c.n, k.k
        """.encode(),
        {
            "cases": json.dumps([{"n": n, **asdict(case)} for n, case in enumerate(given)]),
            "ks": list(ks),
            "catalogue": CATALOGUE,
        },
    ).fetchall()
    return np.array([np.nan if value is None else value for (value,) in rows], dtype=float).reshape(len(given), len(ks))


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


def test_novelty(reader: Session) -> None:
    """The counts of every other item are left out: those are taken to be met by one user."""
    half = "(%(catalogue)s::text[])[:20], c.counts[:20]"
    ours = evaluated(reader, f"dynrec.novelty_at_k(c.recommended, {half}, 30, k.k)", cases())
    wanted = []
    for case in cases():
        known = dict(zip(CATALOGUE[:20], case.counts, strict=False))
        lists = [{item for item in case.recommended[:k] if item is not None} for k in KS]
        wanted.append(
            [
                np.mean([-np.log2(max(known.get(item, 1), 1) / 30) for item in items]) if items else np.nan
                for items in lists
            ]
        )
    assert ours == close(np.array(wanted))
    assert np.isnan(ours).any()


def test_popularity_bias(reader: Session) -> None:
    half = "(%(catalogue)s::text[])[:20], c.counts[:20]"
    ours = evaluated(reader, f"dynrec.popularity_bias_at_k(c.recommended, {half}, k.k)", cases())
    wanted = []
    for case in cases():
        known = dict(zip(CATALOGUE[:20], case.counts, strict=False))
        lists = [{item for item in case.recommended[:k] if item is not None} for k in KS]
        mean = np.mean(list(known.values()))
        wanted.append([np.mean([known.get(item, 0) for item in items]) / mean if items else np.nan for items in lists])
    assert ours == close(np.array(wanted))


def exposures() -> list[tuple[list[str | None], int]]:
    """What was shown, from evenly to one item alone, with the size of the catalogue."""
    rng = random.Random(1912)
    made: list[tuple[list[str | None], int]] = []
    for n in range(200):
        weights = [(rank + 1.0) ** -(n % 10) for rank in range(len(CATALOGUE))]
        shown: list[str | None] = [*rng.choices(CATALOGUE, weights, k=rng.randrange(1, 300)), None]
        made.append((shown, len({*shown, None}) - 1 + rng.choice([0, 1, 60])))
    return made


def test_exposure(reader: Session) -> None:
    given = exposures()
    rows = reader.execute(
        """
        select dynrec.gini_of_exposure(e.shown, e.size), dynrec.shannon_of_exposure(e.shown), dynrec.catalogue_coverage(e.shown, e.size)
        from jsonb_to_recordset(%s::jsonb) as e (n int, shown text[], size bigint) order by e.n
        """,
        [json.dumps([{"n": n, "shown": shown, "size": size} for n, (shown, size) in enumerate(given)])],
    ).fetchall()
    wanted = []
    for shown, size in given:
        counts = Counter(item for item in shown if item is not None)
        times = np.array([*counts.values(), *[0] * (size - len(counts))], dtype=float)
        shares = times[times > 0] / times.sum()
        wanted.append(
            (
                np.abs(times[:, None] - times).mean() / (2 * times.mean()),  # half the relative mean difference
                -(shares * np.log2(shares)).sum(),
                len(counts) / size,
            )
        )
    assert np.array(rows, dtype=float) == close(np.array(wanted))
    assert np.ptp(np.array(wanted), axis=0).min() > 0.5


def test_diversity_of_vectors(reader: Session) -> None:
    rng = np.random.default_rng(5)
    lists = [rng.integers(-9, 10, (int(rng.integers(2, 12)), 3)) for _ in range(150)]
    rows = reader.execute(
        """
        select dynrec.intra_list_diversity(array(select (v.value #>> '{}')::vector from jsonb_array_elements(l.value) with ordinality v order by v.ordinality))
        from jsonb_array_elements(%s::jsonb) with ordinality l order by l.ordinality
        """,
        [json.dumps([vectors.tolist() for vectors in lists])],
    ).fetchall()
    wanted = []
    for vectors in lists:
        lengths = np.linalg.norm(vectors, axis=1)
        products = [
            (vectors[a] @ vectors[b]) / (lengths[a] * lengths[b]) if lengths[a] * lengths[b] else 0.0
            for a, b in combinations(range(len(vectors)), 2)
        ]
        wanted.append(1 - np.mean(products))
    assert [value for (value,) in rows] == close(wanted)


def test_diversity_of_categories(reader: Session) -> None:
    rng = random.Random(11)
    lists = [[rng.choice(["a", "b", "c", None]) for _ in range(rng.randrange(2, 12))] for _ in range(150)]
    rows = reader.execute(
        "select dynrec.intra_list_diversity(l.categories) from jsonb_to_recordset(%s::jsonb) as l (n int, categories text[]) order by l.n",
        [json.dumps([{"n": n, "categories": categories} for n, categories in enumerate(lists)])],
    ).fetchall()
    wanted = [
        np.mean([a is None or a != b for a, b in combinations(categories, 2)], dtype=float) for categories in lists
    ]
    assert [value for (value,) in rows] == close(wanted)


# What a metric of one list is called with besides recommended and relevant.
PER_LIST = {
    "precision_at_k": "{}, {}, 2",
    "recall_at_k": "{}, {}, 2",
    "hit_rate_at_k": "{}, {}, 2",
    "reciprocal_rank": "{}, {}",
    "average_precision_at_k": "{}, {}, 2",
    "ndcg_at_k": "{}, {}, 2",
    "serendipity_at_k": "{}, {}, null, 2",
}
# recommended, relevant, and the metrics in the order of PER_LIST.
EDGES: list[tuple[str, str, list[float | None]]] = [
    ("array['a']", "null", [None] * 7),
    ("array['a']", "'{}'", [None] * 7),
    ("array['a']", "'{null}'", [None] * 7),
    ("null", "null", [None] * 7),
    ("'{}'", "array['a']", [0] * 7),
    ("null", "array['a']", [0] * 7),
    ("'{null}'", "array['a', null]", [0] * 7),
    ("array['a']", "array['a']", [1 / 2, 1, 1, 1, 1, 1, 1 / 2]),
    ("array['a', 'a']", "array['a', 'a']", [1 / 2, 1, 1, 1, 1, 1, 1 / 2]),
    ("array['x', 'y', 'a']", "array['a']", [0, 0, 0, 1 / 3, 0, 0, 0]),
    ("array['x', 'x', 'a']", "array['a']", [0, 0, 0, 1 / 3, 0, 0, 0]),
    ("array[null, 'a']", "array['a', null]", [1 / 2, 1, 1, 1 / 2, 1 / 2, 1 / np.log2(3), 1 / 2]),
    ("array['a', 'b']", "array['c', 'b', 'a']", [1, 2 / 3, 1, 1, 1, 1, 1]),
    ("array[['x', 'a'], ['b', 'c']]", "array[['a', 'b'], ['c', 'd']]", [1 / 2, 1 / 4, 1, 1 / 2, 1 / 4, 0.38685281, 1 / 2]),
    ("'[5:6]={x,a}'", "'[-3:-3]={a}'", [1 / 2, 1, 1, 1 / 2, 1 / 2, 1 / np.log2(3), 1 / 2]),
]  # fmt: skip


@pytest.mark.parametrize(("recommended", "relevant", "wanted"), EDGES)
def test_the_edges_of_one_list(reader: Session, recommended: str, relevant: str, wanted: list[float | None]) -> None:
    calls = [
        f"dynrec.{name}({arguments.format(f'({recommended})::text[]', f'({relevant})::text[]')})"
        for name, arguments in PER_LIST.items()
    ]
    row = reader.execute(f"select {', '.join(calls)}".encode()).fetchone()
    assert row is not None
    assert [value is None for value in row] == [value is None for value in wanted]
    assert [value or 0 for value in row] == pytest.approx([value or 0 for value in wanted], abs=1e-8)


VALUES: list[tuple[str, float | None]] = [
    ("ndcg_at_k(array['a'], array['a'], 10)", 1),
    ("ndcg_at_k(array['a'], array['a'], array[2.5], 10)", 1),
    ("ndcg_at_k(array['a', 'b'], array['a', 'b'], array[1, 3], 1)", 1 / 3),
    ("ndcg_at_k(array['a'], null, null, 10)", None),
    ("ndcg_at_k(array['a'], '{}', '{}', 10)", None),
    ("ndcg_at_k(array['a'], '{null}', '{1}', 10)", None),
    ("ndcg_at_k(array['a'], array['a'], '{0}', 10)", None),
    ("ndcg_at_k('{}', array['a'], '{1}', 10)", 0),
    ("ndcg_at_k(null, array['a'], '{1}', 10)", 0),
    ("ndcg_at_k(array['a', 'b'], array['b', 'a', 'b'], '{1, 2, 3}', 1)", 2 / 3),
    ("ndcg_at_k(array['a', 'a'], array['a'], '{3}', 10)", 1),
    ("ndcg_at_k(array['b', 'a'], array['a', 'b'], '{3, 0}', 1)", 0),
    ("serendipity_at_k(array['a', 'b'], array['a', 'b'], array['b', null], 2)", 1 / 2),
    ("serendipity_at_k(array['a'], array['a'], array['a'], 2)", 0),
    ("serendipity_at_k(array['a'], null, array['a'], 2)", None),
    ("serendipity_at_k(null, array['a'], '{}', 2)", 0),
    ("catalogue_coverage(array['a', 'b', 'a', null], 4)", 1 / 2),
    ("catalogue_coverage(null, 4)", 0),
    ("catalogue_coverage('{}', 4)", 0),
    ("catalogue_coverage(array['a'], null)", None),
    ("user_coverage(array[0, 9, 10, null], 10)", 1 / 4),
    ("user_coverage('{}', 10)", None),
    ("user_coverage(null, 10)", None),
    ("gini_of_exposure(array['a', 'b', 'a', 'b'], 2)", 0),
    ("gini_of_exposure(array['a', 'a', null], 4)", 3 / 4),
    ("gini_of_exposure(array['a'], 1)", 0),
    ("gini_of_exposure(array['a', 'b', 'b', 'b'], 9223372036854775807)", 1),
    ("gini_of_exposure('{}', 3)", None),
    ("gini_of_exposure('{null}', 3)", None),
    ("gini_of_exposure(null, 3)", None),
    ("gini_of_exposure(array['a'], null)", None),
    ("shannon_of_exposure(array['a', 'b', 'c', 'd', null])", 2),
    ("shannon_of_exposure(array['a', 'a'])", 0),
    ("shannon_of_exposure('{}')", None),
    ("shannon_of_exposure(null)", None),
    ("novelty_at_k(array['a', 'b'], array['a', 'b'], '{8, 2}', 8, 10)", 1),
    ("novelty_at_k(array['a', 'b'], array['a', 'b'], '{8, 2}', 8, 1)", 0),
    ("novelty_at_k(array['a', 'a', null, 'b'], array['a', 'b', 'b'], '{8, 2, null}', 8, 10)", 1),
    ("novelty_at_k(array['x', 'y', 'z'], array['y', 'z'], '{0, null}', 8, 10)", 3),
    ("novelty_at_k(array['x'], '{}', '{}', 8, 10)", 3),
    ("novelty_at_k('{}', array['a'], '{8}', 8, 10)", None),
    ("novelty_at_k(null, array['a'], '{8}', 8, 10)", None),
    ("novelty_at_k(array['a'], null, '{8}', 8, 10)", None),
    ("novelty_at_k(array['a'], array['a'], null, 8, 10)", None),
    ("novelty_at_k(array['a'], array['a'], '{8}', null, 10)", None),
    ("popularity_bias_at_k(array['a'], array['a', 'b'], '{6, 2}', 10)", 3 / 2),
    ("popularity_bias_at_k(array['a', 'x', 'a', null], array['a', 'b', 'b'], '{6, 1, 2}', 10)", 3 / 4),
    ("popularity_bias_at_k(array['x', 'a'], array['a', 'b'], '{6, null}', 1)", 0),
    ("popularity_bias_at_k(array['a'], array['a'], '{0}', 10)", None),
    ("popularity_bias_at_k(array['a'], '{}', '{}', 10)", None),
    ("popularity_bias_at_k('{}', array['a'], '{1}', 10)", None),
    ("popularity_bias_at_k(null, array['a'], '{1}', 10)", None),
    ("popularity_bias_at_k(array['a'], null, null, 10)", None),
    ("intra_list_diversity(array['[1,0]', '[0,1]']::public.vector[])", 1),
    ("intra_list_diversity(array['[1,0]', '[2,0]', '[-1,0]', null]::public.vector[])", 4 / 3),
    ("intra_list_diversity(array['[1,0]', '[0,0]', '[0,0]']::public.vector[])", 1),
    ("intra_list_diversity(array['[1,0]', null]::public.vector[])", None),
    ("intra_list_diversity('{}'::public.vector[])", None),
    ("intra_list_diversity(null::public.vector[])", None),
    ("intra_list_diversity(array['a', 'b'])", 1),
    ("intra_list_diversity(array['a', 'b', 'a'])", 2 / 3),
    ("intra_list_diversity(array[null, null, 'a']::text[])", 1),
    ("intra_list_diversity(array['a'])", None),
    ("intra_list_diversity('{}'::text[])", None),
    ("intra_list_diversity(null::text[])", None),
]


@pytest.mark.parametrize(("expression", "wanted"), VALUES)
def test_values(reader: Session, expression: str, wanted: float | None) -> None:
    """Without a search path: the functions find all that they need."""
    reader.execute("set search_path = ''")
    row = reader.execute(f"select dynrec.{expression}".encode()).fetchone()
    assert row is not None
    assert row[0] == (wanted if wanted is None else close(wanted))


def test_perfect_lists_are_exactly_1(reader: Session) -> None:
    ideal = (
        "array(select i::text from generate_series(1, 1000) i), array(select i::text from generate_series(1, 1000) i)"
    )
    gains = "array(select 1.0 / i from generate_series(1, 1000) i)"
    row = reader.execute(
        f"select dynrec.ndcg_at_k({ideal}, 777), dynrec.ndcg_at_k({ideal}, {gains}, 777), dynrec.average_precision_at_k({ideal}, 777)".encode()
    ).fetchone()
    assert row == (1, 1, 1)


def test_users_with_nothing_to_find_do_not_count(reader: Session) -> None:
    value = reader.execute(
        "select avg(dynrec.recall_at_k(r.recommended, r.relevant, 5)) from (values (array['a'], array['a']), (array['a'], '{}')) r (recommended, relevant)"
    ).fetchone()
    assert value == (1,)


AT_K = [
    *(f"{name}({arguments.format('r.items', 'r.items').replace('2', '{k}')})" for name, arguments in PER_LIST.items() if name != "reciprocal_rank"),
    "ndcg_at_k(r.items, r.items, array(select 1::double precision from unnest(r.items)), {k})",
    "novelty_at_k(r.items, array['a'], '{{1}}', 5, {k})",
    "popularity_bias_at_k(r.items, array['a'], '{{1}}', {k})",
    "user_coverage(array(select 1 from unnest(r.items)), {k})",
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "k"),
    [
        *((call, k) for call in AT_K for k in ("null", "0", "-1", "10001")),
        *(("reciprocal_rank(r.items, r.items, {k})", k) for k in ("0", "-1", "10001")),  # null is the whole list
    ],
)
def test_k_is_checked(reader: Session, call: str, k: str) -> None:
    """As a constant and as a column, whatever the lists are."""
    for items in ("array['a']", "'{}'::text[]", "null::text[]"):
        for given in (k, "r.k"):
            statement = f"select dynrec.{call.format(k=given)} from (select {items} as items, {k}::int as k from generate_series(1, 2) offset 0) r"
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=k):
                reader.execute(statement.encode())


ERRORS: list[tuple[str, str]] = [
    ("ndcg_at_k(array['a'], array['a'], '{-0.5}', 10)", "gain is out of range: '-0.5'"),
    ("ndcg_at_k(array['a'], array['a'], '{NaN}', 10)", "gain is out of range: 'NaN'"),
    ("ndcg_at_k(array['a'], array['a'], '{Infinity}', 10)", "gain is out of range: 'Infinity'"),
    ("ndcg_at_k(null, array['a', 'b'], '{1, -1}', 10)", "gain is out of range: '-1'"),
    ("ndcg_at_k(array['a'], array['a', 'b'], '{1}', 10)", "relevant item without a gain: 'b'"),
    ("ndcg_at_k(array['a'], array['a', 'b'], '{1, null}', 10)", "gain is out of range: null"),
    ("ndcg_at_k(array['a'], array['a'], null, 10)", "relevant item without a gain: 'a'"),
    ("ndcg_at_k(array['a'], array['a'], '{1, 4}', 10)", "gain without a relevant item: '4'"),
    ("ndcg_at_k(array['a'], null, '{4}', 10)", "gain without a relevant item: '4'"),
    ("catalogue_coverage(array['a', 'b'], 1)", "catalogue_size is out of range: '1'"),
    ("catalogue_coverage('{}', 0)", "catalogue_size is out of range: '0'"),
    ("catalogue_coverage(null, -3)", "catalogue_size is out of range: '-3'"),
    ("gini_of_exposure(array['a', 'b'], 1)", "catalogue_size is out of range: '1'"),
    ("gini_of_exposure('{}', 0)", "catalogue_size is out of range: '0'"),
    ("novelty_at_k(array['a'], array['a'], '{1}', 0, 10)", "users is out of range: '0'"),
    ("novelty_at_k(array['a'], array['a'], '{9}', 8, 10)", "user_count is out of range: '9'"),
    ("novelty_at_k(array['a'], array['a'], '{-1}', 8, 10)", "user_count is out of range: '-1'"),
    ("novelty_at_k(null, array['a', 'b'], '{1}', 8, 10)", "item without a user_count: 'b'"),
    ("novelty_at_k(null, array['a'], '{1, 2}', 8, 10)", "user_count without an item: '2'"),
    ("popularity_bias_at_k(array['a'], array['a'], '{-1}', 10)", "user_count is out of range: '-1'"),
    ("popularity_bias_at_k(array['a'], array['a', 'b'], '{1}', 10)", "item without a user_count: 'b'"),
    ("popularity_bias_at_k(array['a'], array['a'], '{1, null}', 10)", "user_count without an item: null"),
]


@pytest.mark.parametrize(("expression", "message"), ERRORS)
def test_errors(reader: Session, expression: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        reader.execute(f"select dynrec.{expression}".encode())
    assert caught.value.diag.message_primary == message
    assert caught.value.diag.message_hint


def test_vectors_of_different_dimensions(reader: Session) -> None:
    with pytest.raises(psycopg.errors.DataException, match="dimensions 2 and 3"):
        reader.execute("select dynrec.intra_list_diversity(array['[1,2]', '[1,2,3]']::vector[])")


def test_where_pgvector_lives_elsewhere(vector_elsewhere_url: str) -> None:
    with database.connect(vector_elsewhere_url) as connection:
        connection.execute("set search_path = ''")
        value: tuple[Any, ...] | None = connection.execute(
            "select dynrec.intra_list_diversity(array['[1,0]', '[0,1]']::extensions.vector[])"
        ).fetchone()
    assert value == (1,)
