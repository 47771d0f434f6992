"""Set-based work: tasks left by changes, vector indexes, partitions, retention."""

import time
from contextlib import closing

import structlog

from dynrec_store import models, queue
from dynrec_store.exceptions import ConnectionFailedError, DynrecError
from dynrec_store.queue import Connection, IndexWork
from workers.context import Context
from workers.leases import TIME_BOX

log = structlog.get_logger(__name__)


def run_tasks(context: Context) -> bool:
    """Do the tasks that can run until none is left or the time is up; returns whether more may wait."""
    until = time.monotonic() + TIME_BOX
    while time.monotonic() < until:
        what = None if context.stopping.is_set() else context.call(queue.run_task)
        if what is None:
            return False
        log.info("task_done", what=what)
    return True


def build_indexes(connection: Connection) -> None:
    """Create, rebuild and vacuum vector indexes as they need it, unless another worker is on it."""
    if not queue.lock_indexes(connection):
        return
    try:
        last = ""
        # what did not help is not done again at once: begun and not ended it counts as a failure
        while (work := queue.begin_index_work(connection)) and work.statement != last:
            log.info("index_statement", recommender=work.recommender, statement=work.statement)
            _do_index_work(connection, work)
            last = work.statement
    finally:
        if not connection.closed:
            queue.unlock_indexes(connection)


def _do_index_work(connection: Connection, work: IndexWork) -> None:
    succeeded = False
    try:
        queue.execute_index_statement(connection, work.statement)
        succeeded = True
    finally:
        if not connection.closed:
            queue.end_index_work(connection, work, succeeded=succeeded)


def maintain(context: Context) -> None:
    """Partitions, retention, landmarks; leases that expired and retries that are due; measurements."""
    context.call(queue.maintain)
    context.call(queue.expire_leases)
    context.call(queue.release_retries)
    context.call(queue.take_profiles)
    while not context.stopping.is_set() and (recommender := context.call(queue.watch)):
        log.info("measured", recommender=recommender)


def train_model(context: Context, model: int) -> None:
    """Train a staged model, unless another worker is at it; what goes wrong is noted with the model.

    Where the database went away the model waits for the next hint, and that does not count against it.
    """
    # torch takes seconds to import: workers of the other queues go without
    from workers.learning.run import train_staged  # noqa: PLC0415

    with closing(queue.connect(context.url, application_name=context.process)) as connection:
        if model not in models.staged_models(connection) or not models.lock_training(connection, model):
            return
        try:
            train_staged(
                connection,
                context.settings,
                model,
                lambda stage, done: log.info("train", stage=stage, done=round(done, 2)),
            )
        except ConnectionFailedError as error:
            log.warning("training_interrupted", model=model, reason=str(error))
            context.call(models.interrupt_training, model)
        except Exception as error:  # of whatever kind, it is noted with the model
            unforeseen = not isinstance(error, DynrecError)
            log.warning("training_failed", model=model, reason=f"{type(error).__name__}: {error}", exc_info=unforeseen)
