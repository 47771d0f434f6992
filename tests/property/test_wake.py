"""The wake-up protocol: a dispatcher that fell asleep hears of every change, whoever commits when."""

import random
import threading
import time
from dataclasses import dataclass, field
from typing import cast

import psycopg
import pytest
from psycopg import IsolationLevel

from dynrec_store import queue
from tests.property import shop
from tests.property.shop import Connection, Writer

NEVER = 20.0  # seconds of sleep after which a notification is lost, not late
TRANSACTIONS = 100  # of each writer


@dataclass
class Sleepers:
    """Dispatchers that do nothing but watch the queue, and sleep for as long as nobody wakes them."""

    url: str
    seen: set[int] = field(default_factory=set)  # numbers of the changes that one of them knows of
    overslept: list[str] = field(default_factory=list)
    slept: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def watch(self, name: str) -> None:
        with queue.connect(self.url, application_name=name) as connection:
            queue.listen(connection)
            while not self.stopping.is_set():
                self._look(connection)
                if queue.fall_asleep(connection):
                    self._sleep(connection, name)
                time.sleep(0.005)

    def _look(self, connection: queue.Connection) -> set[int]:
        """What is new."""
        found = {cast("int", number) for (number,) in connection.execute("select id from dynrec_data.change")}
        new = found - self.seen
        self.seen |= found
        return new

    def _sleep(self, connection: queue.Connection, name: str) -> None:
        if not self._look(connection):
            self.slept += 1
            heard = queue.wait_for_notifications(connection, NEVER)
            if not heard and (missed := self._look(connection)):
                self.overslept.append(f"{name} slept through {missed}")
        queue.wake_up(connection)

    def wait_for(self, changes: list[int]) -> bool:
        """Whether the changes are seen in time."""
        patience = time.monotonic() + NEVER
        while not self.seen.issuperset(changes) and time.monotonic() < patience:
            time.sleep(0.0005)
        return self.seen.issuperset(changes)


def write(sleepers: Sleepers, seed: int) -> None:
    """Commit changes after pauses in which the dispatchers fall asleep, each when the last has been seen."""
    dice = random.Random(seed)
    with psycopg.connect(sleepers.url, autocommit=True) as connection:
        for _ in range(TRANSACTIONS):
            made = change(connection, dice)
            if not sleepers.wait_for(made):
                sleepers.overslept.append(f"nobody saw {made}, committed by writer {seed}")
            time.sleep(dice.choice([0, 0, 0.001, 0.01, 0.03]))


def change(connection: Connection, dice: random.Random) -> list[int]:
    """One transaction, perhaps with a part that is taken back first; returns the changes it made."""
    writer = Writer(connection, dice)
    connection.isolation_level = dice.choice([IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
    with connection.transaction():
        if dice.random() < 0.3:
            with connection.transaction(force_rollback=True):
                shop.insert_events(writer)
        time.sleep(dice.choice([0, 0, 0.002, 0.02]))
        dice.choice([shop.insert_events, shop.insert_events, shop.refresh])(writer)
        time.sleep(dice.choice([0, 0, 0.002, 0.02]))
        made = connection.execute("select id from dynrec_data.change where xmin = pg_current_xact_id()::xid").fetchall()
    return [number for (number,) in made]


@pytest.mark.slow
def test_a_sleeping_dispatcher_hears_of_every_change(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        shop.declare(connection)
        shop.upsert_items(Writer(connection, random.Random(0)))
    sleepers = Sleepers(database_url)
    watching = [
        threading.Thread(target=sleepers.watch, args=["sleeper"])
    ]  # a second one would poll while the first sleeps
    writing = [threading.Thread(target=write, args=[sleepers, seed]) for seed in range(3)]
    for thread in watching + writing:
        thread.start()
    for thread in writing:
        thread.join()
    sleepers.stopping.set()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("notify dynrec_wake")
    for thread in watching:
        thread.join()
    assert sleepers.overslept == []
    assert sleepers.slept > TRANSACTIONS / 4, "nothing was tested: nobody slept"
