"""Model versions in the database, as workers train and serve them: one function here for each function in sql/.

Every call is one statement and commits by itself. Errors of the driver arrive as errors of dynrec_store.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

import numpy as np
import numpy.typing as npt
from pgvector import Vector
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from dynrec_store.database import translated_errors
from dynrec_store.exceptions import UnknownNameError
from dynrec_store.queue import Connection, Encoding

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DerivedModel:
    """A live model version whose vectors are made of what was published for an item."""

    model_id: int
    kind: str  # content or learned
    encoder: str | None
    family: str | None
    model: str | None
    dimension: int

    @property
    def encoding(self) -> Encoding:
        """What a content model encodes with."""
        return Encoding(self.encoder, self.family, self.model, self.dimension, adopted=False)


@dataclass(frozen=True)
class DerivedRow:
    """What a model makes an item's vectors of; neither text nor vector: the item is gone."""

    item_id: str
    content: str | None  # for an encoder
    embedding: Vector | None  # for towers: the content vector; for a model that adopts them: the source's
    numbers: list[float | None] | None  # for towers: features, in the order of their names
    labels: list[str | None] | None
    names: list[str] | None  # for towers: of numbers, then of labels, as declared when they were read


@dataclass(frozen=True)
class Unusable:
    """How many rows of an interaction table a model cannot learn from, or not from all of."""

    incomplete: int = 0  # without user or item
    impossible_times: int = 0  # without a time, with an infinite one, or after the cut-off
    not_finite: int = 0  # given without their value, which is NaN


@dataclass(frozen=True)
class Training:
    """What a worker that trains a model has to know of it."""

    recommender: str
    recommender_id: int
    base_model_id: int
    parent_model_id: int | None
    data_until: datetime
    options: dict[str, object]
    exclude_seen: bool
    attempts: int = 1  # trainings in a row that were begun and have not ended, this one among them


@dataclass(frozen=True)
class Outcome:
    """What became of a training."""

    state: str  # of the model version
    error: str | None


@dataclass(frozen=True)
class Transition:
    """What tends to come right after an item, and how much; `pace` is the number of the config's transitions."""

    item_id: str
    pace: int
    next_item_ids: list[str]
    weights: list[float]


def derived_models(connection: Connection, recommender: str) -> list[DerivedModel]:
    """The live models whose vectors are derived, in the order in which they have to be."""
    with translated_errors(), connection.cursor(row_factory=class_row(DerivedModel)) as cursor:
        return cursor.execute(
            "select model_id, kind, encoder, family, model, dimension from dynrec._derived_models(%s)", [recommender]
        ).fetchall()


def read_derived(connection: Connection, token: UUID, model: int) -> list[DerivedRow]:
    """What a model makes the vectors of a lease of."""
    with translated_errors(), connection.cursor(row_factory=class_row(DerivedRow)) as cursor:
        return cursor.execute(
            "select item_id, content, embedding, numbers, labels, names from dynrec._read_derived(%s, %s)",
            [token, model],
        ).fetchall()


def publish_derived(
    connection: Connection,
    token: UUID,
    model: int,
    item_ids: Sequence[str],
    embeddings: Sequence[Floats | None],
    contexts: Sequence[Floats],
    *,
    releases: bool = False,
) -> dict[str, str]:
    """Store what a model made of leased items; None removes one. Returns the outcome for each item.

    `contexts`: those of the first item, one for each head, then those of the second, and so on; none for a content
    model. Outcomes: published, unchanged, removed, superseded (the lease went to another, or the model is retired).
    `releases`: as `release_derived` in the same transaction; no other model is to come.
    """
    arguments = (
        token,
        model,
        list(item_ids),
        [None if vector is None else Vector(vector) for vector in embeddings],
        [Vector(vector) for vector in contexts],
        releases,
    )
    with translated_errors():
        outcomes = connection.execute(
            "select item_id, outcome from dynrec._publish_derived(%s, %s, %s, %s::vector[], %s::vector[], %s)",
            arguments,
        ).fetchall()
    return dict(cast("list[tuple[str, str]]", outcomes))


def release_derived(connection: Connection, token: UUID) -> int:
    """End the lease of items that every model has published; returns how many."""
    with translated_errors():
        row = connection.execute("select dynrec._release_derived(%s)", [token]).fetchone()
    return cast("tuple[int]", row)[0]


def begin_training(connection: Connection, model: int) -> Training:
    """Take a staged model to train it; InvalidValueError if it does not wait for that."""
    with translated_errors(), connection.cursor(row_factory=class_row(Training)) as cursor:
        found = cursor.execute("select * from dynrec._training_begins(%s)", [model]).fetchone()
    assert found is not None  # noqa: S101  the function raises otherwise
    return found


def lock_training(connection: Connection, model: int) -> bool:
    """Become the one who trains a model, until the connection ends; False: another is at it."""
    with translated_errors():
        row = connection.execute("select pg_try_advisory_lock(hashtext('dynrec.train'), %s)", [model]).fetchone()
    return row == (True,)


def staged_models(connection: Connection) -> list[int]:
    """The models that wait for somebody to train them."""
    with translated_errors(), connection.cursor(row_factory=scalar_row) as cursor:
        return cast("list[int]", cursor.execute("select model_id from dynrec._staged_models()").fetchall())


def stage_model(
    connection: Connection,
    recommender: str,
    options: Mapping[str, object],
    *,
    continue_active: bool = False,
    base_model: int | None = None,
) -> int:
    """Begin a learned model version and return its number. `base_model`: the content space, None for the one in use."""
    statement = "select dynrec.stage_model(%s, options => %s, continue_active => %s, base_model => %s)"
    with translated_errors():
        row = connection.execute(statement, [recommender, Jsonb(options), continue_active, base_model]).fetchone()
    return cast("tuple[int]", row)[0]


def training_interactions(
    connection: Connection, model: int
) -> Iterator[tuple[str, str, str | None, float | None, float]]:
    """User, item, kind, value and time of the interactions that a model learns from, in the order of time.

    Times are seconds since 1970: the database knows some that are no datetime.
    """
    statement = """
        select user_id, item_id, kind, value, extract(epoch from occurred_at)::double precision
        from dynrec._training_interactions(%s)
    """
    # a cursor of the server's: not all of them are in memory twice
    with translated_errors(), connection.transaction(), connection.cursor("training_interactions") as cursor:
        cursor.itersize = 20_000
        yield from cast(
            "Iterator[tuple[str, str, str | None, float | None, float]]", cursor.execute(statement, [model])
        )


def training_unusable(connection: Connection, model: int) -> Unusable:
    """What `training_interactions` does not give, and what it gives without its value."""
    with translated_errors(), connection.cursor(row_factory=class_row(Unusable)) as cursor:
        found = cursor.execute("select * from dynrec._training_unusable(%s)", [model]).fetchone()
    assert found is not None  # noqa: S101  an aggregate has one row
    return found


def training_items(connection: Connection, model: int) -> list[tuple[str, Vector]]:
    """Key and content vector of every item of the catalogue."""
    with translated_errors():
        rows = connection.execute("select item_id, embedding from dynrec._training_items(%s)", [model]).fetchall()
    return cast("list[tuple[str, Vector]]", rows)


def training_items_then(connection: Connection, model: int, moment: datetime) -> list[tuple[str, Vector]]:
    """Key and content vector of the items of the catalogue whose vector was another one at that moment."""
    with translated_errors():
        rows = connection.execute(
            "select item_id, embedding from dynrec._training_items_then(%s, %s)", [model, moment]
        ).fetchall()
    return cast("list[tuple[str, Vector]]", rows)


def training_kinds(connection: Connection, model: int) -> list[tuple[str, float]]:
    """The declared kinds of interactions and their weights; "*" is every other kind."""
    with translated_errors():
        rows = connection.execute("select kind, weight from dynrec._training_kinds(%s)", [model]).fetchall()
    return cast("list[tuple[str, float]]", rows)


def feature_names(connection: Connection, recommender_id: int) -> list[tuple[str, str]]:
    """Name and type (number or label) of every feature of an item that models read, in order."""
    statement = "select feature, type from dynrec._feature_names(%s) order by position"
    with translated_errors():
        rows = connection.execute(statement, [recommender_id]).fetchall()
    return cast("list[tuple[str, str]]", rows)


def item_features(
    connection: Connection, recommender_id: int, moment: datetime
) -> list[tuple[str, list[float | None], list[str | None], list[str] | None]]:
    """Key, numbers and labels of every item as known at a moment; one of the rows has the names of both, in order."""
    statement = "select item_id, numbers, labels, names from dynrec._item_features(%s, null, %s)"
    with translated_errors():
        rows = connection.execute(statement, [recommender_id, moment]).fetchall()
    return cast("list[tuple[str, list[float | None], list[str | None], list[str] | None]]", rows)


def fail_training(connection: Connection, model: int, error: str) -> None:
    """Say why training gave up."""
    with translated_errors():
        connection.execute("select dynrec._training_failed(%s, %s)", [model, error])


def interrupt_training(connection: Connection, model: int) -> None:
    """Say that the last training ended with its connection, through no fault of its own."""
    with translated_errors():
        connection.execute("select dynrec._training_interrupted(%s)", [model])


def training_outcome(connection: Connection, model: int) -> Outcome:
    """The state of a model version; UnknownNameError if it is gone with its recommender."""
    statement = "select state, error from dynrec.model_versions where model_version = %s"
    with translated_errors(), connection.cursor(row_factory=class_row(Outcome)) as cursor:
        found = cursor.execute(statement, [model]).fetchone()
    if found is None:
        raise UnknownNameError(f"model version {model} is gone: its recommender was dropped meanwhile")
    return found


def artefacts(connection: Connection, model: int) -> dict[str, bytes]:
    """The files of a trained model, by name."""
    with translated_errors():
        rows = connection.execute("select name, content from dynrec._model_artefacts(%s)", [model]).fetchall()
    return dict(cast("list[tuple[str, bytes]]", rows))


def store_model(
    connection: Connection,
    model: int,
    dimension: int,
    *,
    config: Mapping[str, object],
    metrics: Mapping[str, object],
    report: Mapping[str, object],
    files: Mapping[str, bytes],
    transitions: Sequence[Transition],
) -> None:
    """Store a trained model, which begins its backfill."""
    reports = (Jsonb(config), Jsonb(metrics), Jsonb(report))
    rows = Jsonb([asdict(transition) for transition in transitions])
    arguments = (model, dimension, *reports, list(files), list(files.values()), rows)
    with translated_errors():
        connection.execute("select dynrec._store_model(%s, %s, %s, %s, %s, %s, %s, %s)", arguments)


def finish_backfills(connection: Connection) -> int:
    """Let models whose backfill is complete answer in the shadow; returns how many."""
    with translated_errors():
        row = connection.execute("select dynrec._finish_backfills()").fetchone()
    return cast("tuple[int]", row)[0]
