"""Drift of inputs and vectors: against numpy, from profiles that are taken once and stay as they were."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.drain import Session, drain
from tests.learned import backfill, stage
from tests.sql.shop import NOON, Event, Shop

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


# The oracle: what went in is sorted into bins, then and now.


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


# A catalogue with columns of all sorts, and vectors of its own.

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


def test_drift_is_that_of_numpy(catalogue: Catalogue) -> None:
    connection = catalogue.connection
    then = catalogue.inputs()
    assert take_profiles(connection) == 1
    ((moment,),) = connection.execute("select clock_timestamp()").fetchall()
    rng = np.random.default_rng(6)
    connection.execute("update items set price = price * 2 where id % 3 = 0")
    connection.execute("update items set price = null where id % 19 = 0")
    connection.execute("update items set colour = 'green' where id % 4 = 1")
    connection.execute("update items set same = 8 where id % 5 = 0")
    connection.execute("update items set nothing = 3, void = 'x' where id < 10")
    connection.execute("delete from items where id between 60 and 69")
    catalogue.add_items(
        200,
        rng.normal(size=(40, 8)),
        [int(rng.integers(1, 20)) for _ in range(40)],
        [float(rng.normal() + 1) for _ in range(40)],
        [(f"n{n % 3}", "blue") for n in range(40)],
    )
    catalogue.add_events(
        [
            (n, int(rng.integers(1, 220)), ["buy", "view", "gift", None][n % 4], float(rng.integers(10, 40)), moment)
            for n in range(90)
        ]
    )
    drain(connection)
    got = drifts(connection)
    # of void nothing was known then, but that there was none
    assert_drift(got, expected_drift(then, catalogue.inputs(since=moment), KINDS))
    assert got["items: void"].bins == ["others", "missing"]
    assert got["items: nothing"].bins == ["any", "missing"]
    assert got["items: same"].bins == ["< 7", ">= 7", "missing"]
    assert len(got["items: category"].bins) == 22
    assert got["items: colour"].bins == ["red", "blue", "others", "missing"] or got["items: colour"].bins == [
        "blue",
        "red",
        "others",
        "missing",
    ]
    assert {row.model for row in got.values()} == {1}


def test_nothing_drifts_where_nothing_changed(catalogue: Catalogue) -> None:
    connection = catalogue.connection
    assert drifts(connection) == {}, "no profile, nothing to compare"
    take_profiles(connection)
    got = drifts(connection)
    assert got.keys() == {"vectors", *(f"items: {name}" for name in NUMBERS + LABELS)}, "no interactions since"
    for subject, row in got.items():
        assert row.psi == 0, subject
        assert row.expected == row.observed, subject
        assert row.n == 130, subject
        assert sum(row.expected) == pytest.approx(1), subject


def test_the_same_interactions_once_more_are_no_drift(catalogue: Catalogue) -> None:
    connection = catalogue.connection
    take_profiles(connection)
    connection.execute(
        "insert into events select user_id, item_id, kind, value, clock_timestamp() from events where occurred_at < '2025-01-01'"
    )
    drain(connection)
    got = drifts(connection)
    assert got.keys() == KINDS.keys()
    assert {row.psi for row in got.values()} == {0}
    assert got["interactions: kind"].n == 400


def test_vectors_of_another_direction(catalogue: Catalogue) -> None:
    connection = catalogue.connection
    then = catalogue.inputs()
    take_profiles(connection)
    connection.execute("update items set embedding = embedding * array_fill(-1::real, array[8])::vector")
    drain(connection)
    got = drifts(connection)
    assert_drift(
        {"vectors": got["vectors"]},
        {"vectors": expected_drift(then, catalogue.inputs(), KINDS)["vectors"]},
    )
    assert got["vectors"].psi > 1
    assert {row.psi for subject, row in got.items() if subject != "vectors"} == {0}


def test_vectors_that_only_grew_longer_do_not_drift(catalogue: Catalogue) -> None:
    connection = catalogue.connection
    take_profiles(connection)
    connection.execute("update items set embedding = embedding * array_fill(4::real, array[8])::vector")
    drain(connection)
    assert drifts(connection)["vectors"].psi == 0


def test_texts_of_another_language(shop: Shop) -> None:
    """Encoded vectors: the words of the titles changed, and nothing else."""
    take_profiles(shop.connection)
    shop.execute("update shop.products set title = 'ein ganz anderes Wort ' || id")
    shop.drain()
    got = drifts(shop.connection)
    assert got["vectors"].psi > 0.25
    assert got["items: price"].psi == got["items: category"].psi == 0


@pytest.mark.parametrize(
    ("vectors", "missing"),
    [(["[1,2,3]", "[2,1,2]", "[0,0,0]"], 1), (["[1,2,3]", "[-1,-2,-3]"], 2)],
    ids=["a zero vector", "a mean without a direction"],
)
def test_vectors_without_a_direction_are_missing(shop: Shop, vectors: list[str], missing: int) -> None:
    """As vectors of the encoder, and as what the mean of them is measured by."""
    shop.execute("delete from shop.products where id > %s", [len(vectors)])
    shop.drain()
    for number, vector in enumerate(vectors, start=1):
        padded = json.dumps([*json.loads(vector), *[0] * 253])
        shop.execute(
            "update dynrec_data.item_vector set embedding = %s::vector where item_id = %s", [padded, str(number)]
        )
    take_profiles(shop.connection)
    row = drifts(shop.connection)["vectors"]
    assert (row.psi, row.n) == (0, len(vectors))
    assert row.expected[-1] == missing / len(vectors)


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


def test_a_content_model_was_fed_with_all_that_was_there(shop: Shop) -> None:
    now = shop.value("select clock_timestamp()")
    shop.add_events(
        Event("u", str(1 + n % 3), moment, kind, 1)
        for n, (moment, kind) in enumerate(
            [(NOON, "old"), (NOON, "old"), (now, "new"), (now + timedelta(days=9), "then")]
        )
    )
    shop.drain()
    take_profiles(shop.connection)
    assert profiled(shop, 1)["interactions: kind"] == {"old": 2, "new": 1, "others": 0, "missing": 0}
    assert profiled(shop, 1)["items met: category"] == {"c1": 1, "c2": 1, "c3": 1, "others": 0, "missing": 0}
    got = drifts(shop.connection)["interactions: kind"]
    assert (got.n, got.observed) == (1, [0, 0, 1, 0]), "the one of the future is yet to come"
    shop.add_events([Event("u", "2", NOON, "late")])
    shop.add_events([Event("v", "77", shop.value("select clock_timestamp()"), "old")])
    got = drifts(shop.connection)["interactions: kind"]
    assert (got.n, got.observed) == (2, [0.5, 0, 0.5, 0] if got.bins[0] == "old" else [0, 0.5, 0.5, 0])
    assert drifts(shop.connection)["items met: category"].observed[-1] == 0.5, "there is no item 77"


def learned(shop: Shop, since: datetime | None, until: datetime) -> int:
    model = stage(shop.connection)
    backfill(shop.connection)
    shop.execute(
        "update dynrec_data.model_version set data_from = %s, data_until = %s where id = %s", [since, until, model]
    )
    return model


@pytest.mark.parametrize("since", [None, NOON], ids=["all", "from noon on"])
def test_a_learned_model_was_fed_with_its_training_data(shop: Shop, since: datetime | None) -> None:
    """Its data begin with data_from and end before data_until; what came from then on is compared with them."""
    instant = timedelta(microseconds=1)
    shop.add_events(
        Event("u", str(n + 1), moment, kind, 1)
        for n, (moment, kind) in enumerate(
            [
                (NOON - instant, "before"),
                (NOON, "first"),
                (MIDNIGHT - instant, "last"),
                (MIDNIGHT, "after"),
                (MIDNIGHT + timedelta(days=3), "first"),
            ]
        )
    )
    shop.drain()
    model = learned(shop, since, MIDNIGHT)
    assert take_profiles(shop.connection) == 2
    known = {"first": 1, "last": 1} | ({} if since else {"before": 1})
    assert profiled(shop, model)["interactions: kind"] == known | {"others": 0, "missing": 0}
    got = drifts(shop.connection, by_model=model)["interactions: kind"]
    assert dict(zip(got.bins, got.observed, strict=True)) == dict.fromkeys(known, 0) | {
        "first": 0.5,
        "others": 0.5,
        "missing": 0,
    }
    assert (got.model, got.n) == (model, 2)
    assert "interactions: kind" not in drifts(shop.connection), "none since the content model's profile"


def test_each_model_version_has_a_drift_of_its_own(shop: Shop) -> None:
    take_profiles(shop.connection)
    shop.execute("update shop.products set price = price + 100")
    shop.drain()
    model = learned(shop, None, NOON)
    take_profiles(shop.connection)
    assert drifts(shop.connection)["items: price"].psi > 1
    assert drifts(shop.connection, by_model=1) == drifts(shop.connection)
    assert drifts(shop.connection, by_model=model)["items: price"].psi == 0
    shop.execute("select dynrec.promote_model('shop')")
    assert {row.model for row in drifts(shop.connection).values()} == {model}
    shop.execute("select dynrec.rollback_model('shop')")
    shop.execute("select dynrec.retire_model('shop', %s)", [model])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"model version {model} has no vectors"):
        drifts(shop.connection, by_model=model)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="99"):
        drifts(shop.connection, by_model=99)
    with pytest.raises(psycopg.errors.UndefinedObject, match="'shp'"):
        drifts(shop.connection, "shp")


def test_labels_that_look_like_something_else(shop: Shop) -> None:
    """Names of bins, empty texts, quotes and braces are labels like any other."""
    odd = ["missing", "others", "", "null", "{a,b}", 'say "x"', "NaN", "a\\b", "漢字", "any", "1", "' or 1"]
    for number, label in enumerate(odd, start=1):
        shop.execute("update shop.products set category = %s where id = %s", [label, number])
    shop.drain()
    take_profiles(shop.connection)
    row = drifts(shop.connection)["items: category"]
    assert sorted(row.bins) == sorted([*odd, "others", "missing"])
    assert row.psi == 0
    assert row.expected == [1 / 12] * 12 + [0, 0]


Step = Callable[[Shop], object]


def test_no_profile_before_the_vectors_are_complete(shop: Shop) -> None:
    """A backfill that waits, is queued or is leased."""
    connection = shop.connection
    shop.execute("select dynrec.refresh('shop')")
    assert take_profiles(connection) == 0, "the scan waits"
    while shop.execute("select dynrec._run_task()") != [(None,)]:
        pass
    assert take_profiles(connection) == 0, "the items wait"
    shop.execute("select dynrec._claim('shop', 'item', 1000, '1 hour')")
    shop.execute("delete from dynrec_data.change")
    assert take_profiles(connection) == 0, "a worker has them"
    assert drifts(connection) == {}
    shop.execute("delete from dynrec_data.lease")
    shop.drain()
    assert take_profiles(connection) == 1


def test_a_live_change_does_not_hold_a_profile_up(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'another' where id = 1")
    assert ("item", "1") in shop.queued()
    assert take_profiles(shop.connection) == 1


def test_no_profile_of_what_cannot_answer_yet(shop: Shop) -> None:
    model = stage(shop.connection)
    shop.execute("delete from dynrec_data.task")
    assert take_profiles(shop.connection) == 1
    assert {one for one, profile in profiles(shop.connection).items() if profile} == {model - 1}
    shop.execute("select dynrec._begin_backfill(r) from dynrec_data.recommender r")
    backfill(shop.connection)
    assert take_profiles(shop.connection) == 1
    assert None not in profiles(shop.connection).values()


def test_a_profile_is_taken_once_and_stays(shop: Shop) -> None:
    model = learned(shop, None, NOON)
    assert take_profiles(shop.connection) == 2
    kept = profiles(shop.connection)
    assert kept.keys() == {1, model}
    shop.execute("update shop.products set price = 1, category = 'new', title = 'same'")
    shop.add_events(Event("u", str(n), NOON, "view") for n in range(1, 9))
    shop.drain()
    backfill(shop.connection)
    assert take_profiles(shop.connection) == 0
    shop.execute("select dynrec.promote_model('shop')")
    shop.execute("select dynrec.refresh('shop')")
    backfill(shop.connection)
    assert take_profiles(shop.connection) == 0
    assert profiles(shop.connection) == kept
    assert drifts(shop.connection)["items: price"].psi > 1


def test_two_who_take_profiles_at_once(shop: Shop, database_url: str) -> None:
    """The second waits for the first and has nothing left to do."""
    with psycopg.connect(database_url) as first, psycopg.connect(database_url, autocommit=True) as second:
        first.execute("select dynrec._take_profiles()")
        second.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("select dynrec._take_profiles()")
        first.commit()
        kept = profiles(shop.connection)
        assert take_profiles(second) == 0
        assert profiles(shop.connection) == kept


def test_a_recommender_without_interactions(connection: Session) -> None:
    connection.execute("create table things (id int primary key, name text, size int)")
    connection.execute("insert into things select n, 'thing ' || n, n from generate_series(1, 30) n")
    connection.execute(
        "select dynrec.create_recommender('things', 'public.things', text_columns => '{name}', numeric_columns => '{size}', encoder => 'hashing')"
    )
    drain(connection)
    assert take_profiles(connection) == 1
    connection.execute("update things set size = 100 where id % 2 = 0")
    drain(connection)
    got = drifts(connection, "things")
    assert got.keys() == {"vectors", "items: size"}
    assert got["vectors"].psi == 0
    assert got["items: size"].psi > 0.25


def test_a_recommender_without_items(shop: Shop) -> None:
    shop.execute("delete from shop.products")
    shop.drain()
    assert take_profiles(shop.connection) == 0
    assert drifts(shop.connection) == {}
    shop.add_products(range(1, 5))
    shop.drain()
    assert take_profiles(shop.connection) == 1
    assert drifts(shop.connection).keys() == {"vectors", "items: price", "items: category"}
    shop.execute("delete from shop.products")
    shop.drain()
    assert drifts(shop.connection) == {}


def test_columns_that_came_and_went(shop: Shop) -> None:
    take_profiles(shop.connection)
    shop.execute("select dynrec.alter_recommender('shop', numeric_columns => '{stock}', categorical_columns => '{}')")
    shop.drain()
    assert drifts(shop.connection).keys() == {"vectors"}, "the profile knows nothing of the new column"


def test_a_number_that_became_a_label(shop: Shop) -> None:
    """A column that is read otherwise than then cannot be compared: its values did not move."""
    take_profiles(shop.connection)
    shop.execute(
        "select dynrec.alter_recommender('shop', numeric_columns => '{}', categorical_columns => '{category,price}')"
    )
    shop.drain()
    got = drifts(shop.connection)
    assert "items: price" not in got or got["items: price"].psi == 0, got["items: price"]


def test_a_column_that_is_both_a_number_and_a_label(shop: Shop) -> None:
    shop.execute(
        "select dynrec.alter_recommender('shop', numeric_columns => '{price}', categorical_columns => '{category,price}')"
    )
    shop.drain()
    take_profiles(shop.connection)
    rows = shop.execute("select subject, psi, n from dynrec.data_drift('shop') where subject = 'items: price'")
    assert {(psi, n) for _, psi, n in rows} == {(0, 12)}, rows
    assert len(rows) <= 2


@pytest.mark.parametrize("extreme", ["1e300", "-1e300", "1e-300", "1e400", "Infinity", "-Infinity", "NaN"])
def test_extreme_numbers(shop: Shop, extreme: str) -> None:
    shop.execute("update shop.products set price = %s::numeric where id < 6", [extreme])
    shop.drain()
    assert take_profiles(shop.connection) == 1
    row = drifts(shop.connection)["items: price"]
    assert (row.psi, row.n) == (0, 12)
    shop.execute("update shop.products set price = 3")
    shop.drain()
    assert drifts(shop.connection)["items: price"].psi > 0


def test_only_the_last_hundred_thousand_interactions_are_looked_at(shop: Shop) -> None:
    shop.execute(
        "alter table shop.events disable trigger user; "
        "insert into shop.events (user_id, item_id, kind, occurred_at) "
        "select 'u' || n, 1, case when n <= 100000 then 'late' else 'early' end, '2024-03-01'::timestamptz - n * interval '1 second' "
        "from generate_series(1, 100010) n"
    )
    take_profiles(shop.connection)
    assert profiled(shop, 1)["interactions: kind"] == {"late": 100_000, "others": 0, "missing": 0}
