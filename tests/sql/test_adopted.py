"""Vectors that the item table holds already."""

import numpy as np
import psycopg
import pytest

from tests.drain import Session, as_text
from tests.sql.shop import Shop, assert_close

RANDOM = np.random.default_rng(7)


def vectors(count: int, dimension: int = 8) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    return {str(n): RANDOM.normal(size=dimension).astype(np.float32) * 5 for n in range(1, count + 1)}


def create(connection: Session, type_: str, given: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]) -> Shop:
    connection.execute(f"create table items (id int primary key, title text, embedding {type_})".encode())
    connection.execute("create table events (user_id int, item_id int, occurred_at timestamptz)")
    for key, vector in given.items():
        text = as_text(vector) if "[]" not in type_ else as_text(vector).replace("[", "{").replace("]", "}")
        connection.execute("insert into items values (%s, %s, %s)", [key, f"item {key}", text])
    connection.execute(
        "select dynrec.create_recommender('adopted', 'public.items', text_columns => '{title}', vector_column => 'embedding', "
        "interactions => 'public.events')"
    )
    shop = Shop(connection, "adopted", "", None)
    shop.drain()
    return shop


@pytest.mark.parametrize("type_", ["vector(8)", "vector", "halfvec(8)", "real[]", "double precision[]"])
def test_types(connection: Session, type_: str) -> None:
    given = vectors(20)
    shop = create(connection, type_, given)
    stored = shop.item_vectors(given)
    for key, vector in given.items():
        kept = stored[key]
        assert kept is not None
        assert np.abs(kept - vector / np.linalg.norm(vector)).max() < 1e-3
    connection.execute("update items set embedding = (select embedding from items where id = 2) where id = 1")
    connection.execute("update items set title = 'another title' where id = 3")
    shop.drain()
    after = shop.item_vectors(given)
    assert_close({"1": after["1"]}, {"1": stored["2"]})
    assert_close({"3": after["3"]}, {"3": stored["3"]})
    assert shop.execute("select count(*) from dynrec.item_history('adopted', '3')") == [(1,)]


def test_users_of_adopted_vectors(connection: Session) -> None:
    given = vectors(20)
    shop = create(connection, "vector(8)", given)
    connection.execute("insert into events values (1, 4, now()), (1, 5, now())")
    expected = sum(given[key] / np.linalg.norm(given[key]) for key in ("4", "5"))
    for _ in range(2):
        got = shop.user_vectors(["1"])["1"]
        assert got is not None
        assert float(got @ expected) == pytest.approx(float(np.linalg.norm(expected)), abs=1e-4)
        shop.drain()


def test_rows_without_a_vector(connection: Session) -> None:
    shop = create(connection, "vector(8)", vectors(5))
    connection.execute("insert into items values (6, 'none', null), (7, 'zero', '[0,0,0,0,0,0,0,0]')")
    shop.drain()
    assert len(shop.call("similar_items", item="1")) == 6
    assert len(shop.call("similar_items", item="6")) == 6
    connection.execute("insert into events values (1, 6, now())")
    assert len(shop.recommend("1", k=5)) == 5
    shop.drain()
    assert len(shop.recommend("1", k=5)) == 5


def test_altering_recomputes_nothing_of_what_is_as_it_was(connection: Session) -> None:
    shop = create(connection, "vector(8)", vectors(5))
    statement = (
        "select items_to_recompute from dynrec.alter_recommender('adopted', options => '{\"exclude_seen\": false}')"
    )
    assert shop.value(statement) == 0
    connection.execute("update items set embedding = '[1,2,3,4,5,6,7,8]' where id = 1")
    assert shop.value(statement) == 1


def test_an_empty_column_of_unknown_dimension(connection: Session) -> None:
    with pytest.raises(psycopg.Error, match="dimension"):
        create(connection, "vector", {})


BAD = [
    ("vector", "[1,2,3]"),
    ("real[]", "{1,2,3}"),
    ("real[]", "{1,2,3,4,5,6,7,NaN}"),
    ("real[]", "{1,2,3,4,null,6,7,8}"),
    ("real[]", "{}"),
    ("double precision[]", "{1e300,0,0,0,0,0,0,0}"),
]


@pytest.mark.parametrize(("type_", "bad"), BAD)
def test_a_bad_vector_harms_itself_alone(connection: Session, type_: str, bad: str) -> None:
    given = vectors(5)
    shop = create(connection, type_, given)
    connection.execute("insert into items values (6, 'bad', %s)", [bad])
    connection.execute("update items set embedding = (select embedding from items where id = 2) where id = 1")
    shop.drain()
    after = shop.item_vectors(given)
    assert_close({"1": after["1"]}, {"1": after["2"]})
    assert shop.execute("select kind, entity from dynrec.failures") == [("item", "6")]
    assert len(shop.call("similar_items", item="2")) == 5
    connection.execute("update items set embedding = (select embedding from items where id = 2) where id = 6")
    shop.drain()
    assert shop.execute("select kind, entity from dynrec.failures") == []
    assert_close({"6": shop.item_vectors(["6"])["6"]}, {"6": after["2"]})
