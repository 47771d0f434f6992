"""The server is lost for good and its standby takes over: no change that was committed is lost, and reads go on."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.conftest import DURABLE, declared_shop
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.nursery import Nursery
from tests.faults.server import kill_server
from tests.faults.standby import either, follow

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_the_standby_takes_over(
    disk_folder: Path, postgres_package: str, tmp_path: Path, seed: int, ledger: Ledger, rounds: int
) -> None:
    for turn in range(rounds):
        folder = disk_folder / f"pair-{turn}"
        folder.mkdir(mode=0o755)
        with ExitStack() as stack:
            primary = EmbeddedPostgres(folder / "primary", package=postgres_package, settings=DURABLE)
            stack.callback(primary.stop)
            primary.start()
            url = declared_shop(primary, "shop")
            standby = follow(primary, folder / "standby", postgres_package)
            stack.callback(standby.stop)
            fail_over(primary, standby, Load(either(url, standby.url_of("shop")), seed, ledger=ledger), tmp_path)


def fail_over(primary: EmbeddedPostgres, standby: EmbeddedPostgres, load: Load, folder: Path) -> None:
    """Lose the primary while everybody is at work."""
    reading = Load(standby.url_of("shop"), load.seed, ledger=load.ledger)
    acknowledged: list[int] = []
    with Nursery(load.url, folder, None) as nursery, psycopg.connect(standby.url, autocommit=True) as promoter:
        for role in nursery.roles:
            nursery.start(role)
        with load.going_on(writers=2, readers=1), reading.going_on(readers=1), counting(load, acknowledged):
            time.sleep(3)
            with load.outage():
                kill_server(primary)
                load.ledger.inflict("primary lost, standby promoted")
                assert promoter.execute("select pg_promote()").fetchone() == (True,)
            time.sleep(2)
        assert load.differences() == []
        assert reading.errors == []
        load.ledger.answered += reading.done["read"]
        assert nursery.complaints() == ""
    with psycopg.connect(load.url) as connection:
        there = {n for (n,) in connection.execute("select n from counted")}
    assert set(acknowledged) <= there


@contextmanager
def counting(load: Load, acknowledged: list[int]) -> Iterator[None]:
    """Somebody notes numbers for the length of the block; those whose commit was answered are acknowledged."""
    ended = threading.Event()

    def count() -> None:
        number = 0
        while not ended.is_set():
            with suppress(psycopg.OperationalError), psycopg.connect(load.url, autocommit=True) as connection:
                while not ended.is_set():
                    number += 1
                    connection.execute("insert into counted values (%s)", [number])
                    acknowledged.append(number)

    with psycopg.connect(load.url, autocommit=True) as connection:
        connection.execute("create table counted (n int primary key)")
    thread = threading.Thread(target=count)
    thread.start()
    yield
    ended.set()
    thread.join()
    load.committed += len(acknowledged)
