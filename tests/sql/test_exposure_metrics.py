"""The metrics of many lists and of what is known of items in sql/57_metrics.sql against formulas of another shape.

Vectors have whole components, whose products are exact in the single precision of pgvector.
"""

import json
import random
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import psycopg
import pytest

from dynrec_store import database
from tests.drain import Session
from tests.sql import metrics
from tests.sql.metrics import CATALOGUE, KS, cases, close, evaluated

migrated, reader = metrics.migrated, metrics.reader


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
