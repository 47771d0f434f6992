"""What drift has to be, by numpy, and a catalogue whose inputs are known."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.drain import Session, drain
from tests.learned import backfill, stage
from tests.sql.shop import NOON, Shop

FLOOR = 0.0001


Vectors = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Drift:
    """A row of dynrec.data_drift."""

    model: int
    psi: float
    bins: list[str]
    expected: list[float]
    observed: list[float]
    n: int


def drifts(connection: Session, recommender: str = "shop", by_model: int | None = None) -> dict[str, Drift]:
    """The rows by subject, checked to be in the order of their drift."""
    rows = connection.execute(
        "select model_version, subject, psi, bins, expected, observed, n from dynrec.data_drift(%s, %s)",
        [recommender, by_model],
    ).fetchall()
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert len({row[1] for row in rows}) == len(rows)
    return {subject: Drift(model, *rest) for model, subject, *rest in rows}


def take_profiles(connection: Session) -> int:
    ((taken,),) = connection.execute("select dynrec._take_profiles()").fetchall()
    return int(taken)


def profiles(connection: Session) -> dict[int, Any]:
    return dict(connection.execute("select id, profile from dynrec_data.model_version order by id").fetchall())


def deciles(values: Sequence[float | None]) -> list[float]:
    """Distinct deciles of what is known; NaN is above all numbers."""
    known = np.sort([math.inf if np.isnan(value) else value for value in values if value is not None])
    if len(known) == 0:
        return []
    places = np.quantile(np.arange(len(known)), np.arange(1, 10) / 10, method="inverted_cdf")
    return [float(edge) for edge in np.unique(known[places.astype(int)])]


def number_counts(values: Sequence[float | None], edges: list[float]) -> list[int]:
    known = [math.inf if np.isnan(value) else value for value in values if value is not None]
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return [*map(int, counts), len(values) - len(known)]


def commonest(labels: Sequence[str | None]) -> list[str]:
    counted = Counter(label for label in labels if label is not None)
    return sorted(counted, key=lambda label: (-counted[label], label))[:20]


def label_counts(labels: Sequence[str | None], known: list[str]) -> list[int]:
    counted = Counter("missing" if label is None else label if label in known else "others" for label in labels)
    return [counted[label] for label in [*known, "others", "missing"]]


def stability_index(before: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index, less what chance makes of samples of these sizes."""
    e, o = np.array(before) / sum(before), np.array(now) / sum(now)
    raw = np.sum((o - e) * np.log(np.maximum(o, FLOOR) / np.maximum(e, FLOOR)))
    occupied = int(np.sum((e > 0) | (o > 0)))
    return float(max(0.0, raw - (occupied - 1) * (1 / sum(before) + 1 / sum(now))))


Values = Sequence[Any]


def expected_drift(then: Mapping[str, Values], now: Mapping[str, Values], kinds: Mapping[str, bool]) -> dict[str, Any]:
    """(psi, shares then, shares now, n) of each subject that is there both then and now; `kinds`: is it a number."""
    wanted = {}
    for subject in then:
        if not then[subject] or not now[subject]:
            continue
        if kinds[subject]:
            edges = deciles(then[subject])
            before, after = (number_counts(one[subject], edges) for one in (then, now))
        else:
            known = commonest(then[subject])
            before, after = (label_counts(one[subject], known) for one in (then, now))
        wanted[subject] = (
            stability_index(before, after),
            [count / sum(before) for count in before],
            [count / sum(after) for count in after],
            sum(after),
        )
    return wanted


def assert_drift(got: Mapping[str, Drift], wanted: Mapping[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for subject, (psi, expected, observed, n) in wanted.items():
        row = got[subject]
        assert row.n == n, subject
        assert row.expected == pytest.approx(expected, abs=1e-12), subject
        assert row.observed == pytest.approx(observed, abs=1e-12), subject
        assert row.psi == pytest.approx(psi, abs=1e-9), subject
        assert len(row.bins) == len(expected), subject


NUMBERS = ["price", "rating", "nothing", "same"]


LABELS = ["category", "colour", "void"]


TABLES = """
    create table items (id int primary key, price numeric, rating double precision, nothing numeric, same int,
      category text, colour text, void text, embedding vector(8));
    create table events (user_id int, item_id int, kind text, value double precision, occurred_at timestamptz);
    create index on events (user_id);
    create index on events (item_id);
"""


@dataclass
class Catalogue:
    """The tables of a recommender 'shop' with adopted vectors."""

    connection: Session
    centre: Vectors | None = None

    def add_items(self, first: int, vectors: Vectors, prices: Values, ratings: Values, labels: Values) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into items values (%s, %s, %s, null, 7, %s, %s, null, %s::text::vector)",
                [
                    (first + n, prices[n], ratings[n], *labels[n], json.dumps(vectors[n].tolist()))
                    for n in range(len(vectors))
                ],
            )

    def add_events(self, rows: Sequence[tuple[Any, ...]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany("insert into events values (%s, %s, %s, %s, %s)", rows)

    def inputs(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, Values]:
        """What the tables say now of every subject; interactions of [since, until)."""
        rows = self.connection.execute(f"select {', '.join(NUMBERS + LABELS)} from items".encode()).fetchall()
        found: dict[str, Values] = {
            f"items: {name}": [None if row[n] is None else row[n] for row in rows]
            for n, name in enumerate(NUMBERS + LABELS)
        }
        for name in NUMBERS:
            found[f"items: {name}"] = [None if v is None else float(v) for v in found[f"items: {name}"]]
        events = self.connection.execute(
            "select e.kind, e.value, i.category, i.colour, i.void from events e left join items i on i.id = e.item_id "
            "where occurred_at >= coalesce(%s::timestamptz, '-infinity') and occurred_at < coalesce(%s::timestamptz, 'infinity')",
            [since, until],
        ).fetchall()
        found["interactions: kind"], found["interactions: value"], *met = ([row[n] for row in events] for n in range(5))
        found |= {f"items met: {name}": values for name, values in zip(LABELS, met, strict=True)}
        found["vectors"] = self._cosines()
        return found

    def _cosines(self) -> list[float]:
        texts = self.connection.execute("select embedding::text from items order by id").fetchall()
        vectors = np.array([json.loads(text) for (text,) in texts], dtype=np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if self.centre is None:
            self.centre = vectors.mean(axis=0)
        return [float(value) for value in vectors @ self.centre / np.linalg.norm(self.centre)]


KINDS = {
    **{f"items: {name}": True for name in NUMBERS},
    **{f"items: {name}": False for name in LABELS},
    **{f"items met: {name}": False for name in LABELS},
    "interactions: kind": False,
    "interactions: value": True,
    "vectors": True,
}


@pytest.fixture
def catalogue(connection: Session) -> Catalogue:
    """130 items and 400 interactions of long ago."""
    connection.execute(TABLES)
    made = Catalogue(connection)
    rng = np.random.default_rng(5)
    made.add_items(
        1,
        rng.normal(size=(130, 8)) + 1,
        [None if n % 11 == 0 else int(rng.integers(1, 9)) for n in range(130)],  # ties and nulls
        [math.nan if n % 7 == 0 else float(rng.normal()) for n in range(130)],
        [(f"c{int(rng.integers(0, 26)):03}", None if n % 5 == 0 else ["red", "blue"][n % 2]) for n in range(130)],
    )
    made.add_events(
        [
            (
                n % 17,
                int(rng.integers(1, 140)),  # some of no item
                [None, "view", "view", "buy"][int(rng.integers(0, 4))],
                None if n % 3 == 0 else float(rng.integers(1, 30)),
                NOON + n * timedelta(minutes=1),
            )
            for n in range(400)
        ]
    )
    connection.execute(
        """
        select dynrec.create_recommender('shop', 'public.items', vector_column => 'embedding',
          numeric_columns => '{price,rating,nothing,same}', categorical_columns => '{category,colour,void}',
          interactions => 'public.events', kind_column => 'kind', value_column => 'value')
        """
    )
    drain(connection)
    return made


MIDNIGHT = NOON + timedelta(hours=12)


def profiled(shop: Shop, model: int) -> dict[str, Any]:
    """The subjects of a profile: the names of their bins and how often they occurred."""
    ((profile,),) = shop.execute("select profile from dynrec_data.model_version where id = %s", [model])
    return {
        subject["subject"]: dict(
            zip(
                [*(subject["labels"] or []), "others", "missing"] if subject["edges"] is None else subject["edges"],
                subject["counts"],
                strict=subject["edges"] is None,
            )
        )
        for subject in profile["subjects"]
    }


def learned(shop: Shop, since: datetime | None, until: datetime) -> int:
    model = stage(shop.connection)
    backfill(shop.connection)
    shop.execute(
        "update dynrec_data.model_version set data_from = %s, data_until = %s where id = %s", [since, until, model]
    )
    return model


Step = Callable[[Shop], object]
