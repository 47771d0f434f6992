"""Another encoder under a recommender that is being read, with real workers: there, back, and up to date in both."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg import sql

from dynrec_store import queue
from dynrec_store.settings import Settings
from tests.workers.support import Connection, drained, fresh, until
from workers.context import Context
from workers.encoders.hashing import HashingEncoder
from workers.inprocess import running
from workers.learning.run import train
from workers.recompute import recompute_items

WORDS = ("red", "blue", "green", "old", "new", "small", "large", "round")
THINGS = ("lamp", "chair", "table", "spoon", "kettle", "shelf", "clock", "brush")
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=2)  # of the clock that reads go by: equal questions have equal answers
OLD, NEW = HashingEncoder(256), HashingEncoder(32)

Answer: TypeAlias = tuple[tuple[str, float, int], ...]  # item, score, model version


@pytest.fixture
def shop(connection: Connection) -> Connection:
    """Sixty-four products, forty users who each like one sort of thing, a recommender over both; an encoder to go to."""
    connection.execute("""
        create table products (id text primary key, title text, sort text);
        create table clicks (user_id text, item_id text, occurred_at timestamptz);
        create index on clicks (user_id);
        create index on clicks (item_id)""")
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into products values (%s, %s, %s)", [(f"{w}-{t}", f"{w} {t}", t) for t in THINGS for w in WORDS]
        )
        cursor.executemany(
            "insert into clicks values (%s, %s, %s)",
            [
                (
                    f"u{user}",
                    f"{WORDS[(3 * n + user) % 8]}-{THINGS[user % 8]}",
                    START + timedelta(minutes=40 * n + user),
                )
                for n in range(20)
                for user in range(40)
            ],
        )
    connection.execute("""
        select dynrec.create_recommender('shop', 'products', text_columns => '{title}', categorical_columns => '{sort}',
          interactions => 'clicks', encoder => 'hashing', options => '{"exclude_seen": false}');
        select dynrec.register_encoder('small', 'hashing', '', 32)""")
    frozen = sql.SQL("alter database {} set dynrec.clock = {}")
    connection.execute(frozen.format(sql.Identifier(connection.info.dbname), NOW.isoformat()))
    connection.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])
    register_vector(connection)
    return connection


def answers(connection: Connection, user: str, k: int = 8, by_model: int | None = None) -> Answer:
    rows = connection.execute(
        "select item_id, score, model_version from dynrec.recommend('shop', %s, %s, by_model => %s)",
        [user, k, by_model],
    ).fetchall()
    return tuple((item, round(score, 4), version) for item, score, version in rows)


def version(connection: Connection) -> int:
    """The model version that answers."""
    ((found,),) = {row[2:] for row in answers(connection, "u3")}
    return found


def value(connection: Connection, statement: str, *arguments: object) -> int:
    row = connection.execute(statement.encode(), arguments).fetchone()
    assert row is not None
    return int(row[0])


def searched(connection: Connection) -> int:
    """The content space that a search looks into."""
    return value(connection, "select model_version from dynrec.search('shop', 'lamp', k => 1)")


def complete(connection: Connection, model: int) -> None:
    """Wait until a model version answers in the shadow."""
    state = b"select state = 'shadow' from dynrec.model_versions where model_version = %s"
    until(lambda: connection.execute(state, [model]).fetchone() == (True,))


def assert_encoded(connection: Connection, space: int, encoder: HashingEncoder) -> None:
    """Every item has, in this space, the vector of the text that its row has now."""
    texts: dict[str, str] = dict(connection.execute("select id, title || '. ' || sort from products").fetchall())
    rows = connection.execute("select item_id, embedding from dynrec_data.item_vector where model_id = %s", [space])
    stored = {item: vector.to_numpy() for item, vector in rows}
    assert stored.keys() == texts.keys()
    for item, vector in zip(texts, encoder.encode(list(texts.values())), strict=True):
        np.testing.assert_allclose(stored[item], vector, atol=1e-6)


def dynrec(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dynrec_store", *arguments]
    environment = os.environ | {"DYNREC_DATABASE_URL": url}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def readers(url: str) -> Iterator[set[Answer | str]]:
    """Three who ask the same all the time: all the answers that they had, and errors."""
    seen: set[Answer | str] = set()
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                try:
                    seen.add(answers(connection, "u5"))
                except psycopg.Error as error:
                    seen.add(str(error))
                    return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_learned_model_and_its_encoder_are_exchanged_under_readers(
    shop: Connection, settings: Settings, database_url: str
) -> None:
    with running(settings, database_url):
        assert fresh(shop)
        first = train(settings, database_url, "shop", options={"promote": True})
        until(lambda: version(shop) == first)
        assert fresh(shop)
        with readers(database_url) as seen:
            space = value(shop, "select dynrec.stage_model('shop', encoder => 'small')")
            complete(shop, space)
            trained = dynrec(database_url, "train", "shop", "--base-model", str(space))
            assert trained.returncode == 0, trained.stderr
            second = value(shop, "select max(model_version) from dynrec.model_versions where base_model = %s", space)
            complete(shop, second)
            assert fresh(shop)
            expected = {answers(shop, "u5", by_model=model) for model in (first, second)}
            assert seen == {answers(shop, "u5", by_model=first)}
            for _ in range(5):
                assert value(shop, "select dynrec.promote_model('shop', %s)", second) == second
                assert value(shop, "select dynrec.rollback_model('shop')") == first
            value(shop, "select dynrec.promote_model('shop', %s)", second)
            until(lambda: seen >= expected)
        assert seen == expected
        assert searched(shop) == space

        shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
        shop.execute("insert into products values ('odd-spoon', 'odd spoon', 'spoon')")
        assert fresh(shop)
        assert_encoded(shop, space, NEW)
        assert_encoded(shop, 1, OLD)
        assert ("odd-spoon", second) in {(item, model) for item, _, model in answers(shop, "u3", 65)}
        moved = "select count(*) from dynrec_data.item_vector_history where item_id = 'red-lamp' and model_id = %s"
        assert (value(shop, moved, first), value(shop, moved, second)) == (1, 1)

        assert value(shop, "select dynrec.rollback_model('shop')") == first
        assert searched(shop) == 1
        assert ("odd-spoon", first) in {(item, model) for item, _, model in answers(shop, "u3", 65)}
        shop.execute("update products set title = 'other again' where id = 'red-lamp'")
        assert fresh(shop)
        assert_encoded(shop, space, NEW)
        assert_encoded(shop, 1, OLD)
        assert (value(shop, moved, first), value(shop, moved, second)) == (2, 2)


def test_an_encoder_alone_is_exchanged_under_readers(shop: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url):
        assert fresh(shop)
        with readers(database_url) as seen:
            space = value(shop, "select dynrec.stage_model('shop', encoder => 'small')")
            complete(shop, space)
            assert fresh(shop)
            expected = {answers(shop, "u5", by_model=model) for model in (1, space)}
            assert seen == {answers(shop, "u5", by_model=1)}
            for _ in range(5):
                value(shop, "select dynrec.promote_model('shop', %s)", space)
                assert value(shop, "select dynrec.rollback_model('shop')") == 1
            value(shop, "select dynrec.promote_model('shop', %s)", space)
            until(lambda: seen >= expected)
        assert seen == expected

        shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
        shop.execute("insert into products values ('odd-spoon', 'odd spoon', 'spoon')")
        assert fresh(shop)
        assert_encoded(shop, space, NEW)
        assert_encoded(shop, 1, OLD)


def test_a_text_that_the_encoder_before_met_is_encoded_anew(
    shop: Connection, settings: Settings, database_url: str
) -> None:
    with running(settings, database_url):
        space = value(shop, "select dynrec.stage_model('shop', encoder => 'small')")
        for title in ("wholly other", "red lamp"):
            shop.execute("update products set title = %s where id = 'red-lamp'", [title])
            assert fresh(shop)
        complete(shop, space)
        value(shop, "select dynrec.promote_model('shop', %s)", space)
        shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
        assert fresh(shop)
        assert shop.execute("select * from dynrec.failures").fetchall() == []
        assert_encoded(shop, space, NEW)
        assert_encoded(shop, 1, OLD)


def test_changes_go_on_while_encoders_are_exchanged(shop: Connection, settings: Settings, database_url: str) -> None:
    """Promotions between the steps of every batch: none of the changes is lost in either space."""
    with running(settings, database_url):
        assert fresh(shop)
        space = value(shop, "select dynrec.stage_model('shop', encoder => 'small')")
        complete(shop, space)
        for turn in range(20):
            shop.execute("update products set title = %s || id where sort = %s", [f"turn {turn} ", THINGS[turn % 8]])
            value(shop, "select dynrec.promote_model('shop', %s)", (space, 1)[turn % 2])
        assert fresh(shop)
        assert shop.execute("select * from dynrec.failures").fetchall() == []
        assert_encoded(shop, space, NEW)
        assert_encoded(shop, 1, OLD)


def test_from_a_column_of_vectors_to_an_encoder_and_back(
    connection: Connection, settings: Settings, database_url: str
) -> None:
    connection.execute("""
        create table products (id text primary key, title text, sort text, direction vector);
        insert into products select 'p' || i, 'red ' || i, 'lamp', array[i, 1, 0, 0]::vector from generate_series(1, 5) i;
        select dynrec.create_recommender('shop', 'products', text_columns => '{title,sort}', vector_column => 'direction');
        select dynrec.register_encoder('small', 'hashing', '', 32)""")
    register_vector(connection)
    with running(settings, database_url):
        assert fresh(connection)
        space = value(connection, "select dynrec.stage_model('shop', encoder => 'small')")
        complete(connection, space)
        value(connection, "select dynrec.promote_model('shop', %s)", space)
        connection.execute("update products set title = 'other', direction = '[0,0,3,4]' where id = 'p1'")
        connection.execute("update products set direction = null where id = 'p2'; delete from products where id = 'p3'")
        connection.execute("update products set direction = '[1,2]' where id = 'p4'")
        until(lambda: connection.execute("select entity from dynrec.failures").fetchall() == [("p4",)])
        connection.execute("update products set direction = '[1,0,0,0]' where id = 'p4'")
        assert fresh(connection)
        assert_encoded(connection, space, NEW)
        value(connection, "select dynrec.rollback_model('shop')")
        connection.execute("update products set direction = '[0,1,0,0]' where id = 'p5'")
        assert fresh(connection)
        rows = connection.execute("select item_id, embedding from dynrec_data.item_vector where model_id = 1")
        assert {item: vector.to_list() for item, vector in rows} == {
            "p1": pytest.approx([0, 0, 0.6, 0.8]),
            "p2": [0, 0, 0, 0],
            "p4": [1, 0, 0, 0],
            "p5": [0, 1, 0, 0],
        }


class Overwritten(dict[str, queue.Encoding]):
    """What threads share, while another one claims for another encoder at once."""

    def __setitem__(self, recommender: str, _: queue.Encoding) -> None:
        super().__setitem__(recommender, queue.Encoding("small", "hashing", "", 32, adopted=False))


def test_a_batch_is_encoded_by_what_it_was_claimed_for(shop: Connection, context: Context) -> None:
    drained(context)
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    context.encodings = Overwritten(context.encodings)
    tally, _ = recompute_items(context, "shop")
    assert tally.published == 1
    stored_one = "select embedding::real[] from dynrec_data.item_vector where item_id = 'red-lamp'"
    assert len(shop.execute(stored_one.encode()).fetchall()[0][0]) == 256
