"""The publisher: tells others, through Kafka, which vectors have been published.

Any number may run: one publishes, the others wait for its end. An event leaves the outbox after Kafka has acknowledged
it, so that nothing is lost whatever is killed; what was acknowledged and not noted yet is sent again.
"""

import time

import structlog

from dynrec_store import outbox
from dynrec_store.logs import configure_logging
from dynrec_store.outbox import Lane
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.kafka import Kafka
from workers.meters import Meters
from workers.service import AGAIN_SECONDS, Service, run_until_signal

MOST = 1000  # events in memory
PAUSE_SECONDS = 0.2  # between looks that found nothing

log = structlog.get_logger(__name__)


class Publisher(Service):
    """One loop over one connection and one producer."""

    def __init__(self, settings: Settings, url: str) -> None:
        super().__init__("publisher", url)
        self._topic = settings.kafka_topic
        self._kafka = Kafka(settings, self._stopping)
        self._meters = Meters()
        self._problems: dict[Lane, str] = {}  # why a lane waits
        self._again_at: dict[Lane, float] = {}  # when it is tried again, seconds of the monotonic clock

    def _take_place(self, connection: Connection) -> bool:
        return outbox.become_publisher(connection)

    def _serve(self, connection: Connection) -> None:
        while not self._stopping.is_set():
            self._beat(connection)
            waiting = outbox.lanes(connection)
            self._problems = {lane: problem for lane, problem in self._problems.items() if lane in waiting}
            if not sum(self._tell(connection, lane) for lane in waiting):
                self._stopping.wait(PAUSE_SECONDS)

    def _tell(self, connection: Connection, lane: Lane) -> int:
        """Send what has waited longest in a lane; how many events left the outbox."""
        if self._stopping.is_set() or time.monotonic() < self._again_at.get(lane, 0.0):
            return 0
        events = outbox.read(connection, lane, MOST)
        topic = self._topic.replace("{recommender}", lane.recommender).replace("{kind}", lane.kind)
        sent = self._kafka.send(topic, events)
        outbox.settle(connection, lane, [*((event, None) for event in sent.delivered), *sent.refused])
        self._meters.add("events_sent", len(sent.delivered), recommender=lane.recommender, kind=lane.kind)
        if sent.refused:  # no keys: those of users are personal
            log.error("events_refused", lane=str(lane), events=len(sent.refused), reason=sent.refused[0][1])
        self._note(lane, sent.problem)
        self._beat(connection)
        return len(sent.delivered) + len(sent.refused)

    def _note(self, lane: Lane, problem: str | None) -> None:
        """Say once that a lane waits, and that it goes on."""
        if problem is not None:
            self._again_at[lane] = time.monotonic() + AGAIN_SECONDS
            if self._problems.get(lane) != problem and not self._stopping.is_set():
                log.warning("publisher_waits", lane=str(lane), reason=problem)
            self._problems[lane] = problem
        elif self._problems.pop(lane, None) is not None:
            log.info("publisher_goes_on", lane=str(lane))

    def _details(self, _connection: Connection) -> dict[str, object]:
        problems = {str(lane): problem for lane, problem in self._problems.items()}
        return {"counters": self._meters.report(), "problems": problems}


def run_publisher(settings: Settings) -> None:
    """Publish until SIGTERM or ctrl-c."""
    configure_logging(settings)
    with target_database(settings) as url:
        run_until_signal(Publisher(settings, url))
