"""Clocks that are wrong, and that are set: only the database's counts, and history goes on through its jumps."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.broker import Redis
from tests.faults.clock import HOUR, Clock, behind
from tests.faults.conftest import DURABLE, declared_shop
from tests.faults.ledger import Ledger
from tests.faults.load import Load, until
from tests.faults.nursery import Nursery
from tests.faults.server import kill_server
from tests.property import shop
from tests.property.shop import Writer

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_worker_has_a_wrong_clock(database_url: str, broker: Redis, load: Load, tmp_path: Path, rounds: int) -> None:
    dice, clock = random.Random(load.seed), Clock(tmp_path)
    with (
        Nursery(database_url, tmp_path, broker.url) as punctual,
        Nursery(database_url, tmp_path, broker.url, clock.environment) as wrong,
    ):
        clock.set(5 * HOUR)
        punctual.start("dispatcher")
        wrong.start("worker")
        with load.going_on(writers=2, readers=1):
            for hours in [5, -5, 0] * rounds:
                clock.set(hours * HOUR)
                load.ledger.inflict("clock of a worker set")
                time.sleep(dice.uniform(1, 2))
        assert load.differences() == []
        assert punctual.complaints() == ""


def insert_late(writer: Writer) -> None:
    """Interactions that are dated before every time that a clock is set to."""
    writer.connection.execute(
        "insert into event (user_id, item_id, kind, value, occurred_at)"
        " values (%s, %s, %s, 1, now() - make_interval(days => %s))",
        [writer.user(), writer.item(), writer.random.choice(shop.KINDS), writer.random.randint(2, 60)],
    )


OF_ITEMS = [shop.insert_item, shop.update_title, shop.update_price, shop.delete_item, shop.upsert_items]
ACTIONS = [*OF_ITEMS, insert_late, shop.delete_event, shop.forget_user]


def test_the_database_has_its_clock_set(
    disk_folder: Path,
    postgres_package: str,
    tmp_path: Path,
    seed: int,
    ledger: Ledger,
    rounds: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = random.Random(seed)
    server = EmbeddedPostgres(disk_folder / "timeless", package=postgres_package, settings=DURABLE)

    def start(hours: int) -> None:
        with monkeypatch.context() as patch:
            for name, value in (behind(hours * HOUR) if hours else {}).items():
                patch.setenv(name, value)
            server.start()

    with stopping(server):
        start(3)
        load = Load(declared_shop(server, "clock"), seed, ACTIONS, ledger=ledger)
        with Nursery(load.url, tmp_path, None) as nursery:
            processes = [nursery.start(role) for role in nursery.roles]
            with load.going_on(writers=2, readers=1):
                for hours in [0, 3] * rounds:
                    time.sleep(dice.uniform(1, 2))
                    with psycopg.connect(load.url, autocommit=True) as connection:
                        until(connection, "select exists (select from dynrec_data.lease)")
                    nursery.kill(processes.pop(0))
                    ledger.inflict(f"clock of the database set {'back' if hours else 'forward'}")
                    with load.outage():
                        kill_server(server)
                        start(hours)
                    processes.append(nursery.start("both"))
            assert load.differences() == []
            assert nursery.complaints() == ""


@contextmanager
def stopping(server: EmbeddedPostgres) -> Iterator[None]:
    try:
        yield
    finally:
        server.stop()
