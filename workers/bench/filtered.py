"""Filtered reading: dynrec.recommend with a filter beside the better of two queries written by hand."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import SHELVES, Catalogue
from workers.bench.measure import Figure, medians_in_turn
from workers.bench.place import bench_database, url_of
from workers.bench.recommend import Rows, Search, set_as_dynrec, user_vectors
from workers.bench.report import Advance, progress

K = 10
SHARES = (0.5, 0.1, 0.01, 0.001)  # of the items that a filter accepts
COLUMNS = {"shelf": "", "aisle": ", whole clusters"}  # what is filtered by, and what that means

_OURS: LiteralString = "select item_id, score from dynrec.recommend(%(name)s, %(user)s, 10, filter => %(filter)s)"

# Through the index: the scan goes on until enough rows have been accepted.
_ITERATIVE: LiteralString = """
    with near as materialized (
      select v.item_id, -(v.embedding::vector({dimension}) <#> %(query)s) as score
      from {vectors} v join {items} item on item.id = v.item_id::bigint
      where item.{column} < {below}
        and v.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
      order by v.embedding::vector({dimension}) <#> %(query)s limit 10
    )
    select * from near order by score desc
"""

# Ordered by an expression that no index has: exact.
_EXACT: LiteralString = """
    select v.item_id, -(v.embedding <#> %(query)s) as score
    from {items} item join {vectors} v on v.item_id = item.id::text
    where item.{column} < {below}
      and v.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
    order by score desc limit 10
"""


def filtered(settings: Settings, *, items: int, dimension: int, users: int, runs: int) -> list[Figure]:
    """p50 of filtered calls, and recall@10 against exact search, by the share of items that are accepted.

    Each share is taken twice: of all items alike, and of whole clusters of items, as a category is; then a user's own
    neighbours may be none of those. The reference of a run is the quicker of the two queries by hand, of the exact one
    alone where the other returned too few rows. DynrecError unless dynrec.recommend returns ten rows.
    """
    people = [f"user {number}" for number in range(users)]
    cases = [(column, round(share * SHELVES)) for column in COLUMNS for share in SHARES]
    with (
        bench_database(settings) as own,
        progress(f"filtered, {items:,} items", catalogue.steps(items) + len(cases) * runs) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
    ):
        made = catalogue.make(connection, "large", items, people, advance, dimension=dimension)
        with translated_errors():
            connection.execute("vacuum analyze")
            set_as_dynrec(connection)
        return [
            figure
            for column, below in cases
            for figure in _figures(
                connection, made, column, below, user_vectors(connection, made, people), runs, advance
            )
        ]


def _figures(
    connection: Connection,
    where: Catalogue,
    column: str,
    below: int,
    vectors: dict[str, object],
    runs: int,
    advance: Advance,
) -> list[Figure]:
    ours = _recommend(connection, where, f"{column} < {below}")
    iterative, exact = (_by_hand(connection, where, query, column, below, vectors) for query in (_ITERATIVE, _EXACT))
    users = list(vectors)
    recall, by_hand, is_complete = _checked(ours, iterative, exact, users)
    with translated_errors():
        measured, through_index, all_eligible = medians_in_turn(
            runs, [[partial(search, user) for search in (ours, iterative, exact)] for user in users], advance
        )
    reference = tuple(map(min, through_index, all_eligible)) if is_complete else all_eligible
    what = f"{100 * below / SHELVES:g} % of {where.items:,} items of {where.dimension}{COLUMNS[column]}"
    return [
        Figure(
            f"filtered, {100 * below / SHELVES:g} %{COLUMNS[column]}",
            f"p50, {what}, against the better of index scan and exact search by hand"
            + ("" if is_complete else "; the index scan returned too few rows"),
            measured,
            reference,
            unit="ms",
            higher_is_better=False,
            target=1.3,
        ),
        Figure(
            f"filtered, recall@10, {100 * below / SHELVES:g} %{COLUMNS[column]}",
            f"{what}, against exact search, mean of {len(users)} users",
            (recall,),
            (1.0,),
            unit="",
            higher_is_better=True,
            target=0.95,
        ),
        Figure(
            f"filtered, recall@10 by hand, {100 * below / SHELVES:g} %{COLUMNS[column]}",
            f"index scan by hand, {what}, against exact search, mean of {len(users)} users",
            (by_hand,),
            (1.0,),
            unit="",
            higher_is_better=True,
            target=None,
        ),
    ]


def _checked(ours: Search, iterative: Search, exact: Search, users: Sequence[str]) -> tuple[float, float, bool]:
    """Recall@10 of ours and of the index scan by hand, and whether that has every row; DynrecError unless ours has."""
    found, found_by_hand = [], []
    is_complete = True
    for user in users:
        items, wanted = _items(ours(user)), _items(exact(user))
        if len(items) != min(K, len(wanted)):
            raise DynrecError(f"{len(items)} rows were recommended to {user} where {len(wanted)} are eligible")
        by_hand = _items(iterative(user))
        found.append(len(items & wanted) / max(len(wanted), 1))
        found_by_hand.append(len(by_hand & wanted) / max(len(wanted), 1))
        is_complete = is_complete and len(by_hand) == len(wanted)
    return fmean(found), fmean(found_by_hand), is_complete


def _recommend(connection: Connection, where: Catalogue, predicate: str) -> Search:
    def search(user: str) -> Rows:
        given = {"name": where.name, "user": user, "filter": predicate}
        return connection.execute(_OURS, given, prepare=True).fetchall()

    return search


def _by_hand(
    connection: Connection, where: Catalogue, query: LiteralString, column: str, below: int, vectors: dict[str, object]
) -> Search:
    statement = sql.SQL(query).format(
        items=where.table,
        vectors=where.vectors,
        events=where.events,
        dimension=where.dimension,
        column=sql.Identifier(column),
        below=below,
    )

    def search(user: str) -> Rows:
        return connection.execute(statement, {"query": vectors[user], "user": user}, prepare=True).fetchall()

    return search


def _items(rows: Rows) -> set[object]:
    return {item for item, _ in rows}
