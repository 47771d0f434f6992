"""What the tasks of one worker process share: connections, loaded encoders, batch sizes, counters."""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import timedelta

import structlog

from dynrec_store import queue
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Encoding
from dynrec_store.settings import Settings
from workers.batch_size import BatchSize
from workers.connections import Connections
from workers.encoders import Encoder, load_encoder
from workers.exceptions import EncoderError

log = structlog.get_logger(__name__)

LOAD_AGAIN = 10.0  # seconds before a model that could not be loaded is tried again
LOOPS = 2  # for each recommender: while one encodes, the other publishes and claims


@dataclass(frozen=True)
class Tally:
    """What was done; sums up with +."""

    claimed: int = 0  # entities
    encoded: int = 0  # texts that the model computed
    saved: int = 0  # items whose text needed no computation: known already, or twice in a batch
    published: int = 0  # entities whose vectors are up to date now
    failed: int = 0  # entities that were given back with an error
    calls: int = 0  # of the model

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Context:
    """One for each worker process, made before its tasks run and closed after them."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.process = process_name("worker")
        self.stopping = threading.Event()  # set: finish the batch at hand, claim no other
        self.lease = timedelta(seconds=settings.lease_seconds)
        self._connections = Connections(url, application_name=self.process, stopping=self.stopping)
        self.call = self._connections.call
        self.encodings: dict[str, Encoding] = {}  # recommender -> its encoding when it was last claimed from
        self._encoders: dict[tuple[str, str, int], Encoder] = {}
        self._unavailable: dict[tuple[str, str, int], tuple[EncoderError, float]] = {}
        self._sizes: dict[str, BatchSize] = {}
        self._loops: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(LOOPS))
        self._counting = threading.Lock()
        self._total = Tally()

    def encoder(self, encoding: Encoding) -> Encoder | None:
        """The loaded encoder, None where vectors are adopted; raises ModelUnavailable or DeviceFault."""
        if encoding.family is None or encoding.model is None:
            return None
        key = (encoding.family, encoding.model, encoding.dimension)
        found = self._encoders.get(key)
        if found is not None:
            return found
        error, until = self._unavailable.get(key, (None, 0.0))
        if error is not None and time.monotonic() < until:
            raise error
        try:
            found = load_encoder(encoding.family, encoding.model, encoding.dimension, self.settings)
        except EncoderError as failure:
            self._unavailable[key] = failure, time.monotonic() + LOAD_AGAIN
            raise
        self._encoders[key] = found
        return found

    def preload(self) -> None:
        """Load the encoders of all recommenders, so that the first change does not wait for them."""
        try:
            for encoding in self.call(queue.encoders_in_use):
                self.encoder(encoding)
        except DynrecError as error:  # the first batch meets it again, and gives it to whoever asks for failures
            log.warning("encoder_not_loaded", reason=str(error))

    def batch_size(self, purpose: str) -> BatchSize:
        """The batch size of a purpose, which adapts to how long its batches take."""
        fresh = BatchSize(self.settings.batch_size, self.settings.lease_seconds)
        return self._sizes.setdefault(purpose, fresh)

    @contextmanager
    def loop(self, recommender: str) -> Iterator[bool]:
        """Whether another loop over the items of a recommender is of use in this process."""
        with self._counting:
            loops = self._loops[recommender]
        entered = loops.acquire(blocking=False)
        try:
            yield entered
        finally:
            if entered:
                loops.release()

    def count(self, tally: Tally) -> None:
        """Add to what this process has done."""
        with self._counting:
            self._total += tally

    @property
    def total(self) -> Tally:
        """What this process has done since its start."""
        return self._total

    def beat(self) -> None:
        """Say in the database that this process lives, with what it has done since its start."""
        encoders = list(self._encoders.values())
        details: dict[str, object] = {
            **asdict(self._total),
            "encoder": sorted({encoder.name for encoder in encoders}),
            "device": sorted({encoder.device for encoder in encoders}),
        }
        self.call(queue.beat, self.process, "worker", details)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()


def process_name(role: str) -> str:
    """The name of this process in the heartbeats and in pg_stat_activity, at most 63 bytes."""
    return f"dynrec-{role}-{socket.gethostname()[:30]}-{os.getpid()}"
