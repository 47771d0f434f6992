"""Recommenders take turns: nobody waits for another's storm."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dynrec_store import database
from dynrec_store.settings import Settings
from tests.workers.support import Connection, Fussy, fresh, stored, until
from workers.inprocess import running

MANY = 3000  # items, sixty batches


def slow(fussy: Fussy) -> None:
    """Every batch takes a while, as on a busy device."""
    fussy.before = lambda: time.sleep(0.05)


def books(connection: Connection) -> None:
    """Another recommender."""
    connection.execute("create table books (id text primary key, title text)")
    connection.execute("""
        select dynrec.create_recommender('books', 'books', text_columns => '{title}', encoder => 'hashing')""")


def waiting(connection: Connection, recommender: str) -> int:
    row = connection.execute(
        "select coalesce(sum(entities), 0) from dynrec.queue where recommender = %s and kind = 'item'", [recommender]
    ).fetchone()
    assert row is not None
    return int(row[0])


def small_batches(settings: Settings) -> Settings:
    return settings.model_copy(update={"batch_size": 50, "lease_seconds": 60})


@contextmanager
def storm(url: str) -> Iterator[None]:
    """Events of few users and renamed items, without an end, for the length of the block."""
    over = threading.Event()

    def write() -> None:
        with database.connect(url, application_name="storm") as connection:
            number = 0
            while not over.is_set():
                number += 1
                connection.execute(
                    "insert into clicks (user_id, item_id) select 'u' || i %% 50, %s from generate_series(1, 500) i",
                    [str(number % 300)],
                )
                connection.execute(
                    "update products set title = title || '.' where id in (%s, %s)",
                    [str(number % 300), str(number % 7)],
                )

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        try:
            yield
        finally:
            over.set()
            written.result()


def test_a_storm_does_not_keep_another_recommender_waiting(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    books(products)
    slow(fussy)
    with running(small_batches(settings), database_url):
        assert fresh(products)
        products.execute("insert into products select n::text, 'item ' || n from generate_series(1, %s) n", [MANY])
        until(lambda: len(stored(products)) > 100)
        for number in range(3):
            products.execute("insert into books values (%s, %s)", [str(number), f"book {number}"])
            done = products.execute("select dynrec.wait_until_fresh('books', '60 s')").fetchone()
            assert done == (True,)
        assert waiting(products, "shop") > MANY / 4
        fussy.before = lambda: None
        assert fresh(products)


def test_two_threads_are_enough_for_a_storm_and_another_recommender(
    products: Connection, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.inprocess.THREADS", 2)
    books(products)
    products.execute("create index on clicks (user_id)")
    products.execute("create index on clicks (item_id)")
    products.execute("insert into products select n::text, 'item ' || n from generate_series(0, 299) n")
    with running(settings, database_url):
        assert fresh(products)
        with storm(database_url):
            for number in range(5):
                until(lambda: products.execute("select 1 from dynrec.queue where recommender = 'shop'").fetchone())
                products.execute("insert into books values (%s, %s)", [str(number), f"book {number}"])
                done = products.execute("select dynrec.wait_until_fresh('books', '60 s')").fetchone()
                assert done == (True,)
        assert fresh(products)
