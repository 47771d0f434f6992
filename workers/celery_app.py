"""The Celery app: two queues of hints that there is work in the database.

Losing a hint, or seeing it twice, is harmless: the queue proper is in PostgreSQL, and the dispatcher sends hints
again for as long as there is work.
"""

from typing import Any, Final

from celery import Celery

from dynrec_store.settings import Settings

ENCODE: Final = "encode"  # items: machines with an accelerator take it
MAINTENANCE: Final = "maintenance"  # users, tasks, indexes
QUEUES: Final = (ENCODE, MAINTENANCE)

RECOMPUTE_ITEMS: Final = "dynrec.recompute_items"
RECOMPUTE_USERS: Final = "dynrec.recompute_users"
RUN_TASKS: Final = "dynrec.run_tasks"
MAINTAIN: Final = "dynrec.maintain"

HINT_SECONDS = 10.0  # a hint that nobody took for so long is forgotten; clocks may differ by less than this
MEMORY = "memory://"


def make_app(settings: Settings) -> Celery:
    """Make the app that sends hints over the broker of the settings; it has no tasks yet."""
    app = Celery("dynrec", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=2,
        broker_transport_options=_transport_options(settings.broker_url),
        task_acks_late=True,
        task_default_queue=MAINTENANCE,
        task_ignore_result=True,
        task_queues={name: {"exchange": name, "routing_key": name} for name in QUEUES},
        task_reject_on_worker_lost=True,
        task_routes={RECOMPUTE_ITEMS: {"queue": ENCODE}},
        task_serializer="json",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


def send_hint(app: Celery, task: str, *arguments: str) -> None:
    """Send a hint; raises kombu's OperationalError if the broker cannot be reached."""
    app.send_task(task, arguments, expires=HINT_SECONDS, retry=True, retry_policy={"max_retries": 1})


def _transport_options(broker_url: str) -> dict[str, Any]:
    if broker_url.startswith(MEMORY):
        return {"polling_interval": 0.001}  # seconds; the default of a second would be felt
    if broker_url.startswith(("redis", "valkey")):
        # an unacknowledged hint comes back when the dispatcher has long sent others
        return {"visibility_timeout": 600, "socket_connect_timeout": 2, "socket_keepalive": True}
    return {}
