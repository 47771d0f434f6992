"""The Celery tasks: each says that there is work, and does all it can claim."""

from collections.abc import Callable
from functools import partial

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from dynrec_store.exceptions import UnknownNameError
from workers import derive, maintenance, recompute, tracing
from workers.celery_app import (
    MAINTAIN,
    RECOMPUTE_DERIVED,
    RECOMPUTE_ITEMS,
    RECOMPUTE_USERS,
    RUN_TASKS,
    TRAIN_MODEL,
    send_hint,
)
from workers.context import Context, Tally

log = structlog.get_logger(__name__)

Recompute = Callable[[Context, str], tuple[Tally, bool]]  # returns whether more may wait


def register(app: Celery, context: Context) -> None:
    """Give an app its tasks, which work with the connections and encoders of a context."""
    work = partial(_work, app, context)

    def recompute_items(recommender: str) -> None:
        work(RECOMPUTE_ITEMS, recompute.recompute_items, recommender)
        # what the other models make of it, without waiting for a hint
        work(RECOMPUTE_DERIVED, derive.recompute_derived, recommender)

    def recompute_derived(recommender: str) -> None:
        work(RECOMPUTE_DERIVED, derive.recompute_derived, recommender)

    def recompute_users(recommender: str) -> None:
        work(RECOMPUTE_USERS, recompute.recompute_users, recommender)

    def run_tasks() -> None:
        maintenance.run_tasks(context)

    def maintain() -> None:
        maintenance.maintain(context)

    def train_model(model: int) -> None:
        maintenance.train_model(context, model)

    tasks = {
        RECOMPUTE_ITEMS: recompute_items,
        RECOMPUTE_DERIVED: recompute_derived,
        RECOMPUTE_USERS: recompute_users,
        RUN_TASKS: run_tasks,
        MAINTAIN: maintain,
        TRAIN_MODEL: train_model,
    }
    for name, function in tasks.items():
        # shared tasks would turn up in every other app of this process
        app.task(function, name=name, shared=False)


def _work(app: Celery, context: Context, task: str, recompute_some: Recompute, recommender: str) -> None:
    try:
        with tracing.received(app.current_task.request.get(tracing.HEADER)):
            _, more = recompute_some(context, recommender)
    except UnknownNameError as error:  # dropped since the hint was sent
        log.info("hint_without_recommender", reason=str(error))
        return
    if more:
        try:
            send_hint(app, task, recommender)
        except OperationalError as error:  # the dispatcher sends another when the broker is back
            log.warning("broker_away", reason=str(error))
