"""A worker process: `dynrec worker`."""

from collections.abc import Sequence
from contextlib import ExitStack

from celery import Celery, signals

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.logs import configure_logging
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.background import Background, beating
from workers.celery_app import ENCODE, QUEUES, check_broker, make_app
from workers.consumer import outlive_messages
from workers.context import Context
from workers.controller import Pool, WorkerFailed
from workers.proof import Proof
from workers.tasks import register
from workers.tracing import configure_tracing
from workers.watchdog import Watchdog


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES, concurrency: int = 2) -> None:
    """Work on what comes over the broker, until SIGTERM or ctrl-c; the batches at hand are finished.

    `concurrency` threads share one loaded model: two keep it busy, more serve users and tasks beside it. Raises
    ConfigurationError, or WorkerFailed if Celery ends by an error.
    """
    check_broker(settings)
    outlive_messages()
    unknown = sorted(set(queues) - set(QUEUES))
    if unknown:
        raise ConfigurationError(f"there is no queue {unknown[0]!r}: choose from {', '.join(QUEUES)}")
    configure_logging(settings)
    configure_tracing(settings, "dynrec-worker")
    app = make_app(settings)
    with target_database(settings) as url, ExitStack() as stack:
        context = Context(settings, url)
        stack.callback(context.close)
        register(app, context)
        watchdog = Watchdog(context.computing, settings.hang_seconds)
        stack.enter_context(Background("watchdog", watchdog.watch, stop=watchdog.stop))
        if ENCODE in queues:
            proof = Proof(context)
            stack.enter_context(beating(context, proof.details))
            stack.enter_context(Background("proof", proof.keep, stop=context.stopping.set))
        else:
            stack.enter_context(beating(context))
        _work(app, context, queues, concurrency)


def _work(app: Celery, context: Context, queues: Sequence[str], concurrency: int) -> None:
    def shutting_down(**_: object) -> None:
        context.stopping.set()

    def keep_logging(**_: object) -> None:
        """Celery configures logging unless somebody listens to its signal."""

    signals.worker_shutting_down.connect(shutting_down)
    signals.setup_logging.connect(keep_logging)
    worker = app.Worker(
        queues=list(queues),
        concurrency=concurrency,
        pool=Pool,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    if worker.exitcode:
        raise WorkerFailed(f"the Celery worker ended with code {worker.exitcode}: see its log")
