"""Threads beside the tasks, whose errors are not lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import structlog

from dynrec_store.exceptions import DatabaseError
from workers.context import Context

BEAT_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Background:
    """Work in a thread for the length of a block: at its end `stop` is called, and an error of the work is raised."""

    def __init__(self, name: str, work: Callable[[], object], *, stop: Callable[[], object]) -> None:
        self._work = work
        self._stop = stop
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"dynrec-{name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            log.exception("thread_failed", thread=self._thread.name)
            self._error = error


@contextmanager
def beating(context: Context, details: Callable[[], dict[str, object]] = dict) -> Iterator[None]:
    """Say every few seconds that this worker lives, with its details, and a last time at the end of the block."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.is_set():
            _beat_once(context, details)
            ended.wait(BEAT_SECONDS)

    with Background("heartbeat", beat, stop=ended.set):
        yield
    _beat_once(context, details, ended=True)


def _beat_once(context: Context, details: Callable[[], dict[str, object]], *, ended: bool = False) -> None:
    try:
        context.beat(details(), ended=ended)
    except DatabaseError as error:  # the database is away: others will say so too, and the next beat may succeed
        log.warning("heartbeat_missed", reason=str(error))
