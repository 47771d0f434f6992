"""Sending hints over a broker that may be away."""

import time

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from dynrec_store.queue import Pending
from workers.celery_app import RECOMPUTE_DERIVED, RECOMPUTE_ITEMS, RECOMPUTE_USERS, RUN_TASKS, send_hint
from workers.hints import Hints

BROKER_PAUSE = 1.0  # seconds without a message after the broker was not reached

log = structlog.get_logger(__name__)


class Sender:
    """Sends what `hints` allows; while the broker is away the hints are left out, the work waits in the database."""

    def __init__(self, app: Celery, hints: Hints) -> None:
        self._app = app
        self._hints = hints
        self._away_until = 0.0  # seconds of the monotonic clock

    def send_for(self, pending: list[Pending], now: float) -> None:
        """Send hints for the work that waits."""
        for work, count in self._hints.due(pending, now):
            for _ in range(count):
                self._send_for_one(work)

    def send(self, task: str, *arguments: str | int) -> bool:
        """Send one hint; False if the broker is away."""
        if time.monotonic() < self._away_until:
            return False
        try:
            send_hint(self._app, task, *arguments)
        except OperationalError as error:
            self._away_until = time.monotonic() + BROKER_PAUSE
            log.warning("broker_away", reason=str(error))
            return False
        return True

    def _send_for_one(self, work: Pending) -> None:
        match work.work:
            case "item":
                self.send(RECOMPUTE_ITEMS, work.recommender)
            case "derived":
                self.send(RECOMPUTE_DERIVED, work.recommender)
            case "user":
                self.send(RECOMPUTE_USERS, work.recommender)
            case _:
                self.send(RUN_TASKS)
