"""Freshness: from a commit to its new vector on an idle system, beside encoding one text and one commit."""

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import texts
from workers.bench.measure import Figure, p50, p99, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress
from workers.encoders import Encoder
from workers.inprocess import running

ITEMS = 1000
IDLE_SECONDS = 0.3  # between two changes: the dispatcher has gone to sleep again
LOOK_SECONDS = 0.0002  # between looks for the new vector
PATIENCE = 60.0  # seconds until a vector that does not come is an error
LOAD_TIMEOUT = timedelta(minutes=10)

_TABLES: LiteralString = """
    create table items (id bigint primary key, title text not null);
    create table plain (id bigint primary key, title text not null);
"""

_DECLARE: LiteralString = """
    select model_version
    from dynrec.create_recommender(name => 'bench', items => 'public.items', text_columns => '{title}')
"""


@dataclass(frozen=True)
class _System:
    """What a sample needs."""

    connection: Connection
    made_at: sql.Composed  # the statement that says when an item's vector was made
    encoder: Encoder


def freshness(settings: Settings, *, samples: int, runs: int) -> list[Figure]:
    """The time from a commit until another statement sees the new vector: p50 of each run, p99 of all samples.

    The reference encodes one such text, and commits one update of a table that nothing watches. The changes come
    one by one, with pauses in which everything falls asleep.
    """
    with (
        bench_database(settings) as own,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        running(own, url_of(own)) as context,
    ):
        made_at = _set_up(connection)
        encoder = context.encoder(queue.encoding(connection, "bench"))
        assert encoder is not None  # noqa: S101 - _DECLARE adopts no vectors
        with progress("freshness", samples * runs) as advance:
            taken = [_run(_System(connection, made_at, encoder), run, samples, advance) for run in range(runs)]
    ours = [[sample[0] for sample in run] for run in taken]
    theirs = [[sample[1] for sample in run] for run in taken]
    about = "commit to new vector visible, idle system, against encoding one text + one commit"
    return [
        Figure(
            "freshness, p50",
            about,
            tuple(map(p50, ours)),
            tuple(map(p50, theirs)),
            unit="ms",
            higher_is_better=False,
            target=1.5,
        ),
        Figure(
            "freshness, p99",
            about,
            (p99([sample for run in ours for sample in run]),),
            (p99([sample for run in theirs for sample in run]),),
            unit="ms",
            higher_is_better=False,
            target=None,
        ),
    ]


def _set_up(connection: Connection) -> sql.Composed:
    titles = texts.titles(ITEMS)
    with translated_errors():
        connection.execute(_TABLES)
        for table in ("items", "plain"):
            connection.execute(
                sql.SQL("insert into {} select n, t from unnest(%s::text[]) with ordinality u (t, n)").format(
                    sql.Identifier(table)
                ),
                [titles],
            )
        row = connection.execute(_DECLARE).fetchone()
        assert row is not None  # noqa: S101 - the function returns one row or raises
        fresh = connection.execute("select dynrec.wait_until_fresh('bench', %s)", [LOAD_TIMEOUT]).fetchone()
    if fresh != (True,):
        raise DynrecError(f"{ITEMS} items were not encoded in {LOAD_TIMEOUT}")
    time.sleep(5)  # the index is built after the backfill: an idle system has it
    return sql.SQL("select v.created_at from {} v where v.item_id = %s").format(
        sql.Identifier("dynrec_data", f"item_vector_{row[0]}")
    )


def _run(system: _System, run: int, samples: int, advance: Advance) -> list[tuple[float, float]]:
    """(measured, reference) in ms for each sample."""
    titles = texts.titles(2 * samples, seed=run + 1)
    taken = []
    for number in range(samples):
        time.sleep(IDLE_SECONDS)
        ours, theirs = f"{titles[2 * number]} run {run}", f"{titles[2 * number + 1]} run {run}"
        fresh = _until_visible(system, item=number % ITEMS + 1, title=ours)
        time.sleep(IDLE_SECONDS)
        plain = seconds(partial(_encode_and_commit, system, number % ITEMS + 1, theirs))
        taken.append((1000 * fresh, 1000 * plain))
        advance()
    return taken


def _until_visible(system: _System, item: int, title: str) -> float:
    """Seconds from the commit of a new title until its vector is there."""
    before = _made_at(system, item)
    system.connection.execute("update items set title = %s where id = %s", [title, item], prepare=True)
    committed = time.perf_counter()
    while _made_at(system, item) == before:
        if time.perf_counter() - committed > PATIENCE:
            raise DynrecError(f"item {item} got no new vector in {PATIENCE} s")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - committed


def _made_at(system: _System, item: int) -> object:
    return system.connection.execute(system.made_at, [str(item)], prepare=True).fetchone()


def _encode_and_commit(system: _System, item: int, title: str) -> None:
    system.encoder.encode([title])
    system.connection.execute("update plain set title = %s where id = %s", [title, item], prepare=True)
