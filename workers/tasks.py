"""The Celery tasks: each says that there is work, and does all it can claim."""

import structlog
from celery import Celery

from dynrec_store.exceptions import UnknownNameError
from workers import maintenance, recompute
from workers.celery_app import MAINTAIN, RECOMPUTE_ITEMS, RECOMPUTE_USERS, RUN_TASKS, send_hint
from workers.context import Context

log = structlog.get_logger(__name__)


def register(app: Celery, context: Context) -> None:
    """Give an app its tasks, which work with the connections and encoders of a context."""

    def recompute_items(recommender: str) -> None:
        try:
            _, more = recompute.recompute_items(context, recommender)
        except UnknownNameError as error:  # dropped since the hint was sent
            log.info("hint_without_recommender", reason=str(error))
            return
        if more:
            send_hint(app, RECOMPUTE_ITEMS, recommender)

    def recompute_users(recommender: str) -> None:
        try:
            _, more = recompute.recompute_users(context, recommender)
        except UnknownNameError as error:
            log.info("hint_without_recommender", reason=str(error))
            return
        if more:
            send_hint(app, RECOMPUTE_USERS, recommender)

    def run_tasks() -> None:
        maintenance.run_tasks(context)

    def maintain() -> None:
        maintenance.maintain(context)

    tasks = {
        RECOMPUTE_ITEMS: recompute_items,
        RECOMPUTE_USERS: recompute_users,
        RUN_TASKS: run_tasks,
        MAINTAIN: maintain,
    }
    for name, function in tasks.items():
        # shared tasks would turn up in every other app of this process
        app.task(function, name=name, shared=False)
