"""Connections of a process with several threads, and calls that survive a restart of the database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import structlog
import tenacity

from dynrec_store import queue
from dynrec_store.exceptions import BusyError, ConnectionFailedError
from dynrec_store.queue import Connection

P = ParamSpec("P")
T = TypeVar("T")

AGAIN = (ConnectionFailedError, BusyError)  # errors after which a call can succeed if it is made again
PATIENCE = 60.0  # seconds that a call waits for the database to come back

log = structlog.get_logger(__name__)


class Connections:
    """As many connections as are in use at once, kept for the next use; safe to share between threads."""

    def __init__(self, url: str, *, application_name: str, stopping: threading.Event) -> None:
        self._url = url
        self._application_name = application_name
        self._stopping = stopping
        self._idle: list[Connection] = []

    def call(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of dynrec_store.queue, again while the database is away or busy.

        A call whose answer was lost may be made twice: each of them is safe to repeat, because a claim that
        nobody heard of expires and a publish without its lease does nothing.
        """
        try:
            return self._once(function, *args, **kwargs)
        except AGAIN as error:
            log.warning("database_call_again", reason=str(error))
            answer: T = self._attempts()(self._once, function, *args, **kwargs)
            return answer

    def _once(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._borrowed() as connection:
            return function(connection, *args, **kwargs)

    def close(self) -> None:
        """Close every connection that is not in use."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = queue.connect(self._url, application_name=self._application_name)
        try:
            yield connection
        except ConnectionFailedError:
            self.close()  # the others come from before the restart too
            raise
        finally:
            if connection.closed:
                connection.close()
            else:
                self._idle.append(connection)

    def _attempts(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(AGAIN),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
            stop=tenacity.stop_after_delay(PATIENCE) | tenacity.stop_when_event_set(self._stopping),
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
