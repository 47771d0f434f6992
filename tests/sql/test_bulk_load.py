"""Loads of many rows: while `dynrec.bulk_load` is on, large statements queue scans instead of their rows, and nothing is lost."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import LiteralString

import pytest

from dynrec_store import database
from tests.drain import Session
from tests.sql.shop import NOON, Event, Shop

MANY = 1000  # rows of a statement from which on it is a load
ITEMS: LiteralString = (
    "insert into shop.products (id, title) select i, 'loaded ' || i from generate_series(%s::int, %s) i"
)
EVENTS: LiteralString = """
    insert into shop.events (user_id, item_id, kind, occurred_at)
    select 'u' || i %% 7, 1 + i %% 12, 'view', timestamptz '2024-01-01 00:00Z' + i * interval '1 minute' from generate_series(1, %s) i
"""
OF_ITEMS = {("task", "scan_items"), ("task", "scan_users")}
OF_EVENTS = {("task", "scan_users"), ("task", "popularity")}


@contextmanager
def load(connection: Session) -> Iterator[None]:
    """A transaction that loads."""
    with connection.transaction():
        connection.execute("set local dynrec.bulk_load = on")
        yield


def load_in_vain(shop: Shop) -> None:
    """Many rows, and back to before them."""
    with shop.connection.transaction(force_rollback=True):
        shop.execute(EVENTS, [MANY])


def popularity(shop: Shop) -> dict[str, tuple[int, float]]:
    """Events of each item that has any, and its score as at a moment that all share, as a logarithm."""
    rows = shop.execute("select item_id, event_count, key from dynrec_data.item_popularity where event_count <> 0")
    return {item: (count, round(key, 4)) for item, count, key in rows}


def assert_counted(shop: Shop) -> None:
    """Popularity is what counting afresh gives."""
    kept = popularity(shop)
    shop.execute("select dynrec.refresh('shop')")
    shop.drain()
    assert kept == popularity(shop)


def test_a_load_queues_scans_and_they_make_every_vector(shop: Shop) -> None:
    shop.add_events([Event("u1", "1", NOON, "view"), Event("v", "2", NOON, "purchase")])
    shop.drain()
    with load(shop.connection):
        shop.execute(ITEMS, [1001, 2000])
    assert shop.queued() == OF_ITEMS
    with load(shop.connection):
        shop.execute(EVENTS, [MANY])
    assert shop.queued() == OF_ITEMS | OF_EVENTS
    shop.drain()
    assert shop.counts() == (1012, 8)
    shop.assert_right()
    assert_counted(shop)


def test_copy(shop: Shop) -> None:
    with (
        load(shop.connection),
        shop.connection.cursor() as cursor,
        cursor.copy("copy shop.products (id, title) from stdin") as copy,
    ):
        for number in range(1001, 2001):
            copy.write_row((number, f"copied {number}"))
    assert shop.queued() == OF_ITEMS
    shop.drain()
    shop.assert_right()


def test_updates_and_deletes_of_many(shop: Shop) -> None:
    with load(shop.connection):
        shop.execute(ITEMS, [1001, 3000])
        shop.execute(EVENTS, [2 * MANY])
    shop.drain()
    with load(shop.connection):
        shop.execute("update shop.products set title = title || ' again' where id between 1001 and 2000")
        shop.execute("delete from shop.products where id > 2000")
        shop.execute("update shop.events set kind = 'purchase' where id % 2 = 0")
        shop.execute("delete from shop.events where id % 2 = 1")
    assert shop.queued() == OF_ITEMS | OF_EVENTS
    shop.drain()
    shop.assert_right()
    assert_counted(shop)


def test_few_rows_are_captured_even_where_the_setting_was_left_on(shop: Shop) -> None:
    shop.execute("set dynrec.bulk_load = on")
    shop.execute(ITEMS, [101, 100 + MANY - 1])
    shop.add_events([Event("u", "3", NOON, "view")])
    shop.execute("update shop.products set title = 'renamed' where id = 1")
    shop.execute("delete from shop.products where id = 2")
    assert {kind for kind, _ in shop.queued()} == {"item", "user"}
    assert len(shop.queued()) == MANY - 1 + 3
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()
    shop.execute("reset dynrec.bulk_load")


@pytest.mark.parametrize("value", ["off", "", "unheard of"])
def test_any_other_value_is_off(shop: Shop, value: str) -> None:
    shop.execute("select set_config('dynrec.bulk_load', %s, false)", [value])
    shop.execute(EVENTS, [MANY])
    assert shop.queued() == {("user", f"u{n}") for n in range(7)}


def test_the_setting_ends_with_its_transaction(shop: Shop) -> None:
    with load(shop.connection):
        shop.execute(EVENTS, [MANY])
    shop.execute("delete from shop.events")
    assert {("user", f"u{n}") for n in range(7)} <= shop.queued()


def test_a_transaction_of_many_statements_queues_once(shop: Shop) -> None:
    with load(shop.connection):
        for _ in range(5):
            shop.execute(EVENTS, [MANY])
    assert shop.value("select count(*) from dynrec_data.task") == 2


def test_a_rollback_takes_the_load_and_its_scans_along(shop: Shop) -> None:
    with load(shop.connection):
        load_in_vain(shop)
    assert shop.queued() == set()
    with load(shop.connection):
        load_in_vain(shop)
        # what noted the load before has gone with it
        shop.execute(EVENTS, [2 * MANY])
    assert shop.queued() == OF_EVENTS
    shop.drain()
    shop.assert_right()


def test_loads_at_once_with_ordinary_writes_between(shop: Shop, database_url: str) -> None:
    with (
        database.connect(database_url, autocommit=False) as first,
        database.connect(database_url, autocommit=False) as second,
    ):
        for connection, begins in ((first, 1001), (second, 3001)):
            connection.execute("set local dynrec.bulk_load = on")
            connection.execute(ITEMS, [begins, begins + MANY])
            connection.execute(EVENTS, [MANY])
        shop.add_events([Event("u1", "1", NOON, "view"), Event("w", "2", NOON, "view")])
        shop.execute("update shop.products set title = 'meanwhile' where id = 1")
        shop.drain()
        shop.assert_right()
        first.commit()
        # of somebody whom the load met, and of an item that it brought, before a worker has looked
        shop.add_events([Event("u1", "1001", NOON + timedelta(days=1), "purchase", 2)])
        shop.execute("delete from shop.events where user_id = 'u2' and id % 2 = 0")
        shop.execute("update shop.products set title = 'before the scan' where id = 1002")
        second.rollback()
        second.execute("set local dynrec.bulk_load = on")
        second.execute(ITEMS, [3001, 3001 + MANY])
        shop.drain()
        shop.assert_right()
        shop.execute("delete from shop.events where user_id = 'u3'")
        second.commit()
    shop.drain()
    assert shop.counts() == (12 + 2 * (MANY + 1), 7)
    shop.assert_right()
    assert_counted(shop)


def test_a_session_that_is_killed_while_it_loads_leaves_nothing(shop: Shop, database_url: str) -> None:
    with closing(database.connect(database_url, autocommit=False)) as other:
        other.execute("set local dynrec.bulk_load = on")
        other.execute(EVENTS, [MANY])
        shop.execute("select pg_terminate_backend(%s, 10000)", [other.info.backend_pid])
    assert shop.queued() == set()
    shop.drain()
    shop.assert_right()


def test_one_scan_does_for_many_loads(shop: Shop) -> None:
    for number in range(3):
        with load(shop.connection):
            shop.execute(ITEMS, [(number + 1) * 10_000, (number + 1) * 10_000 + MANY])
            shop.execute(EVENTS, [MANY])
    done = []
    while (one := shop.value("select dynrec._run_task()")) is not None:
        done.append(one)
    # the users wait for the items, and one scan is left for each of what waits
    assert [one.partition(" ")[0] for one in done] == ["scan_items", "popularity"]
    shop.drain()
    shop.assert_right()


def test_the_application_needs_no_right_but_to_write(shop: Shop) -> None:
    shop.execute(
        """
        create role loader_of_a_test;
        grant usage on schema shop to loader_of_a_test;
        grant insert on all tables in schema shop to loader_of_a_test;
        grant usage on all sequences in schema shop to loader_of_a_test;
        set role loader_of_a_test
        """
    )
    with load(shop.connection):
        shop.execute(ITEMS, [1001, 2000])
        shop.execute(EVENTS, [MANY])
    shop.execute("reset role; drop owned by loader_of_a_test; drop role loader_of_a_test")
    assert shop.queued() == OF_ITEMS | OF_EVENTS
    shop.drain()
    shop.assert_right()


def test_lists_know_of_a_load_from_its_commit_on(shop: Shop) -> None:
    shop.add_events([Event("u1", "1", NOON - timedelta(days=900), "view"), Event("w", "2", NOON, "view")])
    shop.drain()
    with load(shop.connection):
        shop.execute(EVENTS, [MANY])
        shop.assert_users_folded()
    shop.assert_users_folded()
    assert shop.value("select tasks from dynrec.status where recommender = 'shop'") == len(OF_EVENTS)
    assert shop.value("select dynrec.wait_until_fresh('shop', '0 s')") is False
    assert shop.value("select dynrec._run_task()").startswith("scan_users")
    shop.assert_users_folded()
    shop.drain()
    assert shop.value("select dynrec.wait_until_fresh('shop', '0 s')") is True
    shop.assert_right()
