"""Dropping a recommender while workers are in the middle of a statement for it leaves nothing behind."""

import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from dynrec_store import queue
from tests.property import labour, shop
from tests.property.shop import Connection, Writer

TABLES = [
    "change",
    "lease",
    "task",
    "retry",
    "dead_letter",
    "item_content",
    "item_content_history",
    "item_popularity",
    "item_popularity_history",
    "impression",
]


def claim_items(worker: queue.Connection) -> None:
    assert queue.claim(worker, shop.NAME, "item", 100, labour.LONG)


def claim_users(worker: queue.Connection) -> None:
    assert queue.claim(worker, shop.NAME, "user", 100, labour.LONG)


def publish_items(worker: queue.Connection) -> None:
    assert labour.work(worker, "item")


def publish_users(worker: queue.Connection) -> None:
    assert labour.work(worker, "user")


def fail(worker: queue.Connection) -> None:
    token = queue.claim(worker, shop.NAME, "user", 100, labour.LONG)
    assert token
    queue.fail(worker, token, queue.leased_entities(worker, token), "made to fail", charge=True)


def run_task(worker: queue.Connection) -> None:
    assert queue.run_task(worker)


@pytest.mark.parametrize("step", [claim_items, claim_users, publish_items, publish_users, fail, run_task])
def test_nothing_is_left(database_url: str, step: Callable[[queue.Connection], None]) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        shop.declare(connection)
        writer = Writer(connection, random.Random(1))
        shop.upsert_items(writer)
        shop.insert_events(writer)
        with queue.connect(database_url, application_name="worker") as worker:
            worker.autocommit = False
            step(worker)
            dropping = threading.Thread(target=connection.execute, args=["select dynrec.drop_recommender('shop')"])
            dropping.start()
            wait_until_blocked(database_url, dropping)
            worker.commit()
            dropping.join()
        assert left(connection) == {}


def wait_until_blocked(url: str, dropping: threading.Thread) -> None:
    """Wait until somebody waits for a lock, or need not."""
    with psycopg.connect(url, autocommit=True) as connection:
        blocked = """
            select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')
        """
        while dropping.is_alive() and connection.execute(blocked).fetchone() == (False,):
            time.sleep(0.01)


def left(connection: Connection) -> dict[str, int]:
    """How many rows of any recommender are left, by table."""
    counts = {}
    for table in TABLES:
        row = connection.execute(f"select count(*) from dynrec_data.{table}").fetchone()
        assert row is not None
        counts[table] = row[0]
    return {table: count for table, count in counts.items() if count}
