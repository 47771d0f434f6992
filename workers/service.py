"""A process that works over one connection until it is told to stop, across restarts of the database."""

import signal
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing
from types import FrameType
from typing import Protocol

import structlog

from dynrec_store import database, queue
from dynrec_store.exceptions import BusyError, ConnectionFailedError, DatabaseError
from dynrec_store.queue import Connection
from workers.context import process_name
from workers.identity import identity

BEAT_SECONDS = 5.0
AGAIN_SECONDS = 1.0  # after an error, and while another has the place

log = structlog.get_logger(__name__)


class Stoppable(Protocol):
    """What runs until it is told to stop."""

    def run(self) -> None:
        """Return after `stop`."""

    def stop(self) -> None:
        """Let `run` return soon."""


class Service(ABC):
    """Of any number that run, one has the place and serves; the others wait for its end."""

    def __init__(self, role: str, url: str) -> None:
        self._role = role
        self._url = url
        self._process = process_name(role)
        self._stopping = threading.Event()
        self._beat_at = 0.0  # seconds of the monotonic clock

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping.is_set():
            try:
                with closing(database.connect(self._url, application_name=self._process)) as connection:
                    self._wait_for_place(connection)
                    self._serve(connection)
                    self._beat(connection, ended=True)
            except (ConnectionFailedError, BusyError) as error:
                log.warning("database_away", reason=str(error))
                self._stopping.wait(AGAIN_SECONDS)
            except DatabaseError as error:  # such as what was dropped meanwhile: a new look finds what there is
                log.warning(f"{self._role}_reconnects", reason=str(error))
                self._stopping.wait(AGAIN_SECONDS)

    @abstractmethod
    def _take_place(self, connection: Connection) -> bool:
        """Become the one who serves, until the end of the connection; False: another does."""

    @abstractmethod
    def _serve(self, connection: Connection) -> None:
        """Do the work until `_stopping`, and call `_beat` again and again."""

    @abstractmethod
    def _details(self, connection: Connection) -> dict[str, object]:
        """What a heartbeat says."""

    def _wait_for_place(self, connection: Connection) -> None:
        while not self._stopping.is_set() and not self._take_place(connection):
            self._beat(connection)
            self._stopping.wait(AGAIN_SECONDS)

    def _beat(self, connection: Connection, *, ended: bool = False) -> None:
        """Say that this process is alive, or ends, so that nobody takes it for dead."""
        if ended or time.monotonic() - self._beat_at >= BEAT_SECONDS:
            details = {**identity(), **self._details(connection), "ended": ended}
            queue.beat(connection, self._process, self._role, details)
            self._beat_at = time.monotonic()


def run_until_signal(service: Stoppable) -> None:
    """Run until SIGTERM or ctrl-c."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        service.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    service.run()
