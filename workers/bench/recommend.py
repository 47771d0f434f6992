"""Reading: dynrec.recommend beside the query that one would write by hand, its growth, and the index's recall."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import Catalogue
from workers.bench.measure import Figure, Values, in_turn, p50, p99, pairs_in_turn
from workers.bench.pgbench import Transactions, timed_transactions
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

SMALL = 10_000  # items of the catalogue that growth is measured against

Rows = list[tuple[object, ...]]
Search = Callable[[str], Rows]  # from a user to ten (item_id, score)

AS_DYNREC = {"hnsw.ef_search": "100", "hnsw.iterative_scan": "strict_order"}  # the settings that dynrec searches with
CLIENTS = (1, 16)

# What an application would write that has the user's vector at hand; with the settings that dynrec searches with.
_BY_HAND: LiteralString = """
    select v.item_id, -(v.embedding::vector({dimension}) <#> %(query)s) as score from {vectors} v
    where v.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
    order by v.embedding::vector({dimension}) <#> %(query)s limit 10
"""

# The same where the application keeps the vectors of its users, and looks one up.
_OWN_VECTORS: LiteralString = """
    create table {own} (user_id text primary key, embedding vector({dimension}) not null);
    insert into {own}
    select u, dynrec.user_vector_at({name}, u) from generate_series(0, {users} - 1) n, concat('user ', n) u;
    analyze {own};
"""
_LOOKED_UP: LiteralString = """
\\set number random(0, :users - 1)
select near.* from {own} u, lateral (
  select v.item_id, -(v.embedding::vector({dimension}) <#> u.embedding) as score from {vectors} v
  where v.item_id not in (select e.item_id::text from {events} e where e.user_id = u.user_id)
  order by v.embedding::vector({dimension}) <#> u.embedding limit 10
) near where u.user_id = 'user ' || :number;
"""
_RECOMMENDED: LiteralString = """
\\set number random(0, :users - 1)
select * from dynrec.recommend({name}, 'user ' || :number, 10);
"""

# Ordered by an expression that no index has: exact.
EXACT: LiteralString = """
    select v.item_id, -(v.embedding <#> %(query)s) as score from {vectors} v
    where v.item_id not in (select e.item_id::text from {events} e where e.user_id = %(user)s)
    order by score desc limit 10
"""


def recommend(settings: Settings, *, items: int, dimension: int, users: int, seconds: int, runs: int) -> list[Figure]:
    """p50 of a call over `items` vectors of a `dimension`, for users with 50 events, against the hand-written query.

    Twice: for users whose events are in their stored vectors, and for users whose 50 events no worker has seen, so
    that each call makes their vectors from the events; the query by hand is given the vector in both cases. Then
    recommend at `items` against itself at 10,000, and recall@10 of both catalogues, of the small one after every
    vector was replaced once. And by pgbench, for one client and for sixteen that do nothing else for so many
    `seconds`: transactions per second against the query by hand, and p99 against p50.
    """
    small = min(SMALL, items)
    steps = catalogue.steps(items) + 2 * catalogue.steps(small) + (3 + len(CLIENTS)) * runs
    with (
        bench_database(settings) as own,
        progress(f"recommend, {items:,} items", steps) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
    ):
        settled = [f"user {number}" for number in range(users)]
        pending = [f"new user {number}" for number in range(users)]
        much = catalogue.make(connection, "large", items, settled, advance, dimension=dimension)
        little = catalogue.make(connection, "small", small, settled, advance, dimension=dimension)
        catalogue.add_users(connection, much, pending)
        figures = [
            _against_by_hand(connection, much, "recommend", settled, runs, advance, target=1.3),
            _against_by_hand(connection, much, "recommend, events pending", pending, runs, advance, target=None),
            _growth(connection, (much, little), settled, runs, advance),
            _recall(connection, much, "recall@10", settled),
            *_under_load(connection, url_of(own), much, users, seconds, runs, advance),
        ]
        catalogue.replace_vectors(connection, little, advance)
        return [*figures, _recall(connection, little, "recall@10, vectors replaced", settled)]


def _against_by_hand(
    connection: Connection,
    where: Catalogue,
    name: str,
    users: Sequence[str],
    runs: int,
    advance: Advance,
    *,
    target: float | None,
) -> Figure:
    set_as_dynrec(connection)
    ours, by_hand = by_dynrec(connection, where), given_vector(connection, where, _BY_HAND, users)
    return Figure(
        name,
        f"p50 over {where.items:,} items against the hand-written query",
        *_in_turn(ours, by_hand, users, runs, advance),
        unit="ms",
        higher_is_better=False,
        target=target,
    )


def _growth(
    connection: Connection, catalogues: tuple[Catalogue, Catalogue], users: Sequence[str], runs: int, advance: Advance
) -> Figure:
    much, little = (by_dynrec(connection, where) for where in catalogues)
    return Figure(
        "recommend, growth",
        f"p50 over {catalogues[0].items:,} items against {catalogues[1].items:,}",
        *_in_turn(much, little, users, runs, advance),
        unit="ms",
        higher_is_better=False,
        target=3.0,
    )


def _recall(connection: Connection, where: Catalogue, name: str, users: Sequence[str]) -> Figure:
    ours, exact = by_dynrec(connection, where), given_vector(connection, where, EXACT, users)
    found = [len(items_of(ours(user)) & items_of(exact(user))) / 10 for user in users]
    return Figure(
        name,
        f"dynrec.recommend over {where.items:,} items against exact search, mean of {len(users)} users",
        (sum(found) / len(found),),
        (1.0,),
        unit="",
        higher_is_better=True,
        target=0.95,
    )


def by_dynrec(connection: Connection, where: Catalogue) -> Search:
    """Return the search by dynrec.recommend."""
    statement = "select item_id, score from dynrec.recommend(%s, %s, 10)"
    return lambda user: connection.execute(statement, [where.name, user], prepare=True).fetchall()


def given_vector(connection: Connection, where: Catalogue, template: LiteralString, users: Sequence[str]) -> Search:
    """Return the search by a statement that is given the user's vector."""
    vectors = user_vectors(connection, where, users)
    dimension = sql.Literal(where.dimension)
    statement = sql.SQL(template).format(vectors=where.vectors, events=where.events, dimension=dimension)

    def search(user: str) -> Rows:
        return connection.execute(statement, {"query": vectors[user], "user": user}, prepare=True).fetchall()

    return search


def user_vectors(connection: Connection, where: Catalogue, users: Sequence[str]) -> dict[str, object]:
    """The vector of each user, now."""
    statement = "select u, dynrec.user_vector_at(%s, u) from unnest(%s::text[]) u"
    with translated_errors():
        return {str(user): vector for user, vector in connection.execute(statement, [where.name, list(users)])}


def set_as_dynrec(connection: Connection) -> None:
    """Search with the settings that dynrec searches with."""
    with translated_errors():
        for name, value in AS_DYNREC.items():
            connection.execute("select set_config(%s, %s, false)", [name, value])


def _under_load(
    connection: Connection, url: str, where: Catalogue, users: int, seconds: int, runs: int, advance: Advance
) -> list[Figure]:
    names = {
        "name": sql.Literal(where.name),
        "own": sql.Identifier(where.name, "own_vectors"),
        "vectors": where.vectors,
        "events": where.events,
        "dimension": sql.Literal(where.dimension),
        "users": sql.Literal(users),
    }
    with translated_errors():
        connection.execute(sql.SQL(_OWN_VECTORS).format(**names))
    ours, by_hand = (sql.SQL(script).format(**names).as_string(connection) for script in (_RECOMMENDED, _LOOKED_UP))
    figures: list[Figure] = []
    for clients in CLIENTS:
        run = partial(
            timed_transactions, url, clients=clients, seconds=seconds, variables={"users": users}, settings=AS_DYNREC
        )
        figures += _loaded(clients, *in_turn(runs, partial(run, ours), partial(run, by_hand), advance))
    return figures


def _loaded(clients: int, ours: tuple[Transactions, ...], by_hand: tuple[Transactions, ...]) -> Iterator[Figure]:
    name = f"{clients} client{'s' if clients > 1 else ''}"
    yield Figure(
        f"recommend, {name}",
        f"pgbench, {name}, against the hand-written query with the vector looked up in a table",
        tuple(run.per_second for run in ours),
        tuple(run.per_second for run in by_hand),
        unit="tps",
        higher_is_better=True,
        target=1 / 1.3,
    )
    for who, runs, target in (("recommend", ours, 3.0), ("by hand", by_hand, None)):
        yield Figure(
            f"{who}, {name}, p99",
            f"p99 of {'dynrec.recommend' if who == 'recommend' else 'the hand-written query'}, {name}, against its p50",
            tuple(p99(run.milliseconds) for run in runs),
            tuple(p50(run.milliseconds) for run in runs),
            unit="ms",
            higher_is_better=False,
            target=target,
        )


def _in_turn(ours: Search, theirs: Search, users: Sequence[str], runs: int, advance: Advance) -> Values:
    with translated_errors():
        return pairs_in_turn(runs, [(partial(ours, user), partial(theirs, user)) for user in users], advance)


def items_of(rows: Rows) -> set[object]:
    """Return the items of a list."""
    return {item for item, _ in rows}
