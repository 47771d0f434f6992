"""The Celery app: queues of hints that there is work in the database.

Losing a hint, or seeing it twice, is harmless: the queue proper is in PostgreSQL, and the dispatcher sends hints
again for as long as there is work.
"""

from typing import Any, Final

from celery import Celery
from kombu.utils.uuid import uuid

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings
from workers import tracing

ENCODE: Final = "encode"  # items: machines with an accelerator take it
MAINTENANCE: Final = "maintenance"  # users, tasks, indexes
TRAIN: Final = "train"  # models: takes minutes and all processors
QUEUES: Final = (ENCODE, MAINTENANCE, TRAIN)

RECOMPUTE_ITEMS: Final = "dynrec.recompute_items"
RECOMPUTE_DERIVED: Final = "dynrec.recompute_derived"
RECOMPUTE_USERS: Final = "dynrec.recompute_users"
RUN_TASKS: Final = "dynrec.run_tasks"
TRAIN_MODEL: Final = "dynrec.train_model"
MAINTAIN: Final = "dynrec.maintain"

QUEUE_OF: Final = {RECOMPUTE_ITEMS: ENCODE, RECOMPUTE_DERIVED: ENCODE, TRAIN_MODEL: TRAIN}  # others: maintenance

HINT_SECONDS = 86_400.0  # a hint that nobody took for so long is forgotten; clocks may differ by less than this
MEMORY: Final = "memory://"
MEMORY_TRANSPORT: Final = "workers.memory:Transport"


def make_app(settings: Settings) -> Celery:
    """Make the app that sends hints over the broker of the settings; it has no tasks yet."""
    app = Celery("dynrec", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_channel_error_retry=True,  # RabbitMQ ends a channel after consumer_timeout without an acknowledgement
        broker_connection_max_retries=None,  # for ever
        broker_connection_retry_on_startup=True,
        broker_transport=MEMORY_TRANSPORT if settings.broker_url.startswith(MEMORY) else None,
        broker_connection_timeout=2,
        broker_transport_options=_transport_options(settings.broker_url),
        task_acks_late=True,
        task_ignore_result=True,
        task_queues={name: {"exchange": name, "routing_key": name} for name in QUEUES},
        task_reject_on_worker_lost=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_consumer="workers.consumer:Consumer",
        # else a thread that is done waits for an answer of the broker, which the worker reads as well
        worker_enable_prefetch_count_reduction=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


def check_broker(settings: Settings) -> None:
    """Refuse a broker that other processes cannot reach."""
    if settings.broker_url.startswith(MEMORY):
        raise ConfigurationError(
            f"broker_url {settings.broker_url!r} reaches this process only: set DYNREC_BROKER_URL to a broker for "
            "dispatcher and workers, such as redis://localhost:6379/0, or run both in one process with `dynrec up`"
        )


def send_hint(app: Celery, task: str, *arguments: str | int) -> None:
    """Send a hint; raises kombu's OperationalError if the broker cannot be reached.

    Celery's own message, on its queue without `send_task`, whose routing and declaring takes as long as all the rest
    of the way to a worker. Workers declare the queues; a hint that comes before the first of them is one that is lost.
    """
    message = app.amqp.as_task_v2(
        uuid(), task, arguments, {}, expires=HINT_SECONDS, argsrepr=str(arguments), kwargsrepr="{}"
    )
    about = " ".join(map(str, arguments))
    with tracing.span("dispatch", task=task, about=about), app.producer_pool.acquire(block=True) as producer:
        producer.publish(
            message.body,
            exchange="",
            routing_key=QUEUE_OF.get(task, MAINTENANCE),
            serializer="json",
            headers={**message.headers, **tracing.carried()},
            retry=True,
            retry_policy={"max_retries": 1},
            **message.properties,
        )


def _transport_options(broker_url: str) -> dict[str, Any]:
    if broker_url.startswith(("redis", "valkey")):
        # Without acknowledgements in Redis: one that fails, as Redis is away, would keep its place among the few that a
        # worker takes at once, and a worker without places asks for nothing ever again.
        return {"ack_emulation": False, "socket_connect_timeout": 2, "socket_keepalive": True}
    return {}  # some transports refuse options that they do not know
