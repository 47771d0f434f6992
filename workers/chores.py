"""What a dispatcher does from time to time beside sending hints for changes."""

import math
import time
from collections.abc import Callable

from dynrec_store import models, queue
from dynrec_store.queue import Connection, Pending
from workers.celery_app import MAINTAIN, RUN_TASKS, TRAIN_MODEL
from workers.identity import identity
from workers.sender import Sender

BEAT_SECONDS = 5.0
MAINTAIN_SECONDS = 300.0
MODELS_SECONDS = 2.0  # between looks for models that wait for their training, or for the end of their backfill
BATCHES_SECONDS = 5.0  # between looks for batches that are due
INDEX_SECONDS = 3.0  # after items changed: their index may need building
INDEX_AGAIN_SECONDS = 10.0  # however little changes: a build may have failed, or its worker ended
DUE_SECONDS = 1.0  # between looks at when the next lease or retry is due
AGAIN_SECONDS = 1.0  # when the broker was away
SOONEST = 0.05  # seconds; between two sweeps


class Chores:
    """Sweeps, heartbeats, and hints for maintenance; each chore says in how many seconds it is due again."""

    def __init__(self, sender: Sender, process: str, sweep_seconds: float) -> None:
        self._sender = sender
        self._process = process
        self._sweep_seconds = sweep_seconds
        self._swept_at = -math.inf  # seconds of the monotonic clock
        self._due: dict[Callable[[Connection], float], float] = dict.fromkeys(
            (self._sweep, self._beat, self._maintain, self._models, self._batches, self._build_indexes), 0.0
        )

    @property
    def next_due(self) -> float:
        """When the next chore is due, in seconds of the monotonic clock."""
        return min(self._due.values())

    def do_due(self, connection: Connection) -> None:
        """Do the chores that are due."""
        now = time.monotonic()
        for chore, due in self._due.items():
            if due <= now:
                self._due[chore] = now + chore(connection)

    def note(self, pending: list[Pending], now: float) -> None:
        """Take note of the work that was seen."""
        if any(work.work in ("item", "derived") for work in pending):
            self._due[self._build_indexes] = min(self._due[self._build_indexes], now + INDEX_SECONDS)

    def _sweep(self, connection: Connection) -> float:
        now, due = time.monotonic(), queue.seconds_until_due(connection)
        if now - self._swept_at >= self._sweep_seconds or (due is not None and due <= 0):
            queue.expire_leases(connection)
            queue.release_retries(connection)
            self._swept_at, due = now, queue.seconds_until_due(connection)
        return DUE_SECONDS if due is None else min(max(due, SOONEST), DUE_SECONDS)

    def _beat(self, connection: Connection) -> float:
        queue.beat(connection, self._process, "dispatcher", identity())
        return BEAT_SECONDS

    def end(self, connection: Connection) -> None:
        """Say that this process ends, so that nobody takes it for dead."""
        queue.beat(connection, self._process, "dispatcher", {**identity(), "ended": True})

    def _maintain(self, _: Connection) -> float:
        return MAINTAIN_SECONDS if self._sender.send(MAINTAIN) else AGAIN_SECONDS

    def _models(self, connection: Connection) -> float:
        for model in models.staged_models(connection):
            self._sender.send(TRAIN_MODEL, model)
        models.finish_backfills(connection)
        return MODELS_SECONDS

    def _batches(self, connection: Connection) -> float:
        queue.queue_batches(connection)
        return BATCHES_SECONDS

    def _build_indexes(self, _: Connection) -> float:
        return INDEX_AGAIN_SECONDS if self._sender.send(RUN_TASKS) else AGAIN_SECONDS
