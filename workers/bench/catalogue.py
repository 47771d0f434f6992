"""A catalogue of items with made-up vectors and users with recent events, published through the queue."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import numpy as np
import numpy.typing as npt
from pgvector import Vector
from psycopg import sql
from psycopg.types.json import Jsonb

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from workers.bench.report import Advance
from workers.maintenance import build_indexes

DIMENSION = 64
EVENTS = 50  # recent events of each user
BATCH = 10_000  # items in a copy and in a claim
LEASE = timedelta(minutes=10)

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]  # (items, dimension)

# Real embeddings form clusters, and a user's events lie in a few of them.
CLUSTER_SIZE = 200  # items
NOISE = 1.0  # length of what an item adds to its cluster's centre of length 1: neighbouring clusters overlap
INTERESTS = 3  # clusters of a user

# Numbers from 0 to 999 to filter by: an item's shelf has nothing to do with its vector, its aisle is its cluster's.
SHELVES = 1000

_TABLES: LiteralString = """
    create schema {schema};
    create table {schema}.items (
      id bigint primary key, title text not null, shelf int not null, aisle int not null,
      embedding vector({dimension}) not null);
    create table {schema}.events (user_id text not null, item_id bigint not null, occurred_at timestamptz not null);
    create index on {schema}.events (user_id);
    create index on {schema}.events (item_id);
"""

_DECLARE: LiteralString = """
    select model_version from dynrec.create_recommender(name => %(name)s, items => %(name)s || '.items',
      vector_column => 'embedding', interactions => %(name)s || '.events', options => %(options)s)
"""

_REPLACE: LiteralString = """
    update {schema}.items i set embedding = other.embedding
    from {schema}.items other where other.id = (i.id + 1) % (select count(*) from {schema}.items)
"""


_REPLACE_SOME: LiteralString = """
    update {schema}.items i set embedding = n.embedding
    from unnest(%s::bigint[], %b::vector[]) n (id, embedding) where n.id = i.id
"""


@dataclass(frozen=True)
class Catalogue:
    """A recommender over tables of its own; its schema has the recommender's name."""

    name: str
    items: int
    dimension: int
    model_version: int

    @property
    def vectors(self) -> sql.Identifier:
        """The table with the current item vectors and their index."""
        return sql.Identifier("dynrec_data", f"item_vector_{self.model_version}")

    @property
    def table(self) -> sql.Identifier:
        """The application's table of items."""
        return sql.Identifier(self.name, "items")

    @property
    def events(self) -> sql.Identifier:
        """The application's table of events."""
        return sql.Identifier(self.name, "events")


def steps(items: int) -> int:
    """How often `make` advances a progress bar."""
    return 2 * -(-items // BATCH) + 1


def make(
    connection: Connection,
    name: str,
    items: int,
    users: Sequence[str],
    advance: Advance,
    *,
    dimension: int = DIMENSION,
) -> Catalogue:
    """Fill the tables, declare the recommender, publish every vector and build the index."""
    made = declare(connection, name, items, dimension, advance)
    add_users(connection, made, users)
    publish(connection, made, advance)
    return made


def declare(
    connection: Connection,
    name: str,
    items: int,
    dimension: int,
    advance: Advance,
    options: Mapping[str, str] | None = None,
) -> Catalogue:
    """Fill the table of the items and declare the recommender, with its options; nothing is published yet."""
    schema = sql.Identifier(name)
    with translated_errors():
        connection.execute(sql.SQL(_TABLES).format(schema=schema, dimension=sql.Literal(dimension)))
        statement = sql.SQL("copy {}.items (id, title, shelf, aisle, embedding) from stdin (format binary)")
        shelves = np.random.default_rng(1).permutation(items) % SHELVES  # each holds as many as any other
        for ids, vectors in _vectors(items, dimension):
            with connection.cursor() as cursor, cursor.copy(statement.format(schema)) as copy:
                copy.set_types(["int8", "text", "int4", "int4", "vector"])
                for number, shelf, aisle, vector in zip(ids, shelves[ids], _aisles(ids, items), vectors, strict=True):
                    copy.write_row((int(number), f"item {number}", int(shelf), int(aisle), Vector(vector)))
            advance()
        connection.execute(sql.SQL("analyze {}.items").format(schema))
        row = connection.execute(_DECLARE, {"name": name, "options": Jsonb(dict(options or {}))}).fetchone()
    assert row is not None  # noqa: S101 - the function returns one row or raises
    return Catalogue(name, items, dimension, int(str(row[0])))


def add_users(connection: Connection, catalogue: Catalogue, users: Sequence[str]) -> None:
    """Give each user EVENTS events of distinct items in the last 30 days, in one transaction."""
    draw = np.random.default_rng(len(users))
    statement = sql.SQL("copy {} (user_id, item_id, occurred_at) from stdin").format(catalogue.events)
    moments = np.datetime64("now") - draw.integers(1, 30 * 86_400, (len(users), EVENTS)).astype("timedelta64[s]")
    with translated_errors(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for user, times in zip(users, moments, strict=True):
            for item, moment in zip(_interests(draw, catalogue.items), times, strict=False):
                copy.write_row((user, int(item), f"{moment}Z"))


def replace_vectors(connection: Connection, catalogue: Catalogue, advance: Advance) -> None:
    """Give every item another's vector, and publish that."""
    with translated_errors():
        connection.execute(sql.SQL(_REPLACE).format(schema=sql.Identifier(catalogue.name)))
    publish(connection, catalogue, advance)


def replace_some(connection: Connection, catalogue: Catalogue, ids: Ids, vectors: Vectors, advance: Advance) -> None:
    """Give some items these vectors, and do what a worker would for the vectors and users."""
    statement = sql.SQL(_REPLACE_SOME).format(schema=sql.Identifier(catalogue.name))
    with translated_errors():
        connection.execute(statement, [ids.tolist(), [Vector(vector) for vector in vectors]])
    work_off(connection, catalogue, advance)


def publish(connection: Connection, catalogue: Catalogue, advance: Advance) -> None:
    """Do what a worker would, until nothing waits; then what the index needs."""
    work_off(connection, catalogue, advance)
    tend_index(connection)
    advance()


def work_off(connection: Connection, catalogue: Catalogue, advance: Advance) -> None:
    """Do what a worker would, until nothing waits."""
    while _one_batch(connection, catalogue.name, advance):
        pass


def tend_index(connection: Connection) -> None:
    """Do what the indexes need."""
    with translated_errors():
        # the index's needs are read from statistics, which arrive late otherwise
        connection.execute("select pg_stat_force_next_flush()")
    build_indexes(connection)


def _one_batch(connection: Connection, name: str, advance: Advance) -> bool:
    token = queue.claim(connection, name, "item", BATCH, LEASE)
    if token is not None:
        queue.publish_adopted(connection, token)
        advance()
        return True
    token = queue.claim(connection, name, "user", BATCH, LEASE)
    if token is not None:
        queue.publish_users(connection, token)
        return True
    return queue.run_task(connection) is not None


def _vectors(items: int, dimension: int) -> Iterator[tuple[Ids, Vectors]]:
    draw = np.random.default_rng(0)
    centres = _centres(draw, items, dimension)
    for first in range(0, items, BATCH):
        ids = np.arange(first, min(first + BATCH, items))
        yield ids, _around(draw, centres, ids)


def other_vectors(items: int, dimension: int, seed: int, portion: int) -> Iterator[tuple[Ids, Vectors]]:
    """Another vector for each item of a catalogue, in the same cluster, in portions and in no order."""
    centres = _centres(np.random.default_rng(0), items, dimension)
    draw = np.random.default_rng(seed)
    order = draw.permutation(items)
    for first in range(0, items, portion):
        ids = order[first : first + portion]
        yield ids, _around(draw, centres, ids)


def _centres(draw: np.random.Generator, items: int, dimension: int) -> Vectors:
    return _unit(draw.standard_normal((-(-items // CLUSTER_SIZE), dimension), dtype=np.float32))


def _around(draw: np.random.Generator, centres: Vectors, ids: Ids) -> Vectors:
    noise = _unit(draw.standard_normal((len(ids), centres.shape[1]), dtype=np.float32))
    return _unit(centres[ids % len(centres)] + NOISE * noise)


def _aisles(ids: Ids, items: int) -> Ids:
    clusters = -(-items // CLUSTER_SIZE)
    return ids % clusters * SHELVES // clusters


def _interests(draw: np.random.Generator, items: int) -> list[int]:
    clusters = -(-items // CLUSTER_SIZE)
    liked = draw.choice(clusters, min(INTERESTS, clusters), replace=False)
    pool = np.concatenate([np.arange(cluster, items, clusters) for cluster in liked])
    return [int(item) for item in draw.choice(pool, min(EVENTS, len(pool)), replace=False)]


def _unit(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths
