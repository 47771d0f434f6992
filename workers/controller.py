"""A Celery worker over the in-memory broker that can be ended from outside, without Celery's signal handlers."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from celery import Celery
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.worker import WorkController

from dynrec_store.exceptions import DynrecError
from workers.memory import BELL

THREADS = 8  # most wait for PostgreSQL, one computes

log = structlog.get_logger(__name__)


class WorkerFailed(DynrecError):  # noqa: N818  the name says what happened
    """The Celery worker ended by an error, which Celery has logged."""


class Pool(TaskPool):  # type: ignore[misc]  # celery has no types
    """Celery's pool of threads, whose threads know the app: without that, Celery asks for a global one."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.executor = ThreadPoolExecutor(self.limit, "dynrec-task", initializer=self.app.set_current)

    def on_apply(self, *args: object, **kwargs: object) -> ApplyResult:
        """Start a task."""
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(_log_error)
        return result


def _log_error(future: "Future[object]") -> None:
    # errors of tasks are logged by Celery; this one happened around the task, and nobody else would look at it
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("task_not_run", exc_info=error)


class Worker(WorkController):  # type: ignore[misc]  # celery has no types
    """`work` blocks until `end` is called from another thread; the tasks at hand are finished."""

    def __init__(self, *, app: Celery, queues: list[str], concurrency: int) -> None:
        self.ready = threading.Event()
        super().__init__(
            app=app,
            queues=queues,
            concurrency=concurrency,
            pool=Pool,
            loglevel="INFO",
            without_gossip=True,
            without_heartbeat=True,
            without_mingle=True,
        )

    def on_consumer_ready(self, consumer: object) -> None:  # noqa: ARG002  celery passes it
        """Celery's call when messages are taken."""
        self.ready.set()

    def work(self) -> None:
        """Take messages until the end."""
        try:
            self.start()
        finally:
            self.ready.set()  # whoever waits for a worker that failed must not wait forever
        if self.exitcode:
            raise WorkerFailed(f"the Celery worker ended with code {self.exitcode}: see its log")

    def end(self) -> None:
        """Finish the tasks at hand and let `work` return."""
        self.stop()
        BELL.ring()
