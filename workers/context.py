"""What the tasks of one worker process share: connections, loaded encoders, batch sizes, counters."""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Protocol

import structlog

from dynrec_store import models, queue
from dynrec_store.exceptions import DynrecError
from dynrec_store.models import DerivedRow, Floats
from dynrec_store.queue import Encoding
from dynrec_store.settings import Settings
from workers.batch_size import BatchSize
from workers.connections import Connections
from workers.device_memory import device_memory
from workers.encoders import Encoder, load_encoder
from workers.exceptions import EncoderError
from workers.identity import identity
from workers.loops import Loops
from workers.meters import Meters
from workers.recent import Recent
from workers.turns import Turns
from workers.watchdog import Computing

log = structlog.get_logger(__name__)

LOAD_AGAIN = 10.0  # seconds before a model that could not be loaded is tried again
LEASE_FRACTION = 0.1  # of a lease's time may pass in computing a batch
BATCH_SECONDS = 2.0  # of a batch's own work, without its waiting for turns at the model
TURN_SECONDS = 0.5  # that a loop computes before others have their turn


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


class Towers(Protocol):
    """What makes the vectors of items for a learned model."""

    def derive(self, rows: Sequence[DerivedRow]) -> tuple[list[Floats], list[Floats]]:
        """Embeddings of the items, and their contexts, all heads of an item in a row."""


class Context:
    """One for each worker process, made before its tasks run and closed after them."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.url = url
        self.process = process_name("worker")
        self.stopping = threading.Event()  # set: finish the batch at hand, claim no other
        self.lease = timedelta(seconds=settings.lease_seconds)
        self._connections = Connections(url, application_name=self.process, stopping=self.stopping)
        self.call = self._connections.call
        self.encodings: dict[str, Encoding] = {}  # recommender -> its encoding when it was last claimed from
        self._encoders: dict[tuple[str, str, int], Encoder] = {}
        self._towers: dict[int, Towers] = {}  # model version -> its towers
        self._unavailable: dict[tuple[str, str, int], tuple[EncoderError, float]] = {}
        self._sizes: dict[str, BatchSize] = {}
        self.loops = Loops()
        self._turns: dict[str, Turns] = {}  # encoder -> who computes with it next
        self.recent: defaultdict[Encoder, Recent] = defaultdict(Recent)  # what each computed last
        self.computing = Computing()
        self.meters = Meters()
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

    def towers(self, model: int) -> Towers:
        """The towers of a learned model; raises ModelUnavailable."""
        found = self._towers.get(model)
        if found is None:
            # torch takes seconds to import: recommenders without a learned model go without
            from workers.learning.derivation import ItemVectors  # noqa: PLC0415

            found = self._towers[model] = ItemVectors(model, self.call(models.artefacts, model))
        return found

    def preload(self) -> None:
        """Load the encoders of all recommenders, so that the first change does not wait for them."""
        try:
            for encoding in self.call(queue.encoders_in_use):
                self.encoder(encoding)
        except DynrecError as error:  # the first batch meets it again, and gives it to whoever asks for failures
            log.warning("encoder_not_loaded", reason=str(error))

    def claim_size(self, purpose: str) -> BatchSize:
        """How many entities to claim: what is computed soon, and in a small part of a lease."""
        return self._size(purpose, min(BATCH_SECONDS, self.settings.lease_seconds * LEASE_FRACTION))

    def turns(self, encoder: Encoder) -> Turns:
        """Who computes with an encoder next: one at a time, but on a device another may tokenize meanwhile."""
        return self._turns.setdefault(encoder.name, Turns(1 if encoder.device == "cpu" else 2))

    def turn_size(self, encoder: Encoder) -> BatchSize:
        """How many texts to encode before others have their turn at the device."""
        return self._size(f"turns of {encoder.name}", TURN_SECONDS)

    def _size(self, purpose: str, seconds: float) -> BatchSize:
        return self._sizes.setdefault(purpose, BatchSize(self.settings.batch_size, seconds))

    def count(self, tally: Tally) -> None:
        """Add to what this process has done."""
        with self._counting:
            self._total += tally

    def count_encoding(self, encoder: Encoder, texts: int, calls: int, seconds: float) -> None:
        """Note how long an encoder took for how much."""
        for name, amount in (("texts", texts), ("calls", calls), ("seconds", seconds)):
            self.meters.add(f"encode_{name}", amount, encoder=encoder.name, device=encoder.device)

    @property
    def total(self) -> Tally:
        """What this process has done since its start."""
        return self._total

    def beat(self, more: dict[str, object], *, ended: bool = False) -> None:
        """Say in the database that this process lives, or ends, with what it has done since its start, and more."""
        encoders = list(self._encoders.items())
        devices = sorted({encoder.device for _, encoder in encoders})
        details: dict[str, object] = {
            **identity(),
            **asdict(self._total),
            "ended": ended,
            "counters": self.meters.report(),
            "encoder": sorted({encoder.name for _, encoder in encoders}),
            "device": devices,
            "device_memory": device_memory(devices),
            "models": {encoder.name: self._described(encoder, model) for (_, model, _), encoder in encoders},
            **more,
        }
        self.call(queue.beat, self.process, "worker", details)

    def _described(self, encoder: Encoder, model: str) -> str:
        """What decides on the numbers in a vector: workers that differ in it make vectors that differ."""
        kind, _, _ = encoder.device.partition(":")
        return (
            f"{model or encoder.name} of dimension {encoder.dimension}, precision {self.settings.precision} on {kind}"
        )

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()


def process_name(role: str) -> str:
    """The name of this process in the heartbeats and in pg_stat_activity, at most 63 bytes."""
    return f"{process_prefix(role)}{os.getpid()}"


def process_prefix(role: str) -> str:
    """How the names of all processes of a role on this machine, or in this container, begin."""
    return f"dynrec-{role}-{socket.gethostname()[:30]}-"
