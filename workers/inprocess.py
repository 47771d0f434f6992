"""Dispatcher, stream and worker as threads of the calling process, over Celery's in-memory broker."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from dynrec_store.settings import Settings
from workers.background import Background, beating
from workers.celery_app import MEMORY, QUEUES, make_app
from workers.context import Context
from workers.controller import THREADS, Worker
from workers.dispatcher import Dispatcher
from workers.stream import Stream
from workers.tasks import register
from workers.tracing import configure_tracing


@contextmanager
def running(
    settings: Settings, url: str, *, queues: Sequence[str] = QUEUES, preload: bool = False
) -> Iterator[Context]:
    """Keep vectors up to date for the length of the block, without any other process.

    `preload` loads the encoders of the existing recommenders in the background, so that the first change does not
    wait for a model. At the end of the block the batches at hand are finished; an error that ended one of the
    threads is raised.
    """
    app = make_app(settings.model_copy(update={"broker_url": MEMORY}))
    configure_tracing(settings, "dynrec-up")
    context = Context(settings, url)
    register(app, context)
    worker = Worker(app=app, queues=list(queues), concurrency=THREADS)
    dispatcher = Dispatcher(settings, url, app)
    with ExitStack() as stack:
        stack.callback(context.close)
        stack.enter_context(beating(context))
        stack.enter_context(Background("worker", worker.work, stop=worker.end))
        worker.ready.wait()
        stack.enter_context(Background("dispatcher", dispatcher.run, stop=dispatcher.stop))
        stream = Stream(url)
        stack.enter_context(Background("stream", stream.run, stop=stream.stop))
        if preload:
            stack.enter_context(Background("preload", context.preload, stop=lambda: None))
        stack.callback(context.stopping.set)
        yield context
