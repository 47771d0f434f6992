"""Traces by OpenTelemetry: dispatch, and for each batch claim, read, encode, publish. Off unless an endpoint is set.

One hint leads to many batches and one batch may follow from many hints: a batch is a trace of its own, with a link
to the dispatch whose message led to it. While it is off, nothing of OpenTelemetry is imported.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from time import time_ns
from typing import TYPE_CHECKING

from dynrec_store import __version__
from dynrec_store.extras import needs_extra
from dynrec_store.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer

STANDARD = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")  # that ask for traces as well
HEADER = "traceparent"  # of a Celery message

_tracer: "Tracer | None" = None
_shut_down: Callable[[], None] | None = None
_received: ContextVar[str | None] = ContextVar("received", default=None)  # the header of the message at hand


def configure_tracing(settings: Settings, service: str) -> None:
    """Send spans where the settings, or OpenTelemetry's own variables, say; nothing happens if they say nothing."""
    standard = any(os.environ.get(name) for name in STANDARD) and os.environ.get("OTEL_SDK_DISABLED") != "true"
    if settings.otlp_endpoint is None and not standard:
        return
    with needs_extra("tracing"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    endpoint = settings.otlp_endpoint and f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    # what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before
    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create({**name, "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    use_tracer(provider.get_tracer("dynrec", __version__), shut_down=provider.shutdown)


def use_tracer(tracer: "Tracer | None", *, shut_down: Callable[[], None] | None = None) -> None:
    """Make spans with this tracer; None: make none. `shut_down` sends what has not been sent yet."""
    global _tracer, _shut_down
    _tracer, _shut_down = tracer, shut_down


def shut_down() -> None:
    """Make no more spans, and send those that were made."""
    if _shut_down is not None:
        _shut_down()
    use_tracer(None)


def now() -> int:
    """The time of day in nanoseconds, as spans begin."""
    return time_ns()


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """A span for the length of the block."""
    if _tracer is None:
        return nullcontext()
    return _tracer.start_as_current_span(f"dynrec.{name}", attributes=_named(attributes))


def batch(began: int, **attributes: str | int) -> AbstractContextManager[object]:
    """The span of a batch that was claimed between `began` and now, for the length of the block."""
    return nullcontext() if _tracer is None else _batch(_tracer, began, attributes)


@contextmanager
def _batch(tracer: "Tracer", began: int, attributes: dict[str, str | int]) -> Iterator[None]:
    from opentelemetry.context import Context  # noqa: PLC0415

    with tracer.start_as_current_span(
        "dynrec.batch", context=Context(), start_time=began, links=_links(), attributes=_named(attributes)
    ):
        tracer.start_span("dynrec.claim", start_time=began).end()
        yield


@contextmanager
def received(header: str | None) -> Iterator[None]:
    """Link the batches of the block to the dispatch that the header of a message tells of."""
    token = _received.set(header)
    try:
        yield
    finally:
        _received.reset(token)


def carried() -> dict[str, str]:
    """The headers for a message that is sent within the current span."""
    if _tracer is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def _links() -> "list[Link]":
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    header = _received.get()
    if header is None:
        return []
    return [Link(get_current_span(TraceContextTextMapPropagator().extract({HEADER: header})).get_span_context())]


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"dynrec.{name}": value for name, value in attributes.items()}
