"""What the doctor finds, each provoked: processes, leases, models, indexes, slots, settings. Triggers are tested with capture."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from dynrec_store import database, migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.drain import claim
from tests.learned import backfill, stage
from tests.sql.shop import Shop

Finding = tuple[str, str, str]


def doctor(shop: Shop) -> list[Finding]:
    """Subject, severity and finding of each; every one has a remedy."""
    rows = shop.execute("select subject, severity, finding, remedy from dynrec.doctor() order by 1, 3")
    assert all(remedy for *_, remedy in rows), rows
    return [(subject, severity, finding) for subject, severity, finding, _ in rows]


def beat(shop: Shop, process: str, role: str = "worker", **details: Any) -> None:
    shop.execute("select dynrec._beat(%s, %s, %s)", [process, role, Jsonb(details)])


@pytest.fixture
def well(shop: Shop) -> Shop:
    """A shop where all is well."""
    beat(shop, "d", "dispatcher")
    beat(shop, "w")
    assert doctor(shop) == []
    return shop


def test_a_worker_that_vanished(well: Shop) -> None:
    beat(well, "gone")
    beat(well, "stopped", ended=True)
    well.execute(
        "update dynrec_data.heartbeat set beat_at = now() - interval '1 minute' where process <> all ('{d,w}')"
    )
    ((subject, severity, finding),) = doctor(well)
    assert (subject, severity) == ("worker", "warning")
    assert finding.startswith("process gone has not been heard of since ")
    beat(well, "gone")
    assert doctor(well) == []


def test_a_process_of_another_version(well: Shop) -> None:
    beat(well, "w", code=well.value("select hash from dynrec_data.code"), version="1")
    assert doctor(well) == []
    beat(well, "w", code="another", version="0.9")
    ((subject, severity, finding),) = doctor(well)
    assert (subject, severity) == ("worker", "error")
    assert finding.startswith("process w, version 0.9, was made for another state")


def test_workers_that_make_vectors_in_different_ways(well: Shop) -> None:
    beat(well, "w", models={"mini": "precision float32 on cpu", "other": "x"})
    beat(well, "v", models={"mini": "precision float32 on cpu"})
    assert doctor(well) == []
    beat(well, "u", models={"mini": "precision bfloat16 on cuda"})
    ((subject, severity, finding),) = doctor(well)
    assert (subject, severity) == ("worker", "warning")
    assert finding.startswith("mixed models: workers make the vectors of encoder mini in different ways: ")
    assert finding.endswith(": precision bfloat16 on cuda (u); precision float32 on cpu (v, w)")


def test_leases_that_nobody_ends(well: Shop) -> None:
    well.execute("update shop.products set title = title || '!' where id <= 3")
    claim(well.connection, "shop", "item", 3)
    assert doctor(well) == []
    well.execute("update dynrec_data.lease set deadline = now() - interval '2 minutes'")
    ((subject, severity, finding),) = doctor(well)
    assert (subject, severity) == ("shop", "error")
    assert finding.startswith("3 leases ran out at ")
    well.execute("select dynrec._expire_leases()")
    well.drain()
    assert doctor(well) == []


def test_a_model_without_the_vectors_of_some_items(well: Shop) -> None:
    stage(well.connection)
    backfill(well.connection)
    well.execute("select dynrec.promote_model('shop')")
    well.drain()
    assert doctor(well) == []
    well.execute("delete from dynrec_data.item_vector_2 where item_id in ('1', '2')")
    expected = "mixed models: version 2 answers with vectors of 10 items, version 1 has 12"
    assert doctor(well) == [("shop", "warning", expected)]
    well.execute("select dynrec.refresh('shop')")
    assert doctor(well) == [], "it is being done"
    backfill(well.connection)
    assert doctor(well) == []


def test_an_index_whose_build_was_interrupted(well: Shop) -> None:
    well.execute("insert into shop.events (user_id, item_id) values ('u', 1), ('u', 1)")
    well.drain()
    with suppress(psycopg.errors.UniqueViolation):
        well.execute("create unique index concurrently twice on shop.events (user_id)")
    assert doctor(well) == [("shop", "warning", "index shop.twice is invalid: building it was interrupted")]
    well.execute("drop index shop.twice")
    assert doctor(well) == []


def test_a_vector_index_that_cannot_be_built(well: Shop) -> None:
    well.execute(
        "insert into dynrec_data.vector_index (model_id, begun_at, attempts, memory) values (1, now(), 2, 1000000000)"
    )
    assert doctor(well) == []
    well.execute("update dynrec_data.vector_index set attempts = 3")
    assert doctor(well) == [
        ("shop", "warning", "the vector index of model version 1 could not be built, 3 times in a row")
    ]


def test_a_vector_index_that_was_built_in_too_little_memory(well: Shop) -> None:
    well.execute("analyze dynrec_data.item_vector")  # a copy of a database comes without its statistics
    well.execute("select pg_stat_force_next_flush()")
    well.execute(
        "insert into dynrec_data.vector_index (model_id, begun_at, attempts, memory) values (1, now(), 0, 1024)"
    )
    # 12 vectors of 256 dimensions
    assert doctor(well) == [
        ("shop", "warning", "the vector index of model version 1 needs 20 kB to be built in memory and had 1024 bytes")
    ]
    well.execute("update dynrec_data.vector_index set memory = 30000")
    assert doctor(well) == []


def test_a_vector_index_that_nobody_uses(well: Shop) -> None:
    backfill(well.connection)
    assert well.value("select dynrec._has_vector_index(1)")
    assert doctor(well) == [], "it is too early to tell"
    well.execute("update dynrec_data.model_activation set activated_at = now() - interval '8 days'")
    ((subject, severity, finding),) = doctor(well)
    assert (subject, severity) == ("shop", "info")
    assert finding.startswith("index item_vector_1_hnsw has not been used since ")
    well.execute("set enable_seqscan = off; set enable_sort = off")
    well.execute("select * from dynrec.similar_items('shop', '1', k => 3)")
    well.execute("select pg_stat_force_next_flush()")
    assert doctor(well) == []


def test_pgvector_is_older_than_that_of_the_server(well: Shop) -> None:
    well.execute("update pg_extension set extversion = '0.8.0' where extname = 'vector'")
    ((subject, severity, finding),) = doctor(well)
    assert (subject, severity) == ("server", "info")
    assert finding.startswith("pgvector is of version 0.8.0 here, and the server has ")


@contextmanager
def configured(shop: Shop, name: str, value: str) -> Iterator[None]:
    """The server with a setting that needs no restart."""
    change = sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value))
    shop.connection.execute(change)
    shop.execute("select pg_reload_conf()")
    _await(shop, name, value)
    try:
        yield
    finally:
        shop.connection.execute(sql.SQL("alter system reset {}").format(sql.Identifier(name)))
        shop.execute("select pg_reload_conf()")


def _await(shop: Shop, name: str, value: str) -> None:
    for _ in range(1000):
        if shop.value("select current_setting(%s)", [name]) == value:
            return
        shop.execute("select pg_sleep(0.01)")
    raise AssertionError(f"{name} did not become {value}")


@pytest.mark.parametrize(
    ("setting", "severity"),
    [("fsync", "error"), ("full_page_writes", "error"), ("autovacuum", "warning"), ("track_counts", "warning")],
)
def test_a_setting_that_loses_data_or_clogs_the_queue(well: Shop, setting: str, severity: str) -> None:
    with configured(well, setting, "off"):
        well.execute("set dynrec.accepted_settings = ''")
        found = [
            (subject, level) for subject, level, finding in doctor(well) if setting in finding or level == "warning"
        ]
        assert found == [("server", severity)]
        accepted = "autovacuum, fsync,full_page_writes"
        well.execute("select set_config('dynrec.accepted_settings', %s, false)", [accepted])
        assert doctor(well) == []


def test_a_small_cache_and_connections_that_run_out(open_folder: Path, postgres_package: str) -> None:
    """Settings that need a restart, on a server of their own."""
    settings = {"shared_buffers": "16MB", "max_connections": "10", "superuser_reserved_connections": "0"}
    with EmbeddedPostgres(open_folder / "small", package=postgres_package, settings=settings) as server:
        migrate.upgrade(server.url)
        with database.connect(server.url) as connection:
            findings = "select finding from dynrec.doctor() where subject = 'server' order by 1"
            assert connection.execute(findings).fetchall() == [
                ("shared_buffers is 16MB: the vector index does not fit",)
            ]
            others = [database.connect(server.url) for _ in range(8)]
            assert connection.execute(findings).fetchall()[0] == (
                "more than four fifths of max_connections (10) are in use",
            )
            for other in others:
                other.close()


def test_a_slot_that_holds_back_wal(well: Shop) -> None:
    well.execute("select pg_create_physical_replication_slot('forgotten', true)")
    try:
        with configured(well, "max_wal_size", "32MB"):
            assert doctor(well) == []
            for _ in range(4):  # of 16 MB each
                well.execute("update shop.products set price = price + 1 where id = 1")
                well.execute("select pg_switch_wal()")
            well.drain()
            ((subject, severity, finding),) = doctor(well)
            assert (subject, severity) == ("server", "warning")
            assert finding.startswith("slot forgotten holds back ")
            assert finding.endswith(" of WAL, and nobody reads it")
    finally:
        well.execute("select pg_drop_replication_slot('forgotten')")
    assert doctor(well) == []


def test_a_slot_that_is_lost(well: Shop) -> None:
    well.execute("select pg_create_physical_replication_slot('lost', true)")
    try:
        with configured(well, "max_slot_wal_keep_size", "1MB"):
            for _ in range(3):
                well.execute("update shop.products set price = price + 1 where id = 1")
                well.execute("select pg_switch_wal()")
            well.execute("checkpoint")
            well.drain()
            assert doctor(well) == [("server", "error", "slot lost is lost: what its reader has not read is gone")]
    finally:
        well.execute("select pg_drop_replication_slot('lost')")
