"""Traces and logs: one can follow a change from its capture to the vector that was published."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dynrec_store.logs import configure_logging
from dynrec_store.settings import Settings
from tests.workers.support import Connection, fresh, until
from workers import tracing
from workers.inprocess import running


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Where spans go."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracing.use_tracer(provider.get_tracer("test"))
    yield memory
    tracing.use_tracer(None)


def named(spans: Sequence[ReadableSpan], name: str, **attributes: object) -> list[ReadableSpan]:
    """The spans of that name with these attributes."""
    wanted = {f"dynrec.{key}": value for key, value in attributes.items()}
    return [
        span
        for span in spans
        if span.name == f"dynrec.{name}" and wanted.items() <= dict(span.attributes or {}).items()
    ]


def number(span: ReadableSpan) -> int:
    """The id of a span."""
    assert span.context is not None
    identity: int = span.context.span_id
    return identity


def test_a_batch_is_traced_and_linked_to_its_dispatch(
    products: Connection, settings: Settings, database_url: str, exporter: InMemorySpanExporter
) -> None:
    with running(settings, database_url):
        products.execute("insert into products values ('a', 'apple')")
        products.execute("insert into clicks values ('u', 'a')")
        assert fresh(products)
        until(lambda: named(exporter.get_finished_spans(), "batch", kind="user"))
    spans = exporter.get_finished_spans()
    dispatches = {number(span): span for span in named(spans, "dispatch")}
    (batch, *_) = named(spans, "batch", kind="item", recommender="shop", entities=1)
    (link,) = batch.links
    assert (dispatches[link.context.span_id].attributes or {})["dynrec.about"] == "shop"
    assert batch.parent is None
    parts = [span for span in spans if span.parent is not None and span.parent.span_id == number(batch)]
    parts.sort(key=lambda span: span.start_time or 0)
    assert [part.name for part in parts] == ["dynrec.claim", "dynrec.read", "dynrec.encode", "dynrec.publish"]
    for part in parts:
        assert batch.start_time is not None
        assert batch.end_time is not None
        assert part.start_time is not None
        assert part.end_time is not None
        assert batch.start_time <= part.start_time <= part.end_time <= batch.end_time
    assert named(spans, "encode", encoder="hashing", texts=1)


def test_nothing_of_opentelemetry_is_imported_unless_an_endpoint_is_set(database_url: str) -> None:
    program = """
        import structlog, sys
        from dynrec_store.settings import Settings
        from workers.inprocess import running
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        with running(Settings(_env_file=None), sys.argv[1]):
            pass
        print(sorted(name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "prometheus_client")))
    """
    lines = [line[8:] for line in program.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), database_url], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """A collector of traces: its address, and the paths that were posted to."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("DYNREC_OTLP_ENDPOINT", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/own"),
    ],
)
def test_an_endpoint_turns_traces_on(
    monkeypatch: pytest.MonkeyPatch, collector: tuple[str, list[str]], variable: str, path: str
) -> None:
    def configured() -> dict[str, str]:
        tracing.configure_tracing(Settings(_env_file=None), "test")  # type: ignore[call-arg]
        with tracing.span("dispatch"):
            return tracing.carried()

    address, paths = collector
    assert configured() == {}
    monkeypatch.setenv(variable, address + ("/own" if path == "/own" else ""))
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert configured() == {}
    tracing.shut_down()
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    assert tracing.HEADER in configured()
    tracing.shut_down()
    assert paths == [path]
    assert tracing.carried() == {}


def test_the_log_follows_a_change_to_its_vector(
    products: Connection, settings: Settings, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings.model_copy(update={"log_format": "json"}))
    try:
        with running(settings, database_url):
            products.execute("insert into products values ('old', 'apple')")
            assert fresh(products)
            with products.transaction():
                products.execute("update products set title = 'pear' where id = 'old'")
                change = products.execute(
                    "select id, captured_at from dynrec_data.change where kind = 'item'"
                ).fetchone()
            assert change is not None
            assert fresh(products)
    finally:
        logging.basicConfig(force=True)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    batches = [line for line in lines if line["event"] == "batch_published" and line["kind"] == "item"]
    (found,) = [line for line in batches if line["first_change"] <= change[0] <= line["last_change"]]
    assert (found["recommender"], found["entities"], found["published"], found["failed"]) == ("shop", 1, 1, 0)
    assert found["captured_at"] == change[1].isoformat()
    assert found["lag_ms"] >= found["ms"]
    assert len({line["lease"] for line in batches}) == len(batches)
