"""The stream: reads the replication slot and appends to the queue, for recommenders that have no triggers.

Any number may run: one reads, the others wait for its end. What it has read is noted in the transaction that queues
it, so that nothing is lost and nothing counts twice, whenever it is killed.
"""

import signal
import threading
import time
from contextlib import closing
from types import FrameType

import structlog

from dynrec_store import database, queue, stream
from dynrec_store.exceptions import BusyError, ConnectionFailedError, DatabaseError
from dynrec_store.logs import configure_logging
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.context import process_name
from workers.identity import identity

MOST = 50_000  # messages in a transaction, or as many as the application's has; each look reads some WAL again
TEND_SECONDS = 1.0  # between looks at what recommenders ask for, and at the lag
BEAT_SECONDS = 5.0
AGAIN_SECONDS = 1.0  # after an error, and while another reads
INVISIBLE_SECONDS = 0.01  # until a commit that is in the log can be seen
LEAST_PAUSE = 0.02  # seconds between looks that found nothing; each decodes WAL
LOOK_SHARE = 2  # looks that find nothing take at most one part in so many of the time

log = structlog.get_logger(__name__)


class Stream:
    """One loop over one connection; `run` returns after `stop`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process = process_name("stream")
        self._stopping = threading.Event()
        self._beat_at = 0.0  # seconds of the monotonic clock

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping.set()

    def run(self) -> None:
        """Stream until `stop`, across restarts of the database."""
        while not self._stopping.is_set():
            try:
                with closing(database.connect(self._url, application_name=self._process)) as connection:
                    stream.prepare(connection)
                    self._serve(connection)
            except (ConnectionFailedError, BusyError) as error:
                log.warning("database_away", reason=str(error))
                self._stopping.wait(AGAIN_SECONDS)
            except DatabaseError as error:  # such as a slot that was dropped meanwhile: the next look makes another
                log.warning("stream_reconnects", reason=str(error))
                self._stopping.wait(AGAIN_SECONDS)

    def _serve(self, connection: Connection) -> None:
        while not self._stopping.is_set() and not stream.become_reader(connection):
            self._beat(connection)
            self._stopping.wait(AGAIN_SECONDS)
        while not self._stopping.is_set():
            self._beat(connection)
            state = self._tend(connection)
            until = time.monotonic() + TEND_SECONDS
            while state in ("ready", "waiting") and not self._stopping.is_set() and time.monotonic() < until:
                self._read(connection)
            if state == "idle":
                self._stopping.wait(TEND_SECONDS)
        self._end(connection)

    def _tend(self, connection: Connection) -> str:
        state = stream.tend(connection)
        if state == "no slot":
            stream.make_slot(connection)
            log.info("stream_slot_made")
        if state in ("no slot", "new slot"):
            stream.say_it_stands(connection)
        return state

    def _read(self, connection: Connection) -> None:
        started = time.monotonic()
        queued = stream.advance(connection, MOST)
        if queued is None:
            self._stopping.wait(INVISIBLE_SECONDS)
        elif not queued:
            self._stopping.wait(max(LEAST_PAUSE, (time.monotonic() - started) * (LOOK_SHARE - 1)))

    def _beat(self, connection: Connection) -> None:
        if time.monotonic() - self._beat_at >= BEAT_SECONDS:
            queue.beat(connection, self._process, "stream", {**identity(), "lag_bytes": stream.lag(connection)})
            self._beat_at = time.monotonic()

    def _end(self, connection: Connection) -> None:
        """Say that this process ends, so that nobody takes it for dead."""
        queue.beat(connection, self._process, "stream", {**identity(), "ended": True})


def run_stream(settings: Settings) -> None:
    """Stream until SIGTERM or ctrl-c."""
    configure_logging(settings)
    with target_database(settings) as url:
        streaming = Stream(url)

        def stop(_number: int, _frame: FrameType | None) -> None:
            streaming.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        streaming.run()
