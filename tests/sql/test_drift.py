"""Drift of inputs and vectors, against numpy."""

import json

import numpy as np
import pytest

from tests.drain import Session, drain
from tests.sql import drifting
from tests.sql.drifting import KINDS, LABELS, NUMBERS, Catalogue, assert_drift, drifts, expected_drift, take_profiles
from tests.sql.shop import Shop

catalogue = drifting.catalogue


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
