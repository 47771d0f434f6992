"""Storage: bytes, building, reading and recall by what of the vectors is stored and what the index holds."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import LiteralString

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import Catalogue
from workers.bench.measure import Measure, medians_in_turn, p50
from workers.bench.place import bench_database, url_of
from workers.bench.recommend import EXACT, Search, by_dynrec, given_vector, items_of
from workers.bench.report import Advance, progress
from workers.bench.scale import table_bytes, timed

# The options of each catalogue, by the name of its recommender; the first is what the others are compared with.
KINDS: Mapping[str, Mapping[str, str]] = {
    "full": {},
    "half": {"vector_index": "half"},
    "binary": {"vector_index": "binary"},
    "stored_half": {"vector_index": "half", "vector_storage": "half"},
    "stored_half_binary": {"vector_index": "binary", "vector_storage": "half"},
}

_INDEX: LiteralString = """
    select sum(pg_relation_size(i.indexrelid)) from pg_index i
    join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam and m.amname = 'hnsw'
    where i.indrelid = format('dynrec_data.item_vector_%%s', %s::int)::regclass
"""

Row = tuple[str, float, str, float | None]


def storage(settings: Settings, *, items: int, dimensions: Sequence[int], users: int, runs: int) -> Iterator[Measure]:
    """Catalogues that differ in nothing but what is stored and indexed, beside each other in one database."""
    names = [f"user {number}" for number in range(users)]
    for dimension in dimensions:
        steps = len(KINDS) * (catalogue.steps(items) + 1) + (len(KINDS) - 1) * runs
        with (
            bench_database(settings) as own,
            progress(f"storage, {items:,} items of {dimension}", steps) as advance,
            queue.connect(url_of(own), application_name="dynrec bench") as connection,
        ):
            made: dict[str, Catalogue] = {}
            for kind in KINDS:
                made[kind] = _make(connection, kind, items, dimension, names, advance)
                for name, value, unit, processor in _build(connection, made[kind]):
                    yield Measure(items, dimension, f"{kind}: {name}", value, unit, processor)
                advance()
            for kind, (name, value, unit, processor) in _read(connection, made, names, runs, advance):
                yield Measure(items, dimension, f"{kind}: {name}", value, unit, processor)


def _make(
    connection: Connection, kind: str, items: int, dimension: int, users: Sequence[str], advance: Advance
) -> Catalogue:
    made = catalogue.declare(connection, kind, items, dimension, advance, KINDS[kind])
    catalogue.add_users(connection, made, users)
    catalogue.work_off(connection, made, advance)
    return made


def _build(connection: Connection, made: Catalogue) -> Iterator[Row]:
    yield (
        "vector of an item",
        table_bytes(connection, rf"^item_vector_{made.model_version}$") / made.items,
        "bytes",
        None,
    )
    taken, computed = timed(connection, lambda: catalogue.tend_index(connection))
    yield "index, building", taken, "s", computed
    with translated_errors():
        row = connection.execute(_INDEX, [made.model_version]).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    yield "index, an item", int(str(row[0])) / made.items, "bytes", None


def _read(
    connection: Connection, made: Mapping[str, Catalogue], users: Sequence[str], runs: int, advance: Advance
) -> Iterator[tuple[str, Row]]:
    """Recall against an exact search of the full vectors; reading in turn with the catalogue that stores those."""
    (full, whole), *others = made.items()
    exact = given_vector(connection, whole, EXACT, users)
    with translated_errors():
        nearest = {user: items_of(exact(user)) for user in users}
        for kind, where in made.items():
            ours = by_dynrec(connection, where)
            found = sum(len(items_of(ours(user)) & nearest[user]) for user in users)
            yield kind, ("recall@10", found / sum(map(len, nearest.values())), "", None)
            taken, computed = timed(connection, partial(_call_all, ours, users))
            yield kind, ("recommend, a call", 1000 * taken / len(users), "ms", computed)
        for kind, where in others:
            pairs = [
                (partial(by_dynrec(connection, where), user), partial(by_dynrec(connection, whole), user))
                for user in users
            ]
            measured, reference = medians_in_turn(runs, pairs, advance)
            yield kind, (f"recommend, p50 against {full}", p50(measured) / p50(reference), "x", None)


def _call_all(search: Search, users: Sequence[str]) -> None:
    for user in users:
        search(user)
