"""Writers, unreliable workers and readers on one database at once, all random from one seed."""

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import DeadlockDetected, NoDataFound, SerializationFailure, UniqueViolation

from dynrec_store import queue
from dynrec_store.exceptions import BusyError
from tests.property import labour, oracle, shop
from tests.property.labour import UnreliableWorker
from tests.property.operate import Operator
from tests.property.shop import Action, Connection, Writer

# What an application may run into on its own rows; everything else is a fault of ours.
CONFLICTS = (DeadlockDetected, SerializationFailure, UniqueViolation)
LEVELS = [IsolationLevel.READ_COMMITTED] * 3 + [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


@dataclass
class Turmoil:
    """What went on, by name, and what went wrong."""

    url: str
    seed: int
    only: Sequence[Action] = ()  # what writers do; nothing here: everything
    done: Counter[str] = field(default_factory=Counter)
    committed: int = 0  # statements of writers whose commit was answered
    errors: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float, *, writers: int = 3, workers: int = 3, readers: int = 1, operators: int = 0) -> None:
        """Let everybody loose for a while."""
        with self.going_on(writers=writers, workers=workers, readers=readers, operators=operators):
            self.stopping.wait(seconds)

    @contextmanager
    def going_on(self, *, writers: int = 0, workers: int = 0, readers: int = 0, operators: int = 0) -> Iterator[None]:
        """Let everybody loose for the length of the block."""
        threads = [
            threading.Thread(target=self._keep_on, args=[role, f"{role.__name__} {number}"])
            for role, many in (
                (self._write, writers),
                (self._work, workers),
                (self._read, readers),
                (self._operate, operators),
            )
            for number in range(many)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()

    def settle(self) -> list[str]:
        """Finish all work; returns what is wrong then."""
        with queue.connect(self.url, application_name="settle") as worker:
            labour.drain(worker)
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [*self.errors, *oracle.differences(connection)]

    def _keep_on(self, role: Callable[[random.Random, str], None], name: str) -> None:
        try:
            role(random.Random(f"{self.seed} {name}"), name)
        except Exception:  # noqa: BLE001  a thread's error is the test's failure
            self.errors.append(f"{name}: {traceback.format_exc()}")
            self.stopping.set()

    def _write(self, dice: random.Random, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True, application_name=name) as connection:
            while not self.stopping.is_set():
                try:
                    self._transaction(connection, dice)
                except CONFLICTS as conflict:
                    self.done[type(conflict).__name__] += 1
                time.sleep(dice.choice([0, 0, 0.002, 0.01]))

    def _transaction(self, connection: Connection, dice: random.Random) -> None:
        """Up to four statements, of which some or all may be taken back."""
        writer = Writer(connection, dice, self.only)
        connection.isolation_level = dice.choice(LEVELS)
        taken_back, kept = dice.random() < 0.1, 0
        with connection.transaction(force_rollback=taken_back):
            for _ in range(dice.randint(1, 4)):
                undone = dice.random() < 0.1
                with connection.transaction(force_rollback=undone):
                    self.done[writer.act()] += 1
                kept += not undone
                time.sleep(dice.choice([0, 0, 0.001, 0.01]))
        self.done["rollback"] += taken_back
        self.committed += 0 if taken_back else kept

    def _work(self, dice: random.Random, name: str) -> None:
        with queue.connect(self.url, application_name=name) as connection:
            worker = UnreliableWorker(connection, dice)
            while not self.stopping.is_set():
                try:
                    self.done[worker.act()] += 1
                except BusyError as busy:
                    # two writers that truncate two tables crosswise can drag a reader of these into their deadlock
                    if "AccessExclusiveLock" not in str(busy):
                        raise
                    self.done["BusyError"] += 1

    def _operate(self, dice: random.Random, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True, application_name=name) as connection:
            operator = Operator(self.url, connection, dice)
            while not self.stopping.is_set():
                self.done[operator.act()] += 1
                time.sleep(dice.choice([0, 0.01, 0.1]))
            operator.restore()

    def _read(self, dice: random.Random, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True, application_name=name) as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            while not self.stopping.is_set():
                try:
                    with connection.transaction():
                        self._read_once(connection, dice)
                    self.done["read"] += 1
                except DeadlockDetected:  # with a truncate of both tables in the other order
                    self.done["DeadlockDetected"] += 1

    def _read_once(self, connection: Connection, dice: random.Random) -> None:
        """An answer holds k rows of the source, each once."""
        user, item, k = dice.choice(shop.USERS), str(dice.choice(shop.ITEMS)), dice.randint(1, 15)
        present = {key for (key,) in connection.execute("select id::text from item")}
        questions: list[tuple[LiteralString, list[object], set[str] | None]] = [
            ("select item_id from dynrec.recommend(%s, %s, %s, exclude_seen => false)", [user, k], set()),
            ("select item_id from dynrec.trending(%s, %s)", [k], set()),
            ("select item_id from dynrec.similar_items(%s, %s, %s)", [item, k], {item}),
            ("select item_id from dynrec.search(%s, %s, k => %s)", ["red shoe", k], None),
        ]
        question, arguments, excluded = dice.choice(questions)
        try:
            with connection.transaction():
                answer = [key for (key,) in connection.execute(question, [shop.NAME, *arguments])]
        except NoDataFound:
            assert item not in present
            return
        assert len(set(answer)) == len(answer), answer
        assert set(answer) <= present, (question, arguments, answer, present)
        if excluded is not None:
            assert len(answer) == min(k, len(present - excluded)), (question, arguments, answer, present)
