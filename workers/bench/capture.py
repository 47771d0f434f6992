"""Writing: single-row updates and inserts on tables that a recommender watches, beside tables that none does."""

from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.background import Background
from workers.bench.measure import Figure, in_turn
from workers.bench.pgbench import transactions_per_second
from workers.bench.place import bench_database, url_of
from workers.bench.report import progress
from workers.celery_app import MEMORY, make_app
from workers.dispatcher import Dispatcher

WATCHED, PLAIN = "watched", "plain"  # schemas with the same tables

_TABLES: LiteralString = """
    create table {schema}.items (id bigint primary key, title text not null, price numeric not null);
    create table {schema}.events (
      id bigint generated always as identity primary key, user_id bigint not null, item_id bigint not null,
      kind text not null, occurred_at timestamptz not null default now());
    create index on {schema}.events (user_id);
    create index on {schema}.events (item_id);
"""

_DECLARE: LiteralString = """
    select dynrec.create_recommender(name => 'bench', items => 'watched.items', text_columns => '{title}',
      numeric_columns => '{price}', interactions => 'watched.events', kind_column => 'kind', encoder => 'hashing')
"""

_FILL: LiteralString = """
    insert into {schema}.items select n, 'item ' || n, n %% 100 from generate_series(1, %(rows)s) n
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


def capture(settings: Settings, *, rows: int, clients: int, seconds: int, runs: int) -> list[Figure]:
    """Transactions per second with capture on and a dispatcher at the queue, against neither of them.

    The dispatcher runs in this process, on the same machine. Workers do not: what they compute is no part of
    writing, and elsewhere they have their own processors. So the queue grows while it is measured.
    """
    with bench_database(settings) as own, progress("capture", 2 * runs) as advance:
        with queue.connect(url_of(own), application_name="dynrec bench") as connection:
            _make_tables(connection, rows)
        figures = []
        for name, script in (("capture, updates", _UPDATE), ("capture, inserts", _INSERT)):
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
                    name,
                    f"{clients} clients, one row each time, dispatcher listening, against a table without capture",
                    *in_turn(runs, partial(_watched, own, run), partial(run, schema=PLAIN), advance),
                    unit="tps",
                    higher_is_better=True,
                    target=0.9,
                )
            )
        return figures


def _watched(settings: Settings, run: partial[float]) -> float:
    dispatcher = Dispatcher(settings, url_of(settings), make_app(settings.model_copy(update={"broker_url": MEMORY})))
    with Background("dispatcher", dispatcher.run, stop=dispatcher.stop):
        return run(schema=WATCHED)


def _make_tables(connection: Connection, rows: int) -> None:
    with translated_errors():
        for schema in (WATCHED, PLAIN):
            name = sql.Identifier(schema)
            connection.execute(sql.SQL("create schema {}").format(name))
            connection.execute(sql.SQL(_TABLES).format(schema=name))
            connection.execute(sql.SQL(_FILL).format(schema=name), {"rows": rows})
        connection.execute(_DECLARE)
        connection.execute("vacuum analyze")
    while queue.run_task(connection) is not None:
        pass
