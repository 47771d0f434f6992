"""Taking messages, whatever they are: anybody who reaches the broker can write one.

Celery ends the worker at a message that it did not foresee, and Kombu at one that is not even a message. Neither is
worth a process: what it should have said is in the database.
"""

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import TRANSPORT_ALIASES

log = structlog.get_logger(__name__)


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """What `worker_consumer` names: refuses a message that Celery stumbles over."""

    def create_task_handler(self, *args: object, **kwargs: object) -> Callable[[Any], None]:
        """What is called with each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_any(message: Any) -> None:  # noqa: ANN401  kombu has no types
            try:
                _check_hint(message.payload)
                handle(message)
            except Exception as error:  # noqa: BLE001  of as many kinds as there are ways to be wrong
                refuse(error, self.connection_errors)
                message.reject_log_error(log, self.connection_errors)

        return handle_any


def outlive_messages() -> None:
    """Have transports that outlive what is no message taken for Redis, by the schemes that Kombu knows and looks at."""
    for scheme, transport in TRANSPORT_ALIASES.items():
        if transport == "kombu.transport.redis:Transport":
            TRANSPORT_ALIASES[scheme] = "workers.redis_transport:Transport"
        elif transport == "kombu.transport.redis:SentinelTransport":
            TRANSPORT_ALIASES[scheme] = "workers.redis_transport:SentinelTransport"


def _check_hint(payload: object) -> None:
    """Raise ValueError unless a message is what `send_hint` makes: a task called with names and numbers, no more.

    Celery would go on to tasks named in the third part; and what fails around a task keeps the place of its message.
    """
    match payload:
        case [list(arguments), {**named}, {**afterwards}] if not named and not any(afterwards.values()):
            if all(isinstance(argument, str | int) for argument in arguments):
                return
    raise ValueError("not a hint")


def refuse(error: Exception, connection_errors: tuple[type[Exception], ...]) -> None:
    """Say why a message is refused; raises the error again if it is the connection's."""
    # that a header is missing is a KeyError, which Kombu takes for a broken connection
    if isinstance(error, connection_errors) and not isinstance(error, LookupError):
        raise error
    log.warning("message_refused", reason=f"{type(error).__name__}: {str(error)[:200]}")
