"""The disk is full: writers are told, nothing is wrong afterwards, and what could not be built is built."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dynrec_store import queue
from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.conftest import DURABLE, declared_shop
from tests.faults.disk import SmallDisk
from tests.faults.ledger import Ledger
from tests.faults.load import Load, settled, until, wait_for
from tests.faults.nursery import Nursery

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SETTINGS = DURABLE | {"max_wal_size": "64MB", "min_wal_size": "32MB"}
MEGABYTES = 300
FULL = "No space left on device"


@pytest.fixture
def disk(disk_folder: Path) -> Iterator[SmallDisk]:
    with SmallDisk(disk_folder / "disk", MEGABYTES) as small:
        yield small
    small.folder.rmdir()


@pytest.fixture
def server(
    disk_folder: Path, postgres_package: str, disk: SmallDisk, request: pytest.FixtureRequest
) -> Iterator[EmbeddedPostgres]:
    """A server of which some folders are on the small disk."""
    server = EmbeddedPostgres(disk_folder / request.node.name, package=postgres_package, settings=SETTINGS)
    server.start()
    server.stop()
    for folder in getattr(request, "param", ["base"]):
        disk.take_in(server.pgdata / folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("server", [["base"], ["base", "pg_wal"]], indirect=True, ids=["tables", "tables and log"])
def test_the_disk_is_full_for_a_while(
    server: EmbeddedPostgres, disk: SmallDisk, tmp_path: Path, seed: int, ledger: Ledger, rounds: int
) -> None:
    dice, load = random.Random(seed), Load(declared_shop(server, "disk"), seed, ledger=ledger)
    with Nursery(load.url, tmp_path, None) as nursery:
        for role in nursery.roles:
            nursery.start(role)
        with load.going_on(writers=2, readers=1):
            for _ in range(2 * rounds):
                time.sleep(dice.uniform(0.5, 1.5))
                with load.outage():
                    disk.fill()
                    ledger.inflict("disk full")
                    overflow(load.url)
                    time.sleep(dice.uniform(1, 3))
                    disk.clear()
                    server.start()  # without space for its log it ends
        assert load.differences() == []


def overflow(url: str) -> None:
    """Write more than fits."""
    with pytest.raises(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table large as select g, repeat('x', 1000) from generate_series(1, 100000) g")


def test_an_index_that_found_no_space_is_built_later(
    server: EmbeddedPostgres, disk: SmallDisk, tmp_path: Path, ledger: Ledger
) -> None:
    url = declared_shop(server, "indexed")
    with (
        Nursery(url, tmp_path, None) as nursery,
        queue.connect(url, application_name="test") as lock,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        assert queue.lock_indexes(lock)
        nursery.start("both")
        connection.execute("insert into item (id, title) select g, 'item ' || g from generate_series(1, 4000) g")
        ledger.committed += 2
        assert settled(connection) == []
        connection.execute("checkpoint")
        disk.fill(but=100_000)
        ledger.inflict("disk full")
        queue.unlock_indexes(lock)
        connection.execute("update item set price = 1 where id = 1")
        wait_for(lambda: FULL in nursery.log.read_text())
        disk.clear()
        until(connection, BUILT)
        assert settled(connection) == []


BUILT = """
    select count(*) = 2 from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relname in ('item_vector_1_hnsw', 'item_vector_2_hnsw') and i.indisvalid
"""
