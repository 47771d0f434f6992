"""Writers and readers that go on through outages of the database, and only through these."""

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

import psycopg

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
        self.stopping.set()

    def differences(self) -> list[str]:
        """What is wrong when the processes had time to finish."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [*self.errors, *settled(connection)]


def settled(connection: Connection) -> list[str]:
    """Wait until the processes have nothing left to do; returns what is not as computed from scratch."""
    until(connection, _LEFT)
    return list(oracle.differences(connection))


def until(connection: Connection, question: LiteralString) -> None:
    """Wait until a question is answered with true."""
    patience = time.monotonic() + PATIENCE
    while connection.execute(question).fetchone() != (True,):
        assert time.monotonic() < patience, question
        time.sleep(0.002)
