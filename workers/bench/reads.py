"""The other reads, each beside the query that one would write by hand, or beside the time that it may take."""

from collections.abc import Callable
from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import Catalogue
from workers.bench.measure import Figure, medians_in_turn
from workers.bench.place import bench_database, url_of
from workers.bench.recommend import Rows, set_as_dynrec, user_vectors
from workers.bench.report import Advance, progress

Read = Callable[[int], Rows]  # of the user or item with that number

DIVERSIFIED_MS = 15.0  # for a list of 100 out of 500 candidates
SESSION = 5  # items of a session
CHANGED = 0.01  # of the items have another vector since the moment of the past

_SIMILAR: LiteralString = "select item_id, score from dynrec.similar_items(%(name)s, %(number)s::text, 10)"
_SIMILAR_BY_HAND: LiteralString = """
    select v.item_id, -(v.embedding::vector({dimension}) <#> q.embedding) as score
    from {vectors} q, lateral (
      select v.item_id, v.embedding from {vectors} v where v.item_id <> q.item_id
      order by v.embedding::vector({dimension}) <#> q.embedding limit 10
    ) v where q.item_id = %(number)s::text
"""
_SESSION: LiteralString = "select item_id, score from dynrec.recommend_for_items(%(name)s, %(session)s, 10)"
_SESSION_BY_HAND: LiteralString = """
    select v.item_id, -(v.embedding::vector({dimension}) <#> q.embedding) as score
    from (
      select l2_normalize(sum(s.embedding)) as embedding from {vectors} s where s.item_id = any (%(session)s)
    ) q, lateral (
      select v.item_id, v.embedding from {vectors} v where v.item_id <> all (%(session)s)
      order by v.embedding::vector({dimension}) <#> q.embedding limit 10
    ) v
"""
_PAST: LiteralString = "select item_id, score from dynrec.recommend(%(name)s, %(user)s, 10, as_of => %(at)s)"
# The vectors that were there then: of the current ones the nearest through the index, of the replaced ones all.
_PAST_BY_HAND: LiteralString = """
    select c.item_id, c.score from (
      (select v.item_id, -(v.embedding::vector({dimension}) <#> %(query)s) as score from {vectors} v
       where v.created_at <= %(at)s
         and v.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
       order by v.embedding::vector({dimension}) <#> %(query)s limit 10)
      union all
      select h.item_id, -(h.embedding <#> %(query)s) from dynrec_data.item_vector_history h
      where h.model_id = {model} and h.created_at <= %(at)s and h.replaced_at > %(at)s
        and h.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
    ) c order by c.score desc limit 10
"""
_DIVERSE: LiteralString = "select item_id, score from dynrec.recommend(%(name)s, %(user)s, {length}, diversity => 0.3)"
_CHANGE: LiteralString = """
    update {items} i set embedding = other.embedding
    from {items} other where other.id = (i.id + 1) %% %(items)s and i.id %% (1 / %(changed)s)::int = 0
"""


def reads(settings: Settings, *, items: int, dimension: int, users: int, runs: int) -> list[Figure]:
    """p50 of similar_items, recommend_for_items, recommend as of a moment since when one vector in a hundred has been
    replaced, and recommend with diversity: 10 rows out of 100 candidates, 100 rows out of 500."""
    people = [f"user {number}" for number in range(users)]
    with (
        bench_database(settings) as own,
        progress(f"reads, {items:,} items", catalogue.steps(items) + 1 + 5 * runs) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
    ):
        made = catalogue.make(connection, "large", items, people, advance, dimension=dimension)
        at = _replace_some(connection, made, advance)
        set_as_dynrec(connection)
        vectors = user_vectors(connection, made, people)
        given = [
            {
                "name": made.name,
                "number": number,
                "session": [str(number + n * (items // SESSION)) for n in range(SESSION)],
                "user": user,
                "query": vectors[user],
                "at": at,
            }
            for number, user in enumerate(people)
        ]
        measure = partial(_figure, connection, made, given, runs, advance)
        return [
            measure("similar items", _SIMILAR, _SIMILAR_BY_HAND, target=1.3),
            measure(f"session of {SESSION} items", _SESSION, _SESSION_BY_HAND, target=1.3),
            measure("as of the past", _PAST, _PAST_BY_HAND, target=None),
            measure("diversity, 10 of 100", _DIVERSE, None, length=10, target=1.0),
            measure("diversity, 100 of 500", _DIVERSE, None, length=100, target=1.0),
        ]


def _figure(
    connection: Connection,
    where: Catalogue,
    given: list[dict[str, object]],
    runs: int,
    advance: Advance,
    name: str,
    ours: LiteralString,
    by_hand: LiteralString | None,
    *,
    target: float | None,
    length: int = 10,
) -> Figure:
    """Against the query by hand, or where there is none against the time that it may take."""
    names = {
        "items": where.table,
        "vectors": where.vectors,
        "events": where.events,
        "model": sql.Literal(where.model_version),
        "dimension": sql.Literal(where.dimension),
        "length": sql.Literal(length),
    }
    statements = [sql.SQL(query).format(**names) for query in (ours, by_hand) if query is not None]
    calls = [[partial(connection.execute, query, values, prepare=True) for query in statements] for values in given]
    with translated_errors():
        measured, *reference = medians_in_turn(runs, calls, advance)
    against = "the hand-written query" if by_hand is not None else "what it may take"
    return Figure(
        f"reads, {name}",
        f"p50 over {where.items:,} items of {where.dimension}, {length} rows, against {against}",
        measured,
        reference[0] if reference else (DIVERSIFIED_MS,) * runs,
        unit="ms",
        higher_is_better=False,
        target=target,
    )


def _replace_some(connection: Connection, where: Catalogue, advance: Advance) -> object:
    """Give some items another vector and publish that; a moment before."""
    with translated_errors():
        row = connection.execute("select clock_timestamp()").fetchone()
        statement = sql.SQL(_CHANGE).format(items=where.table)
        connection.execute(statement, {"items": where.items, "changed": CHANGED})
        catalogue.publish(connection, where, advance)
        connection.execute("vacuum analyze")
    assert row is not None  # noqa: S101 - a select without from has one row
    return row[0]
