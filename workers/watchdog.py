"""A worker whose model hangs ends itself: nothing in the process can wake it; its supervisor starts another one."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

HANGS = 70  # the exit status: EX_SOFTWARE of sysexits.h
LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Computing:
    """Since when each thread has been in a model."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}  # thread -> seconds of the monotonic clock

    @contextmanager
    def here(self) -> Iterator[None]:
        """For the length of the block this thread is in a model."""
        thread = threading.get_ident()
        self._since[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._since[thread]

    @property
    def longest(self) -> float:
        """For how many seconds a thread has been in a model, of all threads."""
        return time.monotonic() - min([*self._since.copy().values()], default=time.monotonic())


class Watchdog:
    """Ends the process when a thread has been in a model for longer than `limit` seconds."""

    def __init__(self, computing: Computing, limit: float) -> None:
        self._computing = computing
        self._limit = limit
        self._ended = threading.Event()

    def watch(self) -> None:
        """Look until `stop`."""
        while not self._ended.wait(LOOK_SECONDS):
            if self._computing.longest > self._limit:
                log.critical("model_hangs", seconds=round(self._computing.longest), limit=self._limit)
                sys.stderr.flush()
                os._exit(HANGS)  # threads that hang cannot be joined; what they hold is taken over after its lease

    def stop(self) -> None:
        """Let `watch` return."""
        self._ended.set()
