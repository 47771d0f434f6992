"""Scale: bytes and times of catalogues of several sizes, each in a database of its own."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import LiteralString

import psutil
import psycopg
from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import Catalogue
from workers.bench.measure import Measure, p50, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

USERS = 2000  # each with EVENTS events
CALLS = 200  # of recommend, each for another user
CHANGED = 10_000  # items that get another vector, at most
NAME = "scale"

# A table with its indexes, all its partitions counted in; `named` is a pattern.
_BYTES: LiteralString = """
    select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
    where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind = 'r' and c.relname ~ %s
"""
_HNSW: LiteralString = "select pg_relation_size(format('dynrec_data.item_vector_%%s_hnsw', %s::int)::regclass)"
_CHANGE: LiteralString = """
    update {schema}.items i set embedding = other.embedding
    from {schema}.items other where other.id = (i.id + 1) %% %(items)s and i.id < %(changed)s
"""
_READ: LiteralString = "select count(*) from dynrec.recommend(%s, %s, 10)"


def scale(
    settings: Settings, *, items: Sequence[int], dimensions: Sequence[int], memory: str, helpers: int
) -> Iterator[Measure]:
    """Everything of each size in each dimension.

    The index is built with so much `memory`, and by so many `helpers` beside the process that is measured.
    """
    for dimension in dimensions:
        for size in items:
            steps = 2 * catalogue.steps(size) + 3
            with (
                bench_database(settings) as own,
                progress(f"scale, {size:,} items of {dimension}", steps) as advance,
                queue.connect(url_of(own), application_name="dynrec bench") as connection,
            ):
                _set_building(connection, memory, helpers)
                for name, value, unit, processor in _measure(connection, size, dimension, advance):
                    yield Measure(size, dimension, name, value, unit, processor)


def _set_building(connection: Connection, memory: str, helpers: int) -> None:
    with translated_errors():
        connection.execute("select set_config('maintenance_work_mem', %s, false)", [memory])
        connection.execute("select set_config('max_parallel_maintenance_workers', %s, false)", [str(helpers)])


Row = tuple[str, float, str, float | None]


def _measure(connection: Connection, items: int, dimension: int, advance: Advance) -> Iterator[Row]:
    made = catalogue.declare(connection, NAME, items, dimension, advance)
    queue.run_task(connection)  # the scan that queues every item
    yield "queue, a change", table_bytes(connection, "^change$") / items, "bytes", None
    taken, computed = timed(connection, lambda: catalogue.work_off(connection, made, advance))
    yield "publish, items", items / taken, "items/s", computed
    yield "vector of an item", table_bytes(connection, rf"^item_vector_{made.model_version}$") / items, "bytes", None
    yield "content of an item", table_bytes(connection, "^item_content$") / items, "bytes", None
    yield from _index(connection, made)
    yield from _users(connection, made, advance)
    yield from _history(connection, made, advance)


def _index(connection: Connection, made: Catalogue) -> Iterator[Row]:
    """The graph in the memory of its builder, if it did not fit; the time, and what is on disk."""
    fitting: list[int] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        if found := re.search(
            r"graph no longer fits into maintenance_work_mem after (\d+) tuples", str(notice.message_primary)
        ):
            fitting.append(int(found[1]))

    connection.add_notice_handler(listen)
    with translated_errors():
        limit = connection.execute("select pg_size_bytes(current_setting('maintenance_work_mem'))").fetchone()
        taken, computed = timed(connection, lambda: catalogue.tend_index(connection))
        size = connection.execute(_HNSW, [made.model_version]).fetchone()
    assert limit is not None  # noqa: S101 - both have one row
    assert size is not None  # noqa: S101
    if fitting:
        yield "index, in memory while built", int(str(limit[0])) / fitting[0], "bytes/item", None
    yield "index, building", taken, "s", computed
    yield "index, an item", int(str(size[0])) / made.items, "bytes", None


def _users(connection: Connection, made: Catalogue, advance: Advance) -> Iterator[Row]:
    users = [f"user {number}" for number in range(USERS)]
    catalogue.add_users(connection, made, users)
    taken, computed = timed(connection, lambda: catalogue.work_off(connection, made, advance))
    yield "publish, users", USERS / taken, "users/s", computed
    yield "vector of a user", table_bytes(connection, rf"^user_vector_{made.model_version}$") / USERS, "bytes", None
    with translated_errors():
        connection.execute("select pg_stat_force_next_flush()")
        times = [
            seconds(lambda user=user: connection.execute(_READ, [NAME, user], prepare=True).fetchone())  # type: ignore[misc]
            for user in users[:CALLS]
        ]
    yield "recommend, p50", 1000 * p50(times[CALLS // 10 :]), "ms", None


def _history(connection: Connection, made: Catalogue, advance: Advance) -> Iterator[Row]:
    """What a version costs that was replaced."""
    changed = min(CHANGED, made.items // 10)
    before = table_bytes(connection, "^item_vector_history")
    with translated_errors():
        connection.execute(
            sql.SQL(_CHANGE).format(schema=sql.Identifier(NAME)), {"items": made.items, "changed": changed}
        )
    catalogue.work_off(connection, made, advance)
    yield "history, a version", (table_bytes(connection, "^item_vector_history") - before) / changed, "bytes", None
    with translated_errors():
        connection.execute(
            """select * from dynrec.alter_recommender(%s, options => '{"publish": "changes"}')""", [NAME]
        )
    catalogue.work_off(connection, made, advance)
    told = made.items + USERS
    yield "outbox, an event", table_bytes(connection, "^outbox$") / told, "bytes", None


def table_bytes(connection: Connection, named: str) -> int:
    """Return the bytes of the tables of dynrec_data that a pattern names, with indexes and partitions."""
    with translated_errors():
        row = connection.execute(_BYTES, [named]).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return int(str(row[0]))


def timed(connection: Connection, call: Callable[[], object]) -> tuple[float, float | None]:
    """Seconds by the clock, and those that the server's process computed, which others on the machine do not move."""
    before = _processor(connection)
    taken = seconds(call)
    after = _processor(connection)
    return taken, after - before if before is not None and after is not None else None


def _processor(connection: Connection) -> float | None:
    try:
        process = psutil.Process(connection.info.backend_pid)
        times = process.cpu_times()
    except psutil.Error:
        return None
    return times.user + times.system if "postgres" in process.name() else None
