"""The exporter of metrics: what the view dynrec.metrics says, over HTTP, in the format of Prometheus.

It keeps nothing: every scrape is one query, and counters live in the database, so that it may be restarted at will.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dynrec_store import database
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DatabaseError

APPLICATION = "dynrec-metrics"
STATEMENT_SECONDS = 10  # a scrape that takes longer is given up: the next one comes anyway

Application: TypeAlias = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]
Rows: TypeAlias = list[tuple[str, dict[str, object], float | None]]

log = structlog.get_logger(__name__)


class DatabaseMetrics(Collector):
    """The metrics of one database, asked for at every scrape."""

    def __init__(self, url: str) -> None:
        self._url = url

    def collect(self) -> Iterator[Metric]:
        """Every metric; of a database that is away, that it is."""
        started = time.monotonic()
        try:
            catalogue, rows = self._read()
        except DatabaseError as error:
            log.warning("scrape_failed", reason=str(error))
            yield GaugeMetricFamily("dynrec_up", UP, value=0)
            return
        yield GaugeMetricFamily("dynrec_up", UP, value=1)
        yield GaugeMetricFamily("dynrec_scrape_seconds", SCRAPE, value=time.monotonic() - started)
        yield from _families(catalogue, rows)

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on the database, which may be away when the exporter starts."""
        return []

    def ask(self) -> None:
        """Raise a DatabaseError unless the database answers."""
        with database.connect(self._url, application_name=APPLICATION) as connection, translated_errors():
            connection.execute("select 1")

    def _read(self) -> tuple[list[tuple[str, str, str]], Rows]:
        with database.connect(self._url, application_name=APPLICATION) as connection, translated_errors():
            connection.execute("select set_config('statement_timeout', %s, false)", [f"{STATEMENT_SECONDS}s"])
            catalogue = connection.execute("select name, type, help from dynrec._metric_catalogue()").fetchall()
            rows = connection.execute("select name, labels, value from dynrec.metrics").fetchall()
        return catalogue, rows  # type: ignore[return-value]  # a row is as wide as its query


UP = "1 if the database answered."
SCRAPE = "How long the database took to answer."


def _families(catalogue: list[tuple[str, str, str]], rows: Rows) -> Iterator[Metric]:
    """The families of the catalogue with their samples, also those that have none now."""
    for name, kind, text in catalogue:
        # the library has counters named without the ending, and writes it
        family = Metric(name.removesuffix("_total"), text, kind)
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names = {name + ending for ending in endings}
        for sample, labels, value in rows:
            if sample in names and value is not None:
                family.add_sample(sample, {key: _label(label) for key, label in labels.items()}, float(value))
        yield family


def _label(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def application(url: str) -> Application:
    """The WSGI application: /metrics for Prometheus, /healthz for whoever starts it again."""
    metrics = DatabaseMetrics(url)
    registry = CollectorRegistry()
    registry.register(metrics)
    exposition = make_wsgi_app(registry)

    def healthz(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            metrics.ask()
        except DatabaseError as error:
            return _text(start, "503 Service Unavailable", str(error))
        return _text(start, "200 OK", "ok")

    def not_found(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return _text(start, "404 Not Found", "there are /metrics and /healthz")

    def route(environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        pages: dict[str, Application] = {"/metrics": exposition, "/healthz": healthz}
        return pages.get(environment.get("PATH_INFO", ""), not_found)(environment, start)

    return route


def _text(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base names it so
        """Scrapes come every few seconds: the log is for what goes wrong."""


def make_server(url: str, host: str, port: int) -> WSGIServer:
    """A server that listens; port 0 is any that is free. `serve_forever` answers until `shutdown`."""
    server = _Server((host, port), _Handler)
    server.set_app(application(url))
    return server
