"""Evaluation: dynrec.evaluate beside the searches that it cannot do without."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import versions
from workers.bench.measure import Figure, in_turn, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

TARGET = 1.5  # of the searches alone

_ACT: LiteralString = """
    insert into {events} (user_id, item_id, occurred_at)
    select u, 1 + (hashtextextended(u, n) %% %(items)s + %(items)s) %% %(items)s, clock_timestamp()
    from unnest(%(users)s::text[]) u, generate_series(1, 3) n
"""
_SEARCHES: LiteralString = """
    select count(*) from unnest(%(users)s::text[]) u,
      dynrec.recommend('bench', u, 10, as_of => %(at)s, by_model => %(model)s)
"""
_EVALUATE: LiteralString = """
    select count(*) from dynrec.evaluate('bench', %(at)s, now(), '{5,10}', by_model => %(model)s)
"""


def evaluate(settings: Settings, *, items: int, users: int, runs: int) -> list[Figure]:
    """Seconds to evaluate the lists of all users at two k, against the same lists by dynrec.recommend one by one.

    For a content version and a learned one; in one process, and with the two parallel workers that Postgres may have.
    """
    people = [f"user {number}" for number in range(users)]
    with (
        bench_database(settings) as own,
        progress(f"evaluate, {items:,} items", versions.steps(items) + 4 * runs) as advance,
    ):
        content, learned = versions.two_versions(own, items, people, advance)
        with queue.connect(url_of(own), application_name="dynrec bench") as connection:
            at = _act(connection, items, people)
            return [
                _figure(connection, f"evaluate, {kind}{how}", model, at, people, workers, runs, advance)
                for kind, model in (("content", content), ("learned", learned))
                for how, workers in (("", 0), (", parallel", 2))
            ]


def _act(connection: Connection, items: int, users: Sequence[str]) -> datetime:
    with translated_errors():
        row = connection.execute("select clock_timestamp()").fetchone()
        statement = sql.SQL(_ACT).format(events=sql.Identifier(versions.NAME, "events"))
        connection.execute(statement, {"users": list(users), "items": items - 1})
    assert row is not None  # noqa: S101 - a select without from has one row
    at: datetime = row[0]  # type: ignore[assignment]  # clock_timestamp() is one
    return at


def _figure(
    connection: Connection,
    name: str,
    model: int,
    at: datetime,
    users: Sequence[str],
    workers: int,
    runs: int,
    advance: Advance,
) -> Figure:
    given = {"users": list(users), "at": at, "model": model}
    with translated_errors():
        connection.execute(sql.SQL("set max_parallel_workers_per_gather = {}").format(workers))
        values = in_turn(
            runs,
            partial(seconds, partial(connection.execute, _EVALUATE, given)),
            partial(seconds, partial(connection.execute, _SEARCHES, given)),
            advance,
        )
    return Figure(
        name,
        f"{len(users):,} users, {workers} parallel workers, against dynrec.recommend(as_of) for each",
        *values,
        unit="s",
        higher_is_better=False,
        target=TARGET,
    )
