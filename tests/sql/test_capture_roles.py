"""Who writes, and in which sort of transaction."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dynrec_store import database, migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import SETTINGS
from tests.drain import Session
from tests.sql.shop import NOON, Event, Shop, create_shop


@pytest.fixture
def app(shop: Shop) -> Iterator[Shop]:
    """The same shop as a role of the application sees it, with rights on its own tables alone."""
    connection = shop.connection
    connection.execute("create role app_of_a_test")
    connection.execute("grant usage on schema shop to app_of_a_test")
    connection.execute("grant select, insert, update, delete, truncate on all tables in schema shop to app_of_a_test")
    connection.execute("grant usage on all sequences in schema shop to app_of_a_test")
    connection.execute("set role app_of_a_test")
    yield shop
    connection.execute("reset role")
    connection.execute("drop owned by app_of_a_test")
    connection.execute("drop role app_of_a_test")


def test_the_application_needs_no_right_on_dynrec(app: Shop) -> None:
    for forbidden in ("select * from dynrec_data.change", "select * from dynrec.recommend('shop', 'u')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.connection.execute(forbidden.encode())
    app.execute("insert into shop.products (id, title) values (100, 'by the application')")
    app.execute("update shop.products set title = 'renamed by the application' where id = 1")
    app.execute("delete from shop.products where id = 2")
    app.add_events([Event("u", "1", NOON, "view"), Event("v", "3", NOON, "view")])
    app.execute("update shop.events set kind = 'purchase' where user_id = 'u'")
    app.execute("delete from shop.events where user_id = 'v'")
    app.execute("reset role")
    app.drain()
    app.assert_right()
    app.execute("set role app_of_a_test")
    app.execute("truncate shop.products, shop.events")
    app.execute("reset role")
    app.drain()
    assert app.counts() == (0, 0)


def test_what_the_application_puts_into_its_search_path_does_not_matter(app: Shop) -> None:
    app.execute("reset role")
    app.execute(
        """
        create schema trap authorization app_of_a_test;
        set role app_of_a_test;
        create table trap.change (like shop.events);
        create function trap.isfinite(timestamptz) returns boolean language sql as 'select false';
        create function trap.least(float8, float8) returns float8 language sql as 'select 0.0::float8';
        create operator trap.<> (leftarg = bigint, rightarg = bigint, function = int8eq);
        set search_path = trap, pg_catalog;
        """
    )
    app.add_events([Event("u", "1", NOON, "view", 2)])
    app.execute("update shop.products set id = 500 where id = 5")
    app.execute("reset role")
    assert app.queued() == {("user", "u"), ("item", "5"), ("item", "500")}
    app.execute("reset search_path")
    app.drain()
    app.assert_right()


def test_a_temporary_table_named_like_ours_does_not_matter(shop: Shop) -> None:
    shop.execute("create temporary table change (a int); create temporary table task (a int)")
    shop.execute("insert into shop.products (id, title) values (100, 'seen')")
    shop.drain()
    shop.assert_right()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_every_isolation_level(shop: Shop, isolation: str) -> None:
    with shop.connection.transaction():
        shop.connection.execute(f"set transaction isolation level {isolation}".encode())
        shop.add_products([20, 21])
        shop.execute("update shop.products set title = 'isolated' where id = 1")
        shop.add_events([Event("u", "20", NOON, "view")])
    shop.drain()
    shop.assert_right()


def test_two_writers_never_wait_for_each_other(shop: Shop, database_url: str) -> None:
    shop.execute("set lock_timeout = '2s'")
    with database.connect(database_url, autocommit=False) as other:
        other.execute("insert into shop.events (user_id, item_id) values ('u', 1)")
        other.execute("update shop.products set title = 'other' where id = 1")
        shop.execute("insert into shop.events (user_id, item_id) values ('u', 2)")
        shop.execute("update shop.products set title = 'this' where id = 2")
        shop.drain()
        shop.assert_right()
        other.commit()
    shop.drain()
    shop.assert_right()


@pytest.fixture(scope="module")
def two_phase(open_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    """A server that lets transactions be prepared."""
    settings = {**SETTINGS, "max_prepared_transactions": "5"}
    with EmbeddedPostgres(open_folder / "two-phase", package=postgres_package, settings=settings) as server:
        migrate.upgrade(server.url)
        yield server


@pytest.fixture
def two_phase_shop(two_phase: EmbeddedPostgres) -> Iterator[tuple[Shop, Session]]:
    with database.connect(two_phase.url) as first, database.connect(two_phase.url) as second:
        shop = create_shop(first, products=5)
        shop.drain()
        yield shop, second


def test_prepared_transactions(two_phase_shop: tuple[Shop, Session]) -> None:
    shop, dispatcher = two_phase_shop
    dispatcher.execute("listen dynrec_wake")
    for end in ("commit prepared", "rollback prepared"):
        shop.execute("begin")
        shop.execute("update shop.products set title = title || ' prepared' where id = 1")
        shop.execute("insert into shop.products (id, title) values (100, 'prepared') on conflict do nothing")
        shop.add_events([Event("u", "1", NOON, "view")])
        shop.execute("prepare transaction 'mine'")
        shop.drain()
        shop.assert_right()
        shop.connection.execute(sql.SQL("{} 'mine'").format(sql.SQL(end)))
        shop.drain()
        shop.assert_right()
    assert shop.counts() == (6, 1)
    assert list(dispatcher.notifies(timeout=0.1)) == []
    assert shop.value("select count(*) from dynrec.doctor() where finding like 'max_prepared_transactions%'") == 1
