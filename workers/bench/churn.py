"""Churn: what dynrec.recommend finds, and how fast, after every vector was replaced, beside a freshly built index."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import Catalogue
from workers.bench.measure import Figure, medians_in_turn, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress
from workers.maintenance import build_indexes

NAME = "churn"
LOOKS = 4  # at recall in a round
PAUSE = 0.5  # seconds between two looks of the maintenance; a dispatcher takes 3

_READ: LiteralString = "select item_id from dynrec.recommend(%s, %s, 10)"

# Ordered by an expression that no index has: exact.
_EXACT: LiteralString = """
    with query as materialized (select dynrec.user_vector_at(%(name)s, %(user)s) as embedding)
    select v.item_id from {vectors} v, query q
    where v.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
    order by -(v.embedding <#> q.embedding) desc limit 10
"""

_FRESH: LiteralString = "churn_fresh"
_COPY: LiteralString = "select replace(pg_get_indexdef(%s::regclass), %s, %s)"
_SIZE: LiteralString = "select pg_relation_size(%s::regclass)"
_FLUSH: LiteralString = "select pg_stat_force_next_flush()"
_DUE: LiteralString = """
    select coalesce(max(v.not_before) > clock_timestamp(), false) from dynrec_data.vector_index v
"""


@dataclass
class Upkeep:
    """What the maintenance has done beside the writes."""

    seconds: float = 0.0


def churn(
    settings: Settings, *, items: int, dimension: int, users: int, portion: int, runs: int, rounds: Sequence[int]
) -> list[Figure]:
    """Recall and p50 after each of `rounds`, in which vectors are replaced `portion` by portion, maintenance beside.

    Recall is taken while the storm goes on as well, the lowest counts; the rest after a rebuild that was due. The
    fresh index is built over the same vectors, and each of the two is dropped for the length of a transaction in
    which the other is measured.
    """
    steps = catalogue.steps(items) + max(rounds) * -(-items // portion) + runs * len(rounds)
    with (
        bench_database(settings) as own,
        progress(f"churn, {items:,} items", steps) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
    ):
        names = [f"user {number}" for number in range(users)]
        where = catalogue.make(connection, NAME, items, names, advance, dimension=dimension)
        figures: list[Figure] = []
        looks: list[float] = []
        upkeep, began = Upkeep(), time.monotonic()
        for number in range(1, max(rounds) + 1):
            with _maintenance(url_of(own), upkeep):
                looks += _replace_all(connection, where, dimension, number, portion, names, advance)
            if number in rounds:
                upkeep.seconds += _catch_up(connection)
                figures += _during(number, min(looks), upkeep.seconds, time.monotonic() - began)
                figures += _after(connection, where, number, names, runs, advance)
                looks.clear()
                upkeep, began = Upkeep(), time.monotonic()
        return figures


@contextmanager
def _maintenance(url: str, upkeep: Upkeep) -> Iterator[None]:
    """A worker of the queue maintenance, as far as indexes are concerned."""
    stop = threading.Event()

    def work() -> None:
        with queue.connect(url, application_name="dynrec bench maintenance") as connection:
            while not stop.wait(PAUSE):
                took = seconds(lambda: build_indexes(connection))
                upkeep.seconds += took if took > PAUSE / 5 else 0  # to look costs next to nothing

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _replace_all(
    connection: Connection,
    where: Catalogue,
    dimension: int,
    number: int,
    portion: int,
    users: Sequence[str],
    advance: Advance,
) -> list[float]:
    """Replace every vector once; the recall at several times meanwhile."""
    looks: list[float] = []
    portions = -(-where.items // portion)
    for done, (ids, vectors) in enumerate(catalogue.other_vectors(where.items, dimension, number, portion), 1):
        catalogue.replace_some(connection, where, ids, vectors, lambda: None)
        if done * LOOKS // portions > (done - 1) * LOOKS // portions:
            looks.append(_recall(connection, where, users))
        advance()
    return looks


def _catch_up(connection: Connection) -> float:
    """The rebuild that is due when the pause after the last one is over; the seconds that it took."""
    with translated_errors():
        connection.execute(_FLUSH)
        while connection.execute(_DUE).fetchone() == (True,):
            connection.execute("select pg_sleep(0.2)")
    return seconds(lambda: build_indexes(connection))


def _during(number: int, worst: float, upkeep: float, took: float) -> Iterator[Figure]:
    yield Figure(
        f"recall@10 at worst, until {number}x",
        "while vectors were replaced without a pause, the index rebuilt when that was due",
        (worst,),
        (1.0,),
        unit="",
        higher_is_better=True,
        target=None,
    )
    yield Figure(
        f"maintenance, until {number}x",
        "seconds of rebuilds and vacuums against all, until the last rebuild that was due",
        (upkeep,),
        (took,),
        unit="s",
        higher_is_better=False,
        target=None,
    )


def _after(
    connection: Connection, where: Catalogue, number: int, users: Sequence[str], runs: int, advance: Advance
) -> Iterator[Figure]:
    churned = f"dynrec_data.item_vector_{where.model_version}_hnsw"
    yield Figure(
        f"recall@10, replaced {number}x",
        f"dynrec.recommend against exact search, mean of {len(users)} users",
        (_recall(connection, where, users),),
        (1.0,),
        unit="",
        higher_is_better=True,
        target=0.95,
    )
    fresh = f"dynrec_data.{_FRESH}"
    with translated_errors():
        connection.execute(_text(connection, _COPY, churned, churned.partition(".")[2], _FRESH).encode())
        yield Figure(
            f"index, replaced {number}x",
            "bytes against those of the fresh index",
            (float(_text(connection, _SIZE, churned)),),
            (float(_text(connection, _SIZE, fresh)),),
            unit="bytes",
            higher_is_better=False,
            target=None,
        )
        yield _latency(connection, where, number, users, runs, (churned, fresh), advance)
        connection.execute(sql.SQL("drop index dynrec_data.{}").format(sql.Identifier(_FRESH)))


def _latency(
    connection: Connection,
    where: Catalogue,
    number: int,
    users: Sequence[str],
    runs: int,
    indexes: tuple[str, str],
    advance: Advance,
) -> Figure:
    ours: list[float] = []
    fresh: list[float] = []
    for run in range(runs):
        # ours is measured without the fresh index, the second of the two
        for times, other in ((ours, indexes[1]), (fresh, indexes[0]))[:: 1 if run % 2 else -1]:
            times.append(_p50_without(connection, where, users, other))
        advance()
    return Figure(
        f"recommend, replaced {number}x",
        "p50 against that of the fresh index over the same vectors",
        tuple(ours),
        tuple(fresh),
        unit="ms",
        higher_is_better=False,
        target=1.3,
    )


def _p50_without(connection: Connection, where: Catalogue, users: Sequence[str], index: str) -> float:
    """p50 in ms of recommend, an index out of the way."""
    schema, _, name = index.partition(".")
    with translated_errors(), connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("drop index {}").format(sql.Identifier(schema, name)))
        calls = [partial(_ours, connection, where, user) for user in users]
        for call in calls:  # plans are made anew
            call()
        (p50,), _ = medians_in_turn(1, [(call, call) for call in calls], lambda: None)
    return p50


def _recall(connection: Connection, where: Catalogue, users: Sequence[str]) -> float:
    statement = sql.SQL(_EXACT).format(vectors=where.vectors, events=where.events)
    with translated_errors():
        found = [
            len(
                set(_ours(connection, where, user))
                & set(connection.execute(statement, {"name": where.name, "user": user}).fetchall())
            )
            for user in users
        ]
    return sum(found) / (10 * len(found))


def _ours(connection: Connection, where: Catalogue, user: str) -> list[tuple[object, ...]]:
    return connection.execute(_READ, [where.name, user], prepare=True).fetchall()


def _text(connection: Connection, statement: LiteralString, *arguments: object) -> str:
    row = connection.execute(statement, arguments).fetchone()
    assert row is not None  # noqa: S101 - a select without from has one row
    return str(row[0])
