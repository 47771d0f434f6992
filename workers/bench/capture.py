"""Writing: single-row updates and inserts on tables that a recommender watches, beside tables that none does."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.background import Background
from workers.bench.measure import Figure, in_turn
from workers.bench.pgbench import transactions_per_second
from workers.bench.place import bench_database, url_of
from workers.bench.report import progress
from workers.celery_app import MEMORY, make_app
from workers.dispatcher import Dispatcher
from workers.stream import Stream

WATCHED, PLAIN = "watched", "plain"  # schemas with the same tables
PATIENCE = 60.0  # seconds for the stream to begin, or to have read what was written before

_TABLES: LiteralString = """
    create schema {schema};
    create table {schema}.items (id bigint primary key, title text not null, price numeric not null);
    create table {schema}.events (
      id bigint generated always as identity primary key, user_id bigint not null, item_id bigint not null,
      kind text not null, occurred_at timestamptz not null default now());
    create index on {schema}.events (user_id);
    create index on {schema}.events (item_id);
"""

_FILL: LiteralString = """
    insert into {schema}.items select n, 'item ' || n, n %% 100 from generate_series(1, %(rows)s) n
"""

_DECLARE: LiteralString = """
    select dynrec.create_recommender(name => %(name)s, items => %(name)s || '.items', text_columns => '{title}',
      numeric_columns => '{price}', interactions => %(name)s || '.events', kind_column => 'kind', encoder => 'hashing',
      options => jsonb_build_object('capture', %(capture)s::text))
"""

_UPDATE = """
\\set id random(1, :rows)
\\set price random(1, 1000000)
update items set title = 'item ' || :price, price = :price where id = :id;
"""

_INSERT = """
\\set user random(1, :rows)
\\set item random(1, :rows)
insert into events (user_id, item_id, kind) values (:user, :item, 'view');
"""

Run = Callable[[], float]  # transactions per second


def capture(settings: Settings, *, rows: int, clients: int, seconds: int, runs: int) -> list[Figure]:
    """Transactions per second with each way of capture on and a dispatcher at the queue, against neither of them.

    Dispatcher and stream run in this process, on the same machine. Workers do not: what they compute is no part of
    writing, and elsewhere they have their own processors. So the queue grows while it is measured. Without
    `wal_level = logical` the stream is left out.
    """
    with bench_database(settings) as own, ExitStack() as stack:
        connection = stack.enter_context(queue.connect(url_of(own), application_name="dynrec bench"))
        ways: dict[str, str] = {"incremental": WATCHED, "batch": "batched"}
        if _may_stream(connection):
            ways["stream"] = "streamed"
        make_tables(connection, rows, {PLAIN: None, **{schema: way for way, schema in ways.items()}})
        stack.callback(_end_stream, own, connection)
        advance = stack.enter_context(progress("capture", 2 * len(ways) * runs))
        figures = []
        for way, schema in ways.items():
            for name, script in (("updates", _UPDATE), ("inserts", _INSERT)):
                run = partial(
                    transactions_per_second,
                    url_of(own),
                    script,
                    clients=clients,
                    seconds=seconds,
                    variables={"rows": rows},
                )
                figures.append(
                    Figure(
                        f"capture, {name}" + {"incremental": "", "batch": ", batch", "stream": ", stream"}[way],
                        f"{clients} clients, one row each time, dispatcher listening, against a table without capture",
                        *in_turn(
                            runs,
                            partial(_watched, own, connection, way, partial(run, schema=schema)),
                            partial(run, schema=PLAIN),
                            advance,
                        ),
                        unit="tps",
                        higher_is_better=True,
                        target=0.9,
                    )
                )
        return figures


def make_tables(connection: Connection, rows: int, capture_of: Mapping[str, str | None]) -> None:
    """The same tables in each schema, watched by a recommender of its name that captures so (None: by none)."""
    with translated_errors():
        for schema, way in capture_of.items():
            name = sql.Identifier(schema)
            connection.execute(sql.SQL(_TABLES).format(schema=name))
            connection.execute(sql.SQL(_FILL).format(schema=name), {"rows": rows})
            if way == "stream":
                connection.execute(sql.SQL("alter table {}.events replica identity full").format(name))
            if way is not None:
                connection.execute(_DECLARE, {"name": schema, "capture": way})
        connection.execute("vacuum analyze")
    while queue.run_task(connection) is not None:
        pass


def _watched(settings: Settings, connection: Connection, way: str, run: Run) -> float:
    dispatcher = Dispatcher(settings, url_of(settings), make_app(settings.model_copy(update={"broker_url": MEMORY})))
    with ExitStack() as stack:
        if way == "stream":
            stack.enter_context(_streaming(settings, connection))
        stack.enter_context(Background("dispatcher", dispatcher.run, stop=dispatcher.stop))
        return run()


@contextmanager
def _streaming(settings: Settings, connection: Connection) -> Iterator[None]:
    """The stream beside, which has read what was written before: that is not to be measured."""
    stream = Stream(url_of(settings))
    with Background("stream", stream.run, stop=stream.stop):
        (written,) = connection.execute("select pg_current_wal_lsn()").fetchone() or (None,)
        _wait_for(
            connection,
            "select coalesce(bool_or(confirmed_flush_lsn >= %s), false) from pg_replication_slots "
            "where database = current_database()",
            [written],
        )
        yield


def _may_stream(connection: Connection) -> bool:
    return connection.execute("show wal_level").fetchone() == ("logical",)


def _end_stream(settings: Settings, connection: Connection) -> None:
    """Have the stream drop its slot: a database that has one cannot be dropped."""
    if not _may_stream(connection):
        return
    stream = Stream(url_of(settings))
    with Background("stream", stream.run, stop=stream.stop):
        connection.execute("select dynrec.drop_recommender('streamed')")
        _wait_for(
            connection, "select not exists (select from pg_replication_slots where database = current_database())", []
        )


def _wait_for(connection: Connection, question: LiteralString, arguments: list[object]) -> None:
    until = time.monotonic() + PATIENCE
    while connection.execute(question, arguments).fetchone() != (True,):
        if time.monotonic() > until:
            raise DynrecError(f"the stream has not come so far in {PATIENCE:.0f} s")
        time.sleep(0.05)
