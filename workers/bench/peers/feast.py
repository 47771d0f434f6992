"""Feast's vector retrieval out of Postgres beside dynrec.similar_items, over the same vectors on the same server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import LiteralString

import numpy as np
import numpy.typing as npt
from psycopg import sql

from dynrec_store import FeatureStore, queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.measure import Figure, seconds, timed_in_turn
from workers.bench.peers.conversation import Conversation, conversation
from workers.bench.peers.environments import version_of
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

K = 10

# What Feast makes, and beside it what somebody can add who knows pgvector: a dimension and dynrec's own kind of index.
_MADE, _INDEXED = "made", "indexed"
_ADD_INDEX: LiteralString = """
    alter table {table} alter vector_value type vector({dimension});
    create index on {table} using hnsw (vector_value vector_ip_ops) with (ef_construction = 128);
"""

# As dynrec searches; Feast has no setting for it.
_AS_DYNREC: LiteralString = "alter database {database} set hnsw.ef_search = 100"

_V1, _V2 = "retrieve_online_documents", "retrieve_online_documents_v2"

# Feast's method, the project it searches, and what the figure says of it.
VARIANTS = (
    (_V2, _MADE, "v2", "as Feast makes its table, without an index"),
    (_V1, _MADE, "v1", "the method to be deprecated, as Feast makes its table, without an index"),
    (_V2, _INDEXED, "v2, index by hand", "with a dimension and dynrec's kind of HNSW index added by hand"),
    (_V1, _INDEXED, "v1, index by hand", "the method to be deprecated, with that index added by hand"),
)

Search = Callable[[str], Sequence[str]]  # from an item to those nearest to it, at most K


@dataclass(frozen=True)
class _Place:
    """Where the searches of one dimension take place."""

    connection: Connection
    store: FeatureStore
    side: Conversation
    name: str  # of the recommender
    items: int
    dimension: int


def feast(
    settings: Settings, python: Path, *, items: int, dimensions: Sequence[int], calls: int, runs: int
) -> list[Figure]:
    """p50 of a search for the 10 items nearest to one, and recall@10 of both, by the length of the vectors.

    Both through their Python API, each in a process of its own that only it uses. Feast is given the item's vector;
    dynrec looks it up, and looks every item that it returns up in the application's table. Inner products of vectors
    of length 1, `hnsw.ef_search` 100 in both.
    """
    steps = len(dimensions) * (catalogue.steps(items) + 1 + runs * len(VARIANTS))
    figures: list[Figure] = []
    with progress(f"feast, {items:,} items", steps) as advance:
        for dimension in dimensions:
            with (
                bench_database(settings) as own,
                queue.connect(url_of(own), application_name="dynrec bench") as connection,
                FeatureStore.connect(url_of(own)) as store,
                conversation(
                    python, Path(__file__).with_name("feast_side.py"), {"DYNREC_BENCH_URL": url_of(own)}
                ) as side,
            ):
                place = _Place(connection, store, side, "bench", items, dimension)
                _set_up(place, advance)
                figures += _figures(place, calls, runs, advance)
    return figures


def _set_up(place: _Place, advance: Advance) -> None:
    made = catalogue.declare(place.connection, place.name, place.items, place.dimension, advance)
    catalogue.publish(place.connection, made, advance)
    place.side.ask(do="fill", source=[place.name, "items"], projects=[_MADE, _INDEXED], dimension=place.dimension)
    database = sql.Identifier(place.connection.info.dbname)
    indexed = sql.Identifier(f"{_INDEXED}_items")  # Feast names it after project and feature view
    with translated_errors():
        place.connection.execute(sql.SQL(_AS_DYNREC).format(database=database))
        place.connection.execute(sql.SQL(_ADD_INDEX).format(table=indexed, dimension=sql.Literal(place.dimension)))
        place.connection.execute("vacuum analyze")
    place.side.ask(do="open", project=_INDEXED)
    advance()


def _figures(place: _Place, calls: int, runs: int, advance: Advance) -> list[Figure]:
    asked = [str(item) for item in np.random.default_rng(1).choice(place.items, calls, replace=False)]
    where = f"{place.items:,} of {place.dimension}"
    ours = partial(_similar, place)
    figures = []
    for method, project, name, state in VARIANTS:
        pairs = [
            (partial(_seconds, ours, item), partial(_feast_seconds, place, method, project, item)) for item in asked
        ]
        measured, reference = timed_in_turn(runs, pairs, advance)
        about = f"p50 of dynrec.similar_items against Feast {version_of('feast')} {method}, {state}"
        figures.append(
            Figure(f"feast {name}, {where}", about, measured, reference, unit="ms", higher_is_better=False, target=None)
        )
    return [*figures, *_recalls(place, asked, where)]


def _recalls(place: _Place, asked: Sequence[str], where: str) -> list[Figure]:
    exact = dict(zip(asked, _exact(place, asked), strict=True))
    ours = _recall(partial(_similar, place), exact)
    about = f"dynrec.similar_items against Feast's {{}}; each against exact search, mean of {len(asked)} items"
    searches = (
        ("v2", partial(_feast, place, _V2, _MADE)),
        ("v1", partial(_feast, place, _V1, _MADE)),
        ("v1, index by hand", partial(_feast, place, _V1, _INDEXED)),
    )
    return [
        Figure(
            f"recall@10, feast {name}, {where}",
            about.format(name),
            (ours,),
            (_recall(search, exact),),
            unit="",
            higher_is_better=True,
            target=None,
        )
        for name, search in searches
    ]


def _recall(search: Search, exact: dict[str, set[str]]) -> float:
    return sum(len(set(search(item)) & nearest) / len(nearest) for item, nearest in exact.items()) / len(exact)


def _exact(place: _Place, asked: Sequence[str]) -> list[set[str]]:
    statement = sql.SQL("select id, embedding::real[] from {}").format(sql.Identifier(place.name, "items"))
    with translated_errors():
        rows = place.connection.execute(statement).fetchall()
    vectors = np.array([vector for _, vector in sorted(rows, key=lambda row: int(str(row[0])))], np.float32)
    return [_nearest(vectors, int(item)) for item in asked]


def _nearest(vectors: npt.NDArray[np.float32], item: int) -> set[str]:
    products = vectors @ vectors[item]
    products[item] = -np.inf
    return {str(number) for number in np.argsort(-products)[:K]}


def _similar(place: _Place, item: str) -> list[str]:
    return [row.item_id for row in place.store.similar_items(place.name, item, k=K)]


def _seconds(search: Search, item: str) -> float:
    return seconds(partial(search, item))


def _feast(place: _Place, method: str, project: str, item: str) -> list[str]:
    # the item itself is the nearest to its vector: one more is asked for
    answer = place.side.ask(do="search", method=method, project=project, item=item, top_k=K + 1)
    return [found for found in answer["items"] if found != item][:K]


def _feast_seconds(place: _Place, method: str, project: str, item: str) -> float:
    answer = place.side.ask(do="search", method=method, project=project, item=item, top_k=K + 1)
    return float(answer["seconds"])
