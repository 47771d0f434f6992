"""What a reader may see, and where reads work: row security, read-only transactions, a standby."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dynrec_store import database, migrate, postmaster
from dynrec_store.binaries import as_server_user, locate
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import SETTINGS
from tests.drain import Session
from tests.ports import free_port
from tests.sql.shop import NOON, Event, Shop, create_shop

READS: dict[str, dict[str, Any]] = {
    "recommend": {"user_id": "u", "exclude_seen": False},
    "recommend_for_items": {"item_ids": ["2"]},
    "similar_items": {"item": "2"},
    "trending": {},
    "search": {"query": "nr"},
}


@pytest.fixture
def seen(shop: Shop) -> Shop:
    """Every product has been bought."""
    shop.add_events([Event("u", str(n), NOON, "purchase") for n in (1, 2, 3)])
    shop.add_events([Event("v", str(n), NOON, "purchase") for n in range(1, 13)])
    shop.drain()
    return shop


def answers(shop: Shop, **arguments: Any) -> dict[str, set[str]]:
    """The items that each read gives."""
    return {name: {item for item, _, _ in shop.call(name, k=20, **given, **arguments)} for name, given in READS.items()}


def test_a_deleted_item_is_gone_at_once(seen: Shop) -> None:
    assert all("5" in items for items in answers(seen).values())
    seen.execute("delete from shop.products where id = 5")
    for _ in range(2):
        assert all("5" not in items for items in answers(seen).values())
        assert all("5" not in items for items in answers(seen, filter="price > 0").values())
        with pytest.raises(psycopg.errors.NoDataFound):
            seen.call("similar_items", item="5")
        seen.drain()


def test_a_deleted_item_is_gone_within_the_transaction_that_deletes_it(seen: Shop) -> None:
    seen.execute("begin isolation level repeatable read")
    seen.execute("delete from shop.products where id = 5")
    assert all("5" not in items for items in answers(seen).values())
    seen.execute("rollback")
    assert all("5" in items for items in answers(seen).values())


def test_ones_own_uncommitted_interactions_count(seen: Shop) -> None:
    seen.execute("begin")
    seen.add_events([Event("new", "1", NOON, "view")])
    assert seen.recommend("new", k=1)[0][2] == "personal"
    seen.execute("rollback")
    assert seen.recommend("new", k=1)[0][2] == "trending"


@pytest.fixture
def tenant(seen: Shop) -> Iterator[Shop]:
    """The shop as a role that sees cheap products alone."""
    seen.execute(
        """
        create role tenant_of_a_test;
        grant dynrec_reader to tenant_of_a_test;
        grant usage on schema shop to tenant_of_a_test;
        grant select on all tables in schema shop to tenant_of_a_test;
        alter table shop.products enable row level security;
        create policy cheap on shop.products for select to tenant_of_a_test using (price <= 6);
        set role tenant_of_a_test;
        """
    )
    yield seen
    seen.execute("rollback" if seen.connection.info.transaction_status != 0 else "select 1")
    seen.execute("reset role; drop owned by tenant_of_a_test; drop role tenant_of_a_test")


def test_row_security(tenant: Shop) -> None:
    visible = {str(n) for n in range(1, 7)}
    for arguments in ({}, {"filter": "true"}, {"filter": "price > 2"}):
        for name, items in answers(tenant, **arguments).items():
            assert items <= visible, name
            assert len(items) >= 3, name
    with pytest.raises(psycopg.errors.NoDataFound):
        tenant.call("similar_items", item="9")
    with pytest.raises(psycopg.errors.NoDataFound):
        tenant.execute("select * from dynrec.explain('shop', 'u', '9')")
    leaking = "true) or (true"
    with pytest.raises(psycopg.Error):
        tenant.call("trending", filter=leaking)


def test_row_security_in_the_past(tenant: Shop) -> None:
    visible = {str(n) for n in range(1, 7)}
    moment = tenant.value("select clock_timestamp()")
    for name, given in READS.items():
        if name != "search":
            items = {item for item, _, _ in tenant.call(name, k=20, as_of=moment, **given)}
            assert items <= visible, name


def test_row_security_does_not_lose_changes_of_hidden_rows(tenant: Shop) -> None:
    tenant.execute("reset role")
    tenant.execute(
        "grant insert, update on shop.products to tenant_of_a_test; create policy all_writes on shop.products for insert with check (true)"
    )
    tenant.execute("set role tenant_of_a_test")
    tenant.execute("insert into shop.products (id, title, price) values (99, 'dear', 1000)")
    tenant.execute("reset role")
    tenant.drain()
    tenant.assert_items_right()


@pytest.mark.parametrize(
    "setting",
    [
        "begin read only",
        "set default_transaction_read_only = on",
        "begin isolation level serializable read only deferrable",
    ],
)
def test_read_only_transactions(seen: Shop, setting: str) -> None:
    seen.add_events([Event("u", "4", NOON, "view")])
    before = [seen.call(name, k=20, **given) for name, given in READS.items()]
    seen.connection.execute(setting.encode())
    check_reads(seen)
    assert [[item for item, _, _ in seen.call(name, k=20, **given)] for name, given in READS.items()] == [
        [item for item, _, _ in rows] for rows in before
    ]


def check_reads(shop: Shop) -> None:
    """Everything that only reads works."""
    moment = shop.value("select clock_timestamp()")
    for name, given in READS.items():
        assert shop.call(name, k=20, filter="price > 0", **given)
        if name != "search":
            assert shop.call(name, k=20, as_of=moment, **given)
        if name in {"recommend", "similar_items", "recommend_for_items"}:
            assert shop.call(name, diversity=0.5, **given)
    for statement in (
        "select * from dynrec.explain('shop', 'u', '7')",
        "select * from dynrec.item_history('shop', '1')",
        "select * from dynrec.drift('shop', '1')",
        "select dynrec.item_vector_at('shop', '1'), dynrec.user_vector_at('shop', 'u')",
        "select * from dynrec.status, dynrec.freshness, dynrec.model_versions",
        "select * from dynrec.queue union all select null, null, null, null, null, null, null",
        "select * from dynrec.doctor()",
        "select * from dynrec._pending_work() union all select null, null, 0, 0, 0, 0",
    ):
        assert shop.connection.execute(statement.encode()).fetchall(), statement


@pytest.fixture(scope="module")
def standby(open_folder: Path, postgres_package: str) -> Iterator[tuple[Session, Session]]:
    """Connections to a server of its own and to a standby that follows it."""
    folder = open_folder / "standby"
    with EmbeddedPostgres(open_folder / "primary", package=postgres_package, settings=SETTINGS) as primary:
        binaries = locate(postgres_package, open_folder / "primary")
        if not (binaries.program("psql").parent / "pg_basebackup").exists():
            pytest.skip("this PostgreSQL comes without pg_basebackup")
        migrate.upgrade(primary.url)
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        as_server_user(
            [
                str(binaries.program("pg_basebackup")),
                f"--dbname={primary.url}",
                f"--pgdata={folder}/pgdata",
                "--write-recovery-conf",
                "--checkpoint=fast",
            ]
        )
        port = free_port()
        postmaster.start(binaries, folder / "pgdata", None, port)
        url = primary.url.replace(f":{primary.url.rsplit(':', 1)[1].split('/')[0]}/", f":{port}/")
        with database.connect(primary.url) as first, database.connect(url) as second:
            yield first, second
        postmaster.stop(folder / "pgdata")
    shutil.rmtree(folder, ignore_errors=True)


def test_a_standby(standby: tuple[Session, Session]) -> None:
    first, second = standby
    shop = create_shop(first, products=12)
    shop.add_events([Event("u", str(n), NOON, "purchase") for n in (1, 2, 3)])
    shop.drain()
    shop.add_events([Event("u", "4", NOON, "view")])
    for (statement,) in first.execute("select statement from dynrec._index_statements()").fetchall():
        first.execute(statement)
    position = shop.value("select pg_current_wal_lsn()")
    follower = Shop(second)
    while not follower.value("select pg_last_wal_replay_lsn() >= %s", [position]):
        pass
    assert follower.value("select pg_is_in_recovery()")
    check_reads(follower)
    for name, given in READS.items():
        assert [row[0] for row in follower.call(name, **given)] == [row[0] for row in shop.call(name, **given)]
