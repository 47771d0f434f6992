"""The broker of a process that is its own worker: kombu's in-memory transport, without its polling.

Kombu looks a thousand times a second for a message where one must not wait for long; here whoever puts a message
wakes the worker.
"""

import threading
from queue import Empty
from typing import ClassVar, Final

from kombu.transport import memory


class Bell:
    """Rung when there may be something to do."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rung = 0

    @property
    def rung(self) -> int:
        """How often it was rung."""
        return self._rung

    def ring(self) -> None:
        """Wake all who wait."""
        with self._condition:
            self._rung += 1
            self._condition.notify_all()

    def wait(self, seen: int, seconds: float | None) -> None:
        """Wait until it has been rung since `rung` was `seen`, at most for so long."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung != seen, seconds)


BELL: Final = Bell()


class Channel(memory.Channel):
    """Rings when a message comes, and when one is done with, which may make room for the next."""

    def _put(self, queue: str, message: object, **kwargs: object) -> None:
        super()._put(queue, message, **kwargs)  # type: ignore[no-untyped-call]
        BELL.ring()

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002  as kombu calls it
        """Acknowledge a message."""
        super().basic_ack(delivery_tag, multiple=multiple)  # type: ignore[no-untyped-call]
        BELL.ring()

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  as kombu calls it
        """Refuse a message."""
        super().basic_reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]
        BELL.ring()


class Transport(memory.Transport):
    """What `broker_transport` names."""

    Channel = Channel
    default_connection_params: ClassVar[dict[str, object]] = {}  # kombu warns of a host that nobody named otherwise

    def drain_events(  # type: ignore[override]  # kombu's own classes disagree
        self,
        connection: object,  # noqa: ARG002  as kombu calls it
        timeout: float | None = None,
    ) -> None:
        """Deliver a message; TimeoutError if there is none for so long, or if the bell was rung for something else."""
        seen = BELL.rung
        if not self._delivered():
            BELL.wait(seen, timeout)
            if not self._delivered():
                raise TimeoutError

    def _delivered(self) -> bool:
        assert self.cycle is not None  # noqa: S101  made with the transport
        try:
            self.cycle.get(self._deliver)  # type: ignore[no-untyped-call]
        except Empty:
            return False
        return True
