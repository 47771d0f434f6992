"""From the first release to this version while an application reads and writes."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
import pytest
from psycopg.errors import DeadlockDetected, UndefinedFunction

from dynrec_store import FeatureStore, migrate
from dynrec_store.exceptions import BusyError
from tests.migration import released
from tests.property import shop
from tests.property.shop import Connection
from tests.property.turmoil import Turmoil

# What a user built; one for the recommender that nobody writes to, whose answers do not change.
VIEWS: list[LiteralString] = [
    "select count(*) >= 0 from app.alike",
    "select count(*) = 5 from app.trends",
    "select count(*) = 2 from app.state",
]

MIGRATION_WAITS = """
    exists (select from pg_stat_activity
      where datname = current_database() and application_name = 'dynrec migrate' and wait_event_type = 'Lock')
"""

MIGRATION_HOLDS = """
    exists (select from pg_locks where relation = 'dynrec_data.recommender'::regclass and mode = 'AccessExclusiveLock' and granted)
"""


@dataclass
class Application(Turmoil):
    """Writers, readers in SQL and readers in Python; what happened to the readers is counted by name."""

    asked: Counter[str] = field(default_factory=Counter)
    cut_off: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let everybody loose; at the end of the block all have gone on for a while."""
        ask = threading.Thread(target=self._keep_on, args=[self._ask, "python"])
        with self.going_on(writers=3, readers=3):
            ask.start()
            self.go_on()
            yield
            self.go_on()
        ask.join()

    def go_on(self) -> None:
        """Wait until everybody has done some more."""
        goal = {name: self.asked[name] + 20 for name in ("_read 0", "_read 1", "_read 2", "python")}
        written = self.done["insert_events"] + 20
        until = time.monotonic() + 60
        while any(self.asked[name] < least for name, least in goal.items()) or self.done["insert_events"] < written:
            assert not self.stopping.wait(0.01), self.errors
            assert time.monotonic() < until, (goal, self.asked, self.done)

    def _read(self, dice: random.Random, name: str) -> None:
        """As an application that makes a call again if the migration cut it off."""
        threading.current_thread().name = name
        try:
            super()._read(dice, name)
        except UndefinedFunction:
            self.cut_off[name] += 1
            super()._read(dice, name)

    def _read_once(self, connection: Connection, dice: random.Random) -> None:
        self.asked[threading.current_thread().name] += 1
        try:
            for look in dice.choice([[True], [False], [False], [False], [True, False], [False, True]]):
                if look:
                    view = dice.choice(VIEWS)
                    assert connection.execute(view).fetchone() == (True,), view
                else:
                    super()._read_once(connection, dice)
        except DeadlockDetected as deadlock:  # nobody but the migration locks readers out
            self.errors.append(f"{threading.current_thread().name}: {deadlock}")
            raise

    def _ask(self, dice: random.Random, name: str) -> None:
        with FeatureStore.connect(self.url) as store:
            while not self.stopping.is_set():
                assert len(store.recommend("store", user_id=f"c{dice.randrange(5)}", k=5)) == 5
                assert store.similar_items("store", item=dice.randint(1, 20), k=3)
                self.asked[name] += 1


def wait_until(url: str, condition: str) -> None:
    """Look until it is so."""
    until = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(f"select {condition}".encode()).fetchone() != (True,):
            assert time.monotonic() < until, condition
            time.sleep(0.005)


@pytest.fixture
def seed() -> int:
    """A new one each time; a failure shows it."""
    chosen = random.randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201
    return chosen


@pytest.fixture
def application(release_url: str, seed: int) -> Application:
    """An application on the database of the first release, which nothing keeps from being migrated."""
    released.clear_the_way(release_url)
    # truncate would wait for the long transaction, and everybody for the truncate
    gentle = [action for action in shop.ACTIONS if not action.__name__.startswith("truncate")]
    return Application(release_url, seed, only=gentle)


def test_nobody_is_disturbed_and_nothing_is_lost(application: Application) -> None:
    with application.in_use():
        _, after = migrate.upgrade(application.url)
    assert after.is_current
    assert application.errors == []
    assert released.work_off(application.url) == []


def test_an_upgrade_gives_way_to_a_long_transaction(
    application: Application, dump_schema: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(migrate, "ATTEMPTS", 2)
    before = dump_schema(application.url)
    with application.in_use(), psycopg.connect(application.url) as reader:
        reader.execute("select from dynrec.recommend(%s, 'u1', 3)", [shop.NAME])
        with pytest.raises(BusyError, match="Try again when no long transaction runs"):
            migrate.upgrade(application.url)
        application.go_on()  # nobody waits behind it any more
        assert dump_schema(application.url) == before
        reader.rollback()
        monkeypatch.undo()
        _, after = migrate.upgrade(application.url)
        assert after.is_current
    assert application.errors == []
    assert released.work_off(application.url) == []


def test_an_upgrade_gets_through_when_a_long_transaction_ends(
    release_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    released.clear_the_way(release_url)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(release_url) as reader:
        reader.execute("select from dynrec.recommend(%s, 'u1', 3)", [shop.NAME])
        migrating = pool.submit(migrate.upgrade, release_url)
        wait_until(release_url, MIGRATION_WAITS)
        wait_until(release_url, f"not {MIGRATION_WAITS}")  # it has given up, for the time being
        reader.rollback()
        _, after = migrating.result()
    assert after.is_current


def test_a_reader_of_a_view_waits_and_gets_its_answer(release_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # of a deadlock the reader would be the victim, when the migration has had the time to come to the views
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "60s")
    patient = f"{release_url}?options=-c%20deadlock_timeout%3D60s"
    released.clear_the_way(release_url)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(release_url) as reader:
        reader.execute("set deadlock_timeout = '5s'")
        migrating = pool.submit(migrate.upgrade, patient)
        wait_until(release_url, MIGRATION_HOLDS)
        assert len(reader.execute("select from dynrec.status").fetchall()) == 2
        reader.rollback()
        _, after = migrating.result()
    assert after.is_current
