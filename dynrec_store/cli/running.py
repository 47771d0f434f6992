"""dynrec up, dispatcher, worker, demo, bench: what runs for long. The programs are in `workers`, loaded when called."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Annotated

import typer

from dynrec_store import database, migrate
from dynrec_store.cli.options import (
    BatchSize,
    BrokerUrl,
    DatabaseUrl,
    DataDir,
    Device,
    KafkaBrokers,
    KafkaTopic,
    LeaseSeconds,
    LogFormat,
    LogLevel,
    Precision,
    settings_of,
)
from dynrec_store.cli.output import out, say, working
from dynrec_store.extras import load_extra
from dynrec_store.logs import configure_logging
from dynrec_store.target import target_database

EXAMPLES = """\
Connect with:
  psql '{url}'
Declare a recommender over your tables, and ask it:
  select * from dynrec.create_recommender('shop', items => 'public.product', text_columns => '{{title,description}}',
    interactions => 'public.purchase');
  select * from dynrec.recommend('shop', 'a user', k => 10);
  select * from dynrec.status;
"""


def up(
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    device: Device = None,
    precision: Precision = None,
    batch_size: BatchSize = None,
    lease_seconds: LeaseSeconds = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Start everything in this process: PostgreSQL if no database is given, dispatcher and worker.

    Ctrl-c stops it; the data stay.
    """
    settings = settings_of(
        database_url=database_url,
        data_dir=data_dir,
        device=device,
        precision=precision,
        batch_size=batch_size,
        lease_seconds=lease_seconds,
        log_level=log_level,
        log_format=log_format,
    )
    running = load_extra("workers.inprocess:running", "worker")
    configure_logging(settings)
    with terminable(), ExitStack() as started:
        with working("Starting PostgreSQL" if settings.database_url is None else "Connecting"):
            url = started.enter_context(target_database(settings, create=True))
        with working("Migrating"):
            migrate.upgrade(url)
        with working("Starting"):
            started.enter_context(running(settings, url, preload=True))
        with suppress(KeyboardInterrupt):
            # the password of the embedded server is known from here alone
            shown = url if settings.database_url is None else database.without_password(url)
            out().print(EXAMPLES.format(url=shown), markup=False, soft_wrap=True)
            say("Running. Ctrl-c stops it; the data stay.")
            threading.Event().wait()
        say("Stopping …")


def dispatcher(
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Look at the queue in the database and tell the workers when there is work."""
    settings = settings_of(
        database_url=database_url,
        data_dir=data_dir,
        broker_url=broker_url,
        log_level=log_level,
        log_format=log_format,
    )
    load_extra("workers.dispatcher:run_dispatcher", "dispatcher")(settings)


def stream(
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Read the replication slot, for recommenders with the option capture set to stream."""
    settings = settings_of(database_url=database_url, data_dir=data_dir, log_level=log_level, log_format=log_format)
    load_extra("workers.stream:run_stream", "worker")(settings)


def publish(
    kafka_brokers: KafkaBrokers = None,
    kafka_topic: KafkaTopic = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Tell others through Kafka which vectors changed, of recommenders with the option publish."""
    settings = settings_of(
        kafka_brokers=kafka_brokers,
        kafka_topic=kafka_topic,
        database_url=database_url,
        data_dir=data_dir,
        log_level=log_level,
        log_format=log_format,
    )
    load_extra("workers.publisher:run_publisher", "kafka")(settings)


def worker(
    queues: Annotated[
        str,
        typer.Option(
            help="Which work to take: encode, maintenance, train, or several of them.", envvar="DYNREC_QUEUES"
        ),
    ] = "encode,maintenance,train",
    concurrency: Annotated[
        int, typer.Option(min=1, help="Threads that work at once.", envvar="DYNREC_CONCURRENCY")
    ] = 2,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    device: Device = None,
    precision: Precision = None,
    batch_size: BatchSize = None,
    lease_seconds: LeaseSeconds = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Recompute vectors when the dispatcher says that there is work."""
    settings = settings_of(
        database_url=database_url,
        data_dir=data_dir,
        broker_url=broker_url,
        device=device,
        precision=precision,
        batch_size=batch_size,
        lease_seconds=lease_seconds,
        log_level=log_level,
        log_format=log_format,
    )
    load_extra("workers.worker:run_worker", "worker")(settings, queues.split(","), concurrency)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running until ctrl-c.", envvar="DYNREC_KEEP")
    ] = False,
    load: Annotated[
        bool,
        typer.Option(
            "--load",
            help="Only put the demo's shop into the database of DYNREC_DATABASE_URL; its workers do the rest.",
            envvar="DYNREC_LOAD",
        ),
    ] = False,
    households: Annotated[
        int | None,
        typer.Option(
            min=1, envvar="DYNREC_HOUSEHOLDS", help="Take the purchases of so many households only.", show_default="all"
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Show what dynrec does, on the purchases of a grocer, from nothing.

    It has a PostgreSQL of its own, in the folder demo below the data folder.
    """
    settings = settings_of(data_dir=data_dir, device=device, precision=precision)
    if load:
        say(load_extra("workers.demo.loading:load_demo", "demo")(settings, households))
        return
    run_demo = load_extra("workers.demo:run_demo", "demo")
    with terminable():
        run_demo(settings, keep=keep, households=households)


def bench(ctx: typer.Context) -> None:
    """Measure: `dynrec bench --help` lists the benchmarks."""
    load_extra("workers.bench:app", "worker")(args=ctx.args, prog_name="dynrec bench")


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as ctrl-c does: everything that was started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
