"""Lists of which metrics are computed, and a database that computes them; for the tests of sql/57_metrics.sql."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.drain import Session

KS = (1, 3, 5, 10, 40)
CATALOGUE = [f"i{n}" for n in range(40)]


@pytest.fixture(scope="module")
def migrated(make_database: MakeDatabase, template: str) -> Iterator[Session]:
    with database.connect(make_database(template)) as connection:
        yield connection


@pytest.fixture
def reader(migrated: Session) -> Session:
    """A connection to a database that no test here writes to."""
    migrated.execute("reset all")
    return migrated


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
