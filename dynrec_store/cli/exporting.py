"""dynrec metrics: the exporter for Prometheus."""

from typing import Annotated

import typer

from dynrec_store.cli.options import DatabaseUrl, DataDir, LogFormat, LogLevel, settings_of
from dynrec_store.cli.output import quoted, say
from dynrec_store.cli.running import terminable
from dynrec_store.extras import load_extra
from dynrec_store.logs import configure_logging
from dynrec_store.target import target_database

LARGEST_PORT = 65_535


def metrics(
    listen: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", envvar="DYNREC_METRICS_LISTEN", help="Where to answer; 0.0.0.0:9464 for everybody."
        ),
    ] = "127.0.0.1:9464",
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Answer Prometheus: /metrics, and /healthz, which says whether the database can be reached."""
    host, port = _address(listen)
    settings = settings_of(database_url=database_url, data_dir=data_dir, log_level=log_level, log_format=log_format)
    make_server = load_extra("dynrec_store.exporter:make_server", "metrics")
    configure_logging(settings)
    with terminable(), target_database(settings) as url, make_server(url, host, port) as server:
        say(f"Metrics at http://{host}:{server.server_port}/metrics. Ctrl-c stops it.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Stopping …")


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (_is_host(host) and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= LARGEST_PORT):
        raise typer.BadParameter(f"{quoted(listen)} is not HOST:PORT, such as 127.0.0.1:9464", param_hint="'--listen'")
    return host, int(port)


def _is_host(host: str) -> bool:
    try:
        return bool(host.encode("idna")) and host.isprintable()
    except UnicodeError:
        return False
