"""Load: thousands of changes a second, in bulk and one by one, with readers, workers and a quiet recommender beside."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import psutil
from psycopg import sql

from dynrec_store import database
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench.measure import Figure, p50
from workers.bench.place import bench_database, url_of
from workers.bench.report import progress
from workers.inprocess import running

STORM, QUIET, PLAIN = "storm", "quiet", "plain"  # schemas with the same tables; plain ones are not watched
SMALL = 200  # rows of the quiet recommender
TICK = 0.05  # seconds between bursts
BULK = 0.5  # the share of the changes that come in statements of many rows
READERS = 2
PATIENCE = timedelta(minutes=10)

_TABLES: LiteralString = """
    create schema {schema};
    create table {schema}.items (id bigint primary key, title text not null, price numeric not null);
    create table {schema}.events (
      id bigint generated always as identity primary key, user_id bigint not null, item_id bigint not null,
      occurred_at timestamptz not null default now());
    create index on {schema}.events (user_id);
    create index on {schema}.events (item_id);
    insert into {schema}.items select n, 'item ' || n, n %% 100 from generate_series(1, %(rows)s) n
"""
_DECLARE: LiteralString = """
    select dynrec.create_recommender(name => %(name)s, items => %(name)s || '.items', text_columns => '{title}',
      interactions => %(name)s || '.events', encoder => 'hashing')
"""
_BULK: LiteralString = """
    with moved as (
      update {schema}.items set title = 'item ' || id || ' of ' || %(number)s
      where id = any (array(select 1 + (%(number)s * 7919 + n) %% %(rows)s from generate_series(1, %(half)s) n))
    )
    insert into {schema}.events (user_id, item_id)
    select 1 + (%(number)s + n) %% 1000, 1 + (%(number)s + n * 31) %% %(rows)s from generate_series(1, %(half)s) n
"""
_SINGLE: LiteralString = "insert into {schema}.events (user_id, item_id) values (%s, %s)"
_READ: LiteralString = "select count(*) from dynrec.recommend('storm', %s, 10)"
_RENAME: LiteralString = "update {schema}.items set title = %s where id = 1"
_MADE: LiteralString = """
    select max(v.created_at) from dynrec_data.item_vector v
    join dynrec_data.recommender r on r.active_model_id = v.model_id where r.name = %s and v.item_id = '1'
"""
_BACKLOG: LiteralString = "select count(*), pg_total_relation_size('dynrec_data.change') from dynrec_data.change"


@dataclass
class _Storm:
    """What happened in one storm."""

    changes: int = 0  # written
    seconds: float = 0.0  # of writing
    lists: int = 0  # read meanwhile
    backlog: int = 0  # most changes that waited
    queue_bytes: int = 0  # largest size of the table of changes with its indexes
    memory: int = 0  # bytes of the workers' process at the end
    drain_seconds: float = 0.0  # until nothing waited any more
    quiet_lags: Sequence[float] = ()  # ms from a change of the quiet recommender to its vector
    own_lags: Sequence[float] = ()  # the same of the stormy one

    @property
    def rate(self) -> float:
        """Changes a second."""
        return self.changes / self.seconds


def load(settings: Settings, *, rows: int, rate: int, seconds: int, runs: int) -> list[Figure]:
    """Storms of `rate` changes a second for `seconds`.

    Each run has three: on plain tables, on watched ones while the workers pause, on watched ones as they work. Half of
    the changes come in statements of many rows, half of them one by one; two connections read lists all the time, and
    while the workers work an item of each recommender is renamed every half second by another connection. Dispatcher
    and workers run in this process. Raises DynrecError if a read is short, or what waits is not worked off in ten
    minutes.
    """
    with (
        bench_database(settings) as own,
        progress(f"load, {rate:,} changes a second", 3 * runs + 2) as advance,
        ExitStack() as stack,
    ):
        writer, reader = (stack.enter_context(_connected(own)) for _ in range(2))
        _set_up(writer, rows)
        stack.enter_context(running(own, url_of(own)))
        _work_off(writer, (STORM, QUIET))
        advance()
        idle = {name: _lags(own, name, 10, threading.Event()) for name in (STORM, QUIET)}
        advance()
        storms, captured, plain = [], [], []
        for _ in range(runs):
            plain.append(_read_and_write(own, writer, PLAIN, rows, rate, seconds))
            advance()
            captured.append(_captured(own, writer, rows, rate, seconds))
            advance()
            storms.append(_storm(own, writer, reader, rows, rate, seconds))
            advance()
    return _figures(storms, captured, plain, idle, rate)


def _captured(own: Settings, writer: Connection, rows: int, rate: int, seconds: int) -> _Storm:
    with translated_errors():
        writer.execute("select dynrec.pause('storm')")
    storm = _read_and_write(own, writer, STORM, rows, rate, seconds)
    with translated_errors():
        writer.execute("select dynrec.resume('storm')")
    _work_off(writer, (STORM,))
    return storm


def _read_and_write(own: Settings, writer: Connection, schema: str, rows: int, rate: int, seconds: int) -> _Storm:
    over = threading.Event()
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(_read, own, over) for _ in range(READERS)]
        storm = _write(writer, schema, rows, rate, seconds)
        over.set()
        storm.lists = sum(one.result() for one in readers)
    return storm


def _storm(own: Settings, writer: Connection, reader: Connection, rows: int, rate: int, seconds: int) -> _Storm:
    over = threading.Event()
    with ThreadPoolExecutor(READERS + 3) as pool:
        readers = [pool.submit(_read, own, over) for _ in range(READERS)]
        lags = [pool.submit(_lags, own, name, 10_000, over) for name in (QUIET, STORM)]
        watch = pool.submit(_watch, reader, over)
        storm = _write(writer, STORM, rows, rate, seconds)
        over.set()
        storm.lists = sum(one.result() for one in readers)
        storm.quiet_lags, storm.own_lags = (one.result() for one in lags)
        storm.backlog, storm.queue_bytes = watch.result()
    started = time.monotonic()
    _work_off(writer, (STORM, QUIET))
    storm.drain_seconds = time.monotonic() - started
    storm.memory = psutil.Process().memory_info().rss
    return storm


def _write(connection: Connection, schema: str, rows: int, rate: int, seconds: int) -> _Storm:
    """Bursts of changes, each when it is due; one that comes late makes the next no smaller."""
    storm = _Storm()
    bulk = sql.SQL(_BULK).format(schema=sql.Identifier(schema))
    single = sql.SQL(_SINGLE).format(schema=sql.Identifier(schema))
    half = max(1, int(rate * TICK * BULK / 2))
    alone = max(1, int(rate * TICK * (1 - BULK)))
    started = time.monotonic()
    with translated_errors():
        for number in range(int(seconds / TICK)):
            connection.execute(bulk, {"number": number, "rows": rows, "half": half}, prepare=True)
            with connection.pipeline():
                for n in range(alone):
                    connection.execute(single, [1 + (number * 37 + n) % 1000, 1 + (number + n) % rows], prepare=True)
            storm.changes += 2 * half + alone
            time.sleep(max(0.0, started + (number + 1) * TICK - time.monotonic()))
    storm.seconds = time.monotonic() - started
    return storm


def _read(own: Settings, over: threading.Event) -> int:
    """Lists of one user after the other; how many."""
    read = 0
    with _connected(own) as connection, translated_errors():
        while not over.is_set():
            read += 1
            if connection.execute(_READ, [str(read % 1000 + 1)], prepare=True).fetchone() != (10,):
                raise DynrecError("a list of fewer than 10 items was read")
    return read


def _watch(connection: Connection, over: threading.Event) -> tuple[int, int]:
    """The most changes that waited, and the largest size of their table."""
    most, size = 0, 0
    with translated_errors():
        while not over.wait(0.5):
            row = connection.execute(_BACKLOG).fetchone()
            assert row is not None  # noqa: S101 - an aggregate has one row
            most, size = max(most, int(str(row[0]))), max(size, int(str(row[1])))
    return most, size


def _lags(own: Settings, name: str, samples: int, over: threading.Event) -> list[float]:
    """ms from renaming item 1 to its new vector, every half second."""
    lags: list[float] = []
    rename = sql.SQL(_RENAME).format(schema=sql.Identifier(name))
    with _connected(own) as connection, translated_errors():
        while len(lags) < samples and not over.wait(0.5):
            before = connection.execute(_MADE, [name]).fetchone()
            connection.execute(rename, [f"renamed {time.time()}"])
            started = time.monotonic()
            while connection.execute(_MADE, [name], prepare=True).fetchone() == before:
                if time.monotonic() - started > PATIENCE.total_seconds():
                    raise DynrecError(f"a change of {name} has waited for {PATIENCE}")
                time.sleep(0.002)
            lags.append(1000 * (time.monotonic() - started))
    return lags


def _work_off(connection: Connection, names: Sequence[str]) -> None:
    for name in names:
        with translated_errors():
            done = connection.execute("select dynrec.wait_until_fresh(%s, %s)", [name, PATIENCE]).fetchone()
        if done != (True,):
            raise DynrecError(f"{name} was not worked off in {PATIENCE}")


def _set_up(connection: Connection, rows: int) -> None:
    with translated_errors():
        for schema, size in ((STORM, rows), (QUIET, SMALL), (PLAIN, rows)):
            for statement in _TABLES.split(";"):
                connection.execute(sql.SQL(statement).format(schema=sql.Identifier(schema)), {"rows": size})
        for name in (STORM, QUIET):
            connection.execute(_DECLARE, {"name": name})
        connection.execute("vacuum analyze")


@contextmanager
def _connected(own: Settings) -> Iterator[Connection]:
    with database.connect(url_of(own), application_name="dynrec bench") as connection:
        yield connection


def _figures(
    storms: Sequence[_Storm],
    captured: Sequence[_Storm],
    plain: Sequence[_Storm],
    idle: dict[str, list[float]],
    rate: int,
) -> list[Figure]:
    first = storms[0]
    about = f"{rate:,} changes a second asked for"
    read = " / ".join(f"{sum(storm.lists for storm in of):,}" for of in (captured, storms, plain))

    def each(value: Callable[[_Storm], float], of: Sequence[_Storm] = storms) -> tuple[float, ...]:
        return tuple(value(storm) for storm in of)

    return [
        *(
            Figure(
                f"load, writing, workers {workers}",
                f"{about}, against plain tables; lists read meanwhile (pausing / working / plain): {read}",
                each(lambda storm: storm.rate, of),
                each(lambda storm: storm.rate, plain),
                unit="changes/s",
                higher_is_better=True,
                target=0.9,
            )
            for workers, of in (("pausing", captured), ("working", storms))
        ),
        Figure(
            "load, working off",
            f"seconds until all of up to {max(storm.backlog for storm in storms):,} waiting changes were done, "
            "against those of the storm",
            each(lambda storm: storm.drain_seconds),
            each(lambda storm: storm.seconds),
            unit="s",
            higher_is_better=False,
            target=None,
        ),
        *(
            Figure(
                f"load, freshness of {whose}",
                "commit to new vector during the storm, against before it",
                each(lambda storm, lags=lags: p50(lags(storm))),  # type: ignore[misc]
                tuple(p50(idle[name]) for _ in storms),
                unit="ms",
                higher_is_better=False,
                target=None,
            )
            for whose, name, lags in (
                ("the other recommender", QUIET, lambda storm: storm.quiet_lags),
                ("a change amid the storm", STORM, lambda storm: storm.own_lags),
            )
        ),
        Figure(
            "load, size of the queue",
            "largest size of the table of changes in each storm, against the first",
            each(lambda storm: storm.queue_bytes / 2**20),
            tuple(first.queue_bytes / 2**20 for _ in storms),
            unit="MiB",
            higher_is_better=False,
            target=None,
        ),
        Figure(
            "load, memory",
            "of the process with dispatcher and workers after each storm, against the first",
            each(lambda storm: storm.memory / 2**20),
            tuple(first.memory / 2**20 for _ in storms),
            unit="MiB",
            higher_is_better=False,
            target=None,
        ),
    ]
