"""An item moves while the vector of somebody who met it is being published from the old one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from dynrec_store import queue
from tests.property import labour, oracle, shop
from tests.property.shop import Connection


def nothing_known(connection: Connection, worker: queue.Connection) -> None:
    """The user has no vector yet."""


def everything_known(connection: Connection, worker: queue.Connection) -> None:
    """The user has a vector, and a refresh of it waits already."""
    labour.drain(worker)
    connection.execute("select dynrec.refresh(%s, user_ids => '{u1}')", [shop.NAME])
    meet(connection, "u1")


def meet(connection: Connection, user: str) -> None:
    connection.execute(
        "insert into event (user_id, item_id, kind, occurred_at) values (%s, 1, 'view', now() - interval '1 hour')",
        [user],
    )


@pytest.mark.parametrize("before", [nothing_known, everything_known])
def test_the_user_follows(database_url: str, before: Callable[[Connection, queue.Connection], None]) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        queue.connect(database_url, application_name="items") as worker,
        queue.connect(database_url, application_name="users") as slow,
    ):
        shop.declare(connection)
        connection.execute("insert into item (id, title) values (1, 'red shoe')")
        meet(connection, "u2")
        labour.drain(worker)
        meet(connection, "u1")
        before(connection, worker)
        with popularity_held(database_url):
            publishing = threading.Thread(target=labour.work, args=[slow, "user"])
            publishing.start()
            wait_for_lock(connection)
            connection.execute("update item set title = 'long coat'")
            assert labour.work(worker, "item")
            assert queue.run_task(worker)
        publishing.join()
        labour.drain(worker)
        assert list(oracle.differences(connection)) == []


@contextmanager
def popularity_held(url: str) -> Iterator[None]:
    """Whoever publishes users has read everything, but cannot finish."""
    with psycopg.connect(url) as holder:
        holder.execute("update dynrec_data.item_popularity set score = score")
        yield
        holder.rollback()


def wait_for_lock(connection: Connection) -> None:
    waits = "select exists (select from pg_stat_activity where application_name = 'users' and wait_event_type = 'Lock')"
    while connection.execute(waits).fetchone() != (True,):
        time.sleep(0.005)
