"""The dispatcher: looks at the queue and sends Celery messages as hints that there is work.

It polls while there is work, and sleeps until a writer notifies it when there is none. Any number of dispatchers
may run: a hint too many is harmless. It holds nothing that a restart of it, of the database or of the broker
could lose.
"""

import threading
import time

import structlog
import tenacity
from celery import Celery

from dynrec_store import database, queue
from dynrec_store.exceptions import BusyError, ConnectionFailedError, DatabaseError
from dynrec_store.logs import configure_logging
from dynrec_store.queue import Connection, Pending
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.celery_app import check_broker, make_app
from workers.chores import Chores
from workers.context import process_name
from workers.hints import Hints
from workers.sender import Sender
from workers.service import run_until_signal
from workers.tracing import configure_tracing

LINGER = 0.1  # seconds of polling after the last change before trying to sleep
NAP = 0.1  # seconds of waiting for a notification between looks at whether to stop
LONGEST_POLL = (
    0.1  # seconds between looks that find nothing new; while a batch is encoded each takes time from the model
)
PATIENCE = 5  # a look comes after one part in so many of the time for which nothing was new
RECONNECT_PAUSE = 1.0  # seconds before a new connection after an error that may come again
LOOK_SHARE = 10  # looks take at most one part in so many of the time

log = structlog.get_logger(__name__)


class Dispatcher:
    """One loop over one connection; `run` returns after `stop`."""

    def __init__(self, settings: Settings, url: str, app: Celery) -> None:
        self._settings = settings
        self._url = url
        self._process = process_name("dispatcher")
        self._stopping = threading.Event()
        self._sender = Sender(app, Hints(most=settings.max_parallel_hints))
        self._chores = Chores(self._sender, self._process, settings.sweep_seconds)
        self._pending: list[Pending] = []
        self._changed_at = 0.0  # when a look last found something new, seconds of the monotonic clock
        self._look_seconds = 0.0

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping.set()

    def run(self) -> None:
        """Dispatch until `stop`, across restarts of the database and of the broker."""
        while not self._stopping.is_set():
            try:
                with self._connected() as connection:
                    log.info("dispatcher_ready", process=self._process)
                    self._serve(connection)
            except (ConnectionFailedError, BusyError) as error:
                log.warning("database_away", reason=str(error))
            except DatabaseError as error:  # such as a plan that an upgrade made void: a new connection has none
                log.warning("dispatcher_reconnects", reason=str(error))
                self._stopping.wait(RECONNECT_PAUSE)

    def _connected(self) -> Connection:
        """Connect, however long the database is away."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ConnectionFailedError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_when_event_set(self._stopping),
            sleep=tenacity.sleep_using_event(self._stopping),
            reraise=True,
        )
        return attempts(database.connect, self._url, application_name=self._process)

    def _serve(self, connection: Connection) -> None:
        queue.listen(connection)
        may_sleep = queue.may_sleep(connection)
        while not self._stopping.is_set():
            self._chores.do_due(connection)
            self._look(connection)
            quiet = time.monotonic() - self._changed_at
            if may_sleep and quiet > LINGER and not self._pending and self._sleep(connection):
                continue
            self._stopping.wait(self._pause(quiet))
        self._chores.end(connection)

    def _look(self, connection: Connection) -> None:
        """See what waits and send hints for it."""
        started = time.monotonic()
        pending = queue.pending_work(connection)
        now = time.monotonic()
        self._look_seconds = now - started
        if pending != self._pending:
            self._pending, self._changed_at = pending, now
        self._sender.send_for(pending, now)
        self._chores.note(pending, now)

    def _sleep(self, connection: Connection) -> bool:
        """Wait until a writer notifies or a chore is due; False if a writer was in flight, or another sleeps."""
        if not queue.fall_asleep(connection):
            return False
        self._look(connection)  # a change may have come between the last look and the lock
        until = min(time.monotonic() + self._settings.sleep_seconds, self._chores.next_due)
        while not self._pending and not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            if said := queue.wait_for_notifications(connection, min(left, NAP)):
                self._woken(said)
                break
        queue.wake_up(connection)
        return True

    def _woken(self, said: list[str]) -> None:
        """Send hints for what the writers said, and leave the worker alone for a moment before looking."""
        now = self._changed_at = time.monotonic()
        works = (what.partition(" ") for what in dict.fromkeys(said))
        pending = [Pending(recommender, work, 1, 0) for work, _, recommender in works if work in ("item", "user")]
        self._sender.send_for(pending, now)
        self._chores.note(pending, now)
        self._stopping.wait(self._settings.poll_seconds)

    def _pause(self, quiet: float) -> float:
        """Seconds between looks: short while things change, longer when a look costs much or finds nothing new."""
        patient = min(
            max(self._settings.poll_seconds, quiet / PATIENCE), max(LONGEST_POLL, self._settings.poll_seconds)
        )
        # one look that met a busy machine must not put off the next for long
        return max(patient, min(LOOK_SHARE * self._look_seconds, self._settings.sleep_seconds))


def run_dispatcher(settings: Settings) -> None:
    """Dispatch until SIGTERM or ctrl-c; raises ConfigurationError for a broker that reaches nobody else."""
    check_broker(settings)
    configure_logging(settings)
    configure_tracing(settings, "dynrec-dispatcher")
    with target_database(settings) as url:
        run_until_signal(Dispatcher(settings, url, make_app(settings)))
