"""The stream: reads the replication slot and appends to the queue, for recommenders that have no triggers.

Any number may run: one reads, the others wait for its end. What it has read is noted in the transaction that queues
it, so that nothing is lost and nothing counts twice, whenever it is killed.
"""

import time

import structlog

from dynrec_store import stream
from dynrec_store.exceptions import UnreadableSlotError
from dynrec_store.logs import configure_logging
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.service import Service, run_until_signal

MOST = 50_000  # messages in a transaction, or as many as the application's has; each look reads some WAL again
TEND_SECONDS = 1.0  # between looks at what recommenders ask for, and at the lag
INVISIBLE_SECONDS = 0.01  # until a commit that is in the log can be seen
LEAST_PAUSE = 0.02  # seconds between looks that found nothing; each decodes WAL
TRIES = 3  # looks in turn, each over a new connection, that find a slot unreadable before it is given up
LOOK_SHARE = 2  # looks that find nothing take at most one part in so many of the time

log = structlog.get_logger(__name__)


class Stream(Service):
    """One loop over one connection."""

    def __init__(self, url: str) -> None:
        super().__init__("stream", url)
        self._unreadable = 0  # looks in turn

    def _take_place(self, connection: Connection) -> bool:
        stream.prepare(connection)
        return stream.become_reader(connection)

    def _serve(self, connection: Connection) -> None:
        while not self._stopping.is_set():
            self._beat(connection)
            state = self._tend(connection)
            until = time.monotonic() + TEND_SECONDS
            while state in ("ready", "waiting") and not self._stopping.is_set() and time.monotonic() < until:
                self._read(connection)
            if state == "idle":
                self._stopping.wait(TEND_SECONDS)

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
        try:
            queued = stream.advance(connection, MOST)
        except UnreadableSlotError as error:
            self._unreadable += 1
            if self._unreadable >= TRIES:
                log.warning("stream_slot_given_up", reason=str(error))
                stream.give_up_slot(connection)
                self._unreadable = 0
            raise
        self._unreadable = 0
        if queued is None:
            self._stopping.wait(INVISIBLE_SECONDS)
        elif not queued:
            self._stopping.wait(max(LEAST_PAUSE, (time.monotonic() - started) * (LOOK_SHARE - 1)))

    def _details(self, connection: Connection) -> dict[str, object]:
        return {"lag_bytes": stream.lag(connection)}


def run_stream(settings: Settings) -> None:
    """Stream until SIGTERM or ctrl-c."""
    configure_logging(settings)
    with target_database(settings) as url:
        run_until_signal(Stream(url))
