"""The option vector_storage: item vectors in half precision, from the start and by conversion."""

import threading

import numpy as np
import numpy.typing as npt
import psycopg
import pytest

from dynrec_store import database
from tests import learned
from tests.drain import Session
from tests.sql.shop import NOON, Event, Shop, call

SMALL = '{"vector_storage": "half", "vector_index": "half"}'
SMALLEST = '{"vector_storage": "half", "vector_index": "binary"}'
LARGE = '{"vector_storage": "full", "vector_index": "full"}'


def alter(shop: Shop, options: str) -> None:
    """Give the recommender other options."""
    shop.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [options])


def tend(shop: Shop) -> list[str]:
    """Do what indexes and vectors need, until they need nothing; what that was."""
    done: list[str] = []
    while statements := shop.execute("select statement from dynrec._index_statements()"):
        for (statement,) in statements:
            shop.connection.execute(statement.encode())
            done.append(" ".join(statement.split()[:3]))
        assert len(done) < 30
    return done


def stored(shop: Shop, table: str) -> set[tuple[bool, bool]]:
    """In which columns the vectors of a table are: embedding, half."""
    rows = shop.connection.execute(
        f"select distinct embedding is not null, half is not null from dynrec_data.{table}".encode()
    )
    return set(rows.fetchall())


def vectors(shop: Shop) -> dict[str, npt.NDArray[np.float64]]:
    """The items' vectors, as anybody may ask for them."""
    rows = shop.execute("select id::text, dynrec.item_vector_at('shop', id::text)::text from shop.products")
    return {item: np.array(text.strip("[]").split(","), dtype=float) for item, text in rows}


def states(shop: Shop) -> list[tuple[str, str]]:
    """What the model versions' indexes hold, and how their vectors are stored."""
    return shop.execute("select vector_index, vector_storage from dynrec.model_versions order by model_version")


@pytest.fixture
def visited(shop: Shop) -> Shop:
    """The shop with events, published and indexed."""
    shop.add_events(Event(f"u{n % 3}", str(1 + n % 11), NOON, "purchase") for n in range(24))
    shop.drain()
    tend(shop)
    return shop


@pytest.mark.parametrize("options", [SMALL, SMALLEST])
def test_stored_by_half(visited: Shop, options: str) -> None:
    before = vectors(visited)
    lists = {user: visited.call("recommend", user_id=user, k=3) for user in ("u0", "u1", "u2")}
    alter(visited, options)
    assert states(visited) == [("full", "full")]  # while reads go through the index over full vectors
    assert tend(visited)[-1] == "select dynrec._convert_vectors(1)"
    assert states(visited) == [(options.split('"')[-2], "half")]
    assert stored(visited, "item_vector") == {(False, True)}
    after = vectors(visited)
    for item, vector in after.items():
        assert vector == pytest.approx(before[item], rel=2**-11, abs=2**-25)
        assert vector == pytest.approx(vector.astype(np.float16).astype(float), rel=1e-6)
    for user, rows in lists.items():
        again = visited.call("recommend", user_id=user, k=3)
        assert [row[0] for row in again] == [row[0] for row in rows]
        assert [row[1] for row in again] == pytest.approx([row[1] for row in rows], abs=1e-3)


def test_what_is_rounded_counts_everywhere(visited: Shop) -> None:
    """Users are sums of the vectors that are stored; a text that is encoded again makes no new version of them."""
    alter(visited, SMALL)
    tend(visited)
    visited.execute("update shop.products set title = title || ' again' where id < 4")
    visited.add_events([Event("u7", "1", NOON, "purchase"), Event("u7", "2", NOON, "purchase")])
    visited.drain()
    assert stored(visited, "item_vector") == {(False, True)}
    assert stored(visited, "item_vector_history") == {(False, True)}
    now = vectors(visited)
    ((user,),) = visited.execute("select dynrec.user_vector_at('shop', 'u7')::text")
    total = now["1"] + now["2"]
    assert np.array(user.strip("[]").split(","), dtype=float) == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    versions = "select item_id, count(*) from dynrec_data.item_vector_history group by 1 order by 1"
    before = visited.execute(versions)
    assert before == [("1", 1), ("2", 1), ("3", 1)]
    visited.execute("select dynrec.refresh('shop')")
    visited.drain()
    visited.execute("update shop.products set title = replace(title, ' again', ' again!') where id = 1")
    visited.drain()
    assert visited.execute(versions) == [("1", 2), ("2", 1), ("3", 1)]
    ((first,),) = visited.execute("select count(*) from dynrec.item_history('shop', '1') where embedding is not null")
    assert first == 3


def test_the_way_back(visited: Shop) -> None:
    alter(visited, SMALLEST)
    tend(visited)
    rounded = vectors(visited)
    alter(visited, LARGE)
    assert states(visited) == [("binary", "mixed")]
    visited.execute("update shop.products set title = title || ' again' where id = 1")
    visited.drain()
    assert stored(visited, "item_vector") == {(False, True), (True, False)}
    assert len(visited.call("similar_items", item="2", k=11)) == 11
    done = tend(visited)
    # an index over full vectors holds all of them
    assert done.index("select dynrec._convert_vectors(1)") < done.index("create index concurrently")
    assert states(visited) == [("full", "full")]
    assert stored(visited, "item_vector") == {(True, False)}
    back = vectors(visited)
    assert {item: list(vector) for item, vector in back.items() if item != "1"} == {
        item: list(vector) for item, vector in rounded.items() if item != "1"
    }
    assert len(visited.call("similar_items", item="2", k=11)) == 11


def test_halves_and_full_vectors_are_read_alike(visited: Shop) -> None:
    """In the middle of a conversion, and by an index that was built over both."""
    alter(visited, SMALL)
    for _ in range(2):
        for (statement,) in visited.execute("select statement from dynrec._index_statements()"):
            if "_convert_vectors" not in statement:
                visited.connection.execute(statement.encode())
    visited.execute("select dynrec._convert_vectors(1, 5)")
    assert stored(visited, "item_vector") == {(False, True), (True, False)}
    assert states(visited) == [("half", "mixed")]
    visited.connection.execute(b"reindex index dynrec_data.item_vector_1_hnsw_half")
    found = visited.call("similar_items", item="2", k=11)
    assert len({item for item, _, source in found if source == "similar"}) == 11
    ((recall,),) = visited.execute("select recall from dynrec.index_recall('shop')")
    assert recall == 1


def test_an_index_over_full_vectors_needs_them(shop: Shop) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"options\.vector_index") as caught:
        alter(shop, '{"vector_storage": "half"}')
    assert caught.value.diag.message_hint == "Give vector_index half or binary with vector_storage half."
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"options\.vector_storage.*'quarter'"):
        alter(shop, '{"vector_storage": "quarter", "vector_index": "half"}')


def test_a_learned_models_vectors(visited: Shop) -> None:
    alter(visited, SMALLEST)
    tend(visited)
    model = learned.stage(visited.connection)
    learned.backfill(visited.connection)
    assert states(visited) == [("binary", "half"), ("half", "half")]
    visited.execute("select dynrec.promote_model('shop', %s)", [model])
    assert stored(visited, f"item_vector_{model}") == {(False, True)}
    visited.execute("select dynrec._derive_again(1)")
    learned.backfill(visited.connection)
    assert visited.value("select count(*) from dynrec_data.item_vector_history") == 0  # the same, rounded again
    assert len(visited.call("recommend", user_id="u1", k=3)) == 3


def test_readers_and_writers_notice_nothing_of_a_conversion(database_url: str, visited: Shop) -> None:
    ended, failures, lists = threading.Event(), [], []

    def read() -> None:
        with database.connect(database_url) as connection:
            while not ended.is_set():
                try:
                    lists.append(_similar(connection))
                except psycopg.Error as error:
                    failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for options in (SMALL, SMALLEST, LARGE, SMALLEST, LARGE):
            alter(visited, options)
            visited.execute("update shop.products set title = title || ' again' where id = 3")
            visited.drain()
            tend(visited)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert set(lists) == {11}


def _similar(connection: Session) -> int:
    return len(
        {item for item, _, source in call(connection, "shop", "similar_items", item="1", k=11) if source == "similar"}
    )
