"""Writers and readers that go on through outages of the database, and only through these."""

import math
import random
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg

from tests.faults.ledger import Ledger
from tests.property import oracle
from tests.property.shop import Connection
from tests.property.turmoil import Turmoil

PATIENCE = 60.0  # seconds until something that should happen is missed

_LEFT: LiteralString = """
    select (select count(*) from dynrec_data.change) + (select count(*) from dynrec_data.lease)
      + (select count(*) from dynrec_data.task) + (select count(*) from dynrec_data.retry) = 0
"""


@dataclass
class Load(Turmoil):
    """The turmoil of writers and readers; the workers are other processes."""

    up_since: float = 0.0  # seconds of the monotonic clock; infinity while the database is down
    ledger: Ledger = field(default_factory=Ledger)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The database is down for the length of the block: errors of connections are none."""
        self.up_since = math.inf
        yield
        self.up_since = time.monotonic()

    def _keep_on(self, role: Callable[[random.Random, str], None], name: str) -> None:
        while not self.stopping.is_set():
            started = time.monotonic()
            try:
                role(random.Random(f"{self.seed} {name} {started}"), name)
            except psycopg.OperationalError:
                if started >= self.up_since:
                    self._give_up(name)
                time.sleep(0.1)
            except Exception:  # noqa: BLE001  a thread's error is the test's failure
                self._give_up(name)

    def _give_up(self, name: str) -> None:
        self.errors.append(f"{name}: {traceback.format_exc()}")
        print(self.errors[-1])  # noqa: T201  should the test end before it looks
        self.stopping.set()

    def differences(self) -> list[str]:
        """What is wrong when the processes had time to finish."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            wrong = [*self.errors, *settled(connection)]
        self.ledger.committed += self.committed
        self.ledger.answered += self.done["read"]
        self.ledger.lost += len(wrong)
        return wrong


def settled(connection: Connection) -> list[str]:
    """Wait until the processes have nothing left to do; returns what is not as computed from scratch."""
    try:
        until(connection, _LEFT)
    except AssertionError:  # what is left is among the differences
        return [f"not done after {PATIENCE} s", *oracle.differences(connection)]
    return list(oracle.differences(connection))


def until(connection: Connection, question: LiteralString) -> None:
    """Wait until a question is answered with true."""
    wait_for(lambda: connection.execute(question).fetchone() == (True,), question)


def wait_for(condition: Callable[[], bool], what: str = "") -> None:
    """Wait until a condition holds."""
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < patience, f"waited in vain for {PATIENCE} s: {what}"
        time.sleep(0.002)
