"""The Celery tasks: each says that there is work, and does all it can claim."""

from functools import partial
from typing import Protocol

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
from workers.loops import Loop

log = structlog.get_logger(__name__)


class Recompute(Protocol):
    """One sort of work of a recommender."""

    def __call__(self, context: Context, recommender: str, *, live_only: bool) -> tuple[Tally, bool]:
        """Work until nothing is left or the time is up; returns what was done and whether more may wait."""


def register(app: Celery, context: Context) -> None:
    """Give an app its tasks, which work with the connections and encoders of a context."""
    work = partial(_work, app, context)

    def recompute_items(recommender: str) -> None:
        work("item", RECOMPUTE_ITEMS, recompute.recompute_items, recommender)

    def recompute_derived(recommender: str) -> None:
        work("derived", RECOMPUTE_DERIVED, derive.recompute_derived, recommender)

    def recompute_users(recommender: str) -> None:
        work("user", RECOMPUTE_USERS, recompute.recompute_users, recommender)

    def run_tasks() -> None:
        # one thread at most is held up by a long statement, and another by an index
        with context.loops.another("", "tasks") as part:
            more = part is Loop.EVERYTHING and maintenance.run_tasks(context)
        if more:
            _send_again(app, RUN_TASKS)
            return
        with context.loops.another("", "indexes") as part:
            if part is Loop.EVERYTHING and not context.stopping.is_set():
                context.call(maintenance.build_indexes)

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


def _work(app: Celery, context: Context, kind: str, task: str, recompute_some: Recompute, recommender: str) -> None:
    try:
        with (
            context.loops.another(recommender, kind) as part,
            tracing.received(app.current_task.request.get(tracing.HEADER)),
        ):
            if part is Loop.NOTHING:
                return
            _, more = recompute_some(context, recommender, live_only=part is Loop.LIVE)
    except UnknownNameError as error:  # dropped since the hint was sent
        log.info("hint_without_recommender", reason=str(error))
        return
    if more:
        _send_again(app, task, recommender)


def _send_again(app: Celery, task: str, *arguments: str) -> None:
    """Queue up behind the hints of the others."""
    try:
        send_hint(app, task, *arguments)
    except OperationalError as error:  # the dispatcher sends another when the broker is back
        log.warning("broker_away", reason=str(error))
