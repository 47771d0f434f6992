"""The queue in the database, as the dispatcher and the workers see it: one function here for each function in sql/.

Every call is one statement and commits by itself. Errors of the driver arrive as errors of dynrec_store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, LiteralString, TypeAlias, cast
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector import Vector
from pgvector.psycopg.vector import register_vector_info
from psycopg import sql
from psycopg.rows import class_row, scalar_row, tuple_row
from psycopg.types import TypeInfo
from psycopg.types.json import Jsonb

from dynrec_store import database
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import UnsupportedServerError

Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]
Kind: TypeAlias = Literal["item", "derived", "user"]

INDEX_PATIENCE = "10min"


@dataclass(frozen=True)
class Pending:
    """Work of one sort that could be claimed now."""

    recommender: str
    work: str  # item, derived, user or task
    backlog: int  # entities or tasks; counted up to a cap
    leased: int  # batches in flight
    oldest: int = 0  # number of the first change or task that waits or is in flight; 0: not looked at
    newest: int = 0  # of the last one that was counted


@dataclass(frozen=True)
class Encoding:
    """What the vectors of a recommender's items are made with."""

    encoder: str | None
    family: str | None
    model: str | None
    dimension: int
    adopted: bool  # the vectors come from a column of the source: no encoder


@dataclass(frozen=True)
class Claim:
    """A batch that is leased, with what can be told of its changes."""

    token: UUID
    entities: int
    first_change: int  # ids: what is in the batch lies between the two
    last_change: int
    captured_at: datetime  # when the last change of an entity was captured, of that entity where this is longest ago
    live_ages: list[float] | None  # seconds since that moment, an entity each, when the batch was claimed
    backfill_ages: list[float] | None  # of those that a backfill put into the queue


@dataclass(frozen=True)
class ItemRow:
    """A leased item as its source has it."""

    item_id: str
    content: str | None  # the text to encode; None: the row is gone
    features: str | None  # JSON, passed on as it came
    needs_vector: bool  # no vector of the same text is known


@dataclass(frozen=True)
class Published:
    """What became of a leased item."""

    outcome: (
        str  # published, unchanged, removed, superseded (the lease went to another), requeued (will be claimed again)
    )
    derives: bool  # it is leased again, for the models that are made of it


@dataclass(frozen=True)
class IndexWork:
    """A statement that a vector index needs."""

    recommender: str
    model_id: int
    step: int  # 1 drop, 2 create, 3 reindex, 4 vacuum, 5 vacuum without the indexes
    statement: str
    replaced: int | None  # counter of replaced vectors when it began


def connect(url: str, *, application_name: str) -> Connection:
    """Open a connection that vectors can be sent over; each statement commits by itself.

    No commit waits for the disk: a crash of the server takes back a publish together with the deletion of its
    changes, which are then in the queue again. (Vectors of derived models are published and released in transactions
    of their own: there the database waits.) Of a client that vanished the server lets go in half a minute, with
    the locks that it held.
    """
    connection = database.connect(url, application_name=application_name)
    try:
        with translated_errors():
            connection.execute(
                "set synchronous_commit = off; set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5;"
                "set tcp_keepalives_count = 3"
            )
        _register_vector(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _register_vector(connection: Connection) -> None:
    schema = database.check_server(connection).vector_schema
    if schema is None:
        raise UnsupportedServerError("this database has no pgvector yet: run 'dynrec migrate'")
    with translated_errors():
        register_vector_info(connection, TypeInfo.fetch(connection, sql.Identifier(schema, "vector")))


def _scalar(connection: Connection, statement: LiteralString, arguments: Sequence[object] = ()) -> object:
    with translated_errors(), connection.cursor(row_factory=scalar_row) as cursor:
        return cast("object", cursor.execute(statement, arguments).fetchone())


def pending_work(connection: Connection) -> list[Pending]:
    """What could be claimed now; nothing of paused recommenders."""
    with translated_errors(), connection.cursor(row_factory=class_row(Pending)) as cursor:
        statement = "select recommender, work, backlog, leased, oldest, newest from dynrec._pending_work()"
        return cursor.execute(statement).fetchall()


def seconds_until_due(connection: Connection) -> float | None:
    """When the next retry or lease deadline has to be looked at, negative if it is past; None if there is none."""
    statement = "select extract(epoch from dynrec._next_due() - clock_timestamp())::double precision"
    return cast("float | None", _scalar(connection, statement))


def encoding(connection: Connection, recommender: str) -> Encoding:
    """What a recommender encodes with; UnknownNameError if there is none of that name."""
    with translated_errors(), connection.cursor(row_factory=class_row(Encoding)) as cursor:
        found = cursor.execute(
            "select encoder, family, model, dimension, adopted from dynrec._recommender_encoder(%s)", [recommender]
        ).fetchone()
    assert found is not None  # noqa: S101  the function raises for an unknown name
    return found


def encoders_in_use(connection: Connection) -> list[Encoding]:
    """What the recommenders encode with, each once."""
    with translated_errors(), connection.cursor(row_factory=class_row(Encoding)) as cursor:
        return cursor.execute(
            "select encoder, family, model, dimension, adopted from dynrec._encoders_in_use()"
        ).fetchall()


def claim(connection: Connection, recommender: str, kind: Kind, batch_size: int, lease: timedelta) -> UUID | None:
    """Lease the entities of up to `batch_size` changes for the time of `lease`; None if nothing waits."""
    statement = "select dynrec._claim(%s, %s, %s, %s)"
    return cast("UUID | None", _scalar(connection, statement, [recommender, kind, batch_size, lease]))


def claim_batch(
    connection: Connection, recommender: str, kind: Kind, batch_size: int, lease: timedelta, *, live_only: bool
) -> Claim | None:
    """`claim` with what can be told of the batch. `live_only`: leave a backfill to others."""
    with translated_errors(), connection.cursor(row_factory=class_row(Claim)) as cursor:
        return cursor.execute(
            """
            select token, entities, first_change, last_change, captured_at, live_ages, backfill_ages
            from dynrec._claim_batch(%s, %s, %s, %s, %s)
            """,
            [recommender, kind, batch_size, lease, live_only],
        ).fetchone()


def claim_items(
    connection: Connection, recommender: str, batch_size: int, lease: timedelta, *, live_only: bool
) -> tuple[Claim | None, Encoding]:
    """`claim_batch` for items, with `encoding` in the same round trip."""
    with translated_errors(), connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            """
            select encoder, family, model, dimension, adopted,
              token, entities, first_change, last_change, captured_at, live_ages, backfill_ages
            from dynrec._claim_items(%s, %s, %s, %s)
            """,
            [recommender, batch_size, lease, live_only],
        ).fetchone()
    assert found is not None  # noqa: S101  the function raises for an unknown name
    return Claim(*found[5:]) if found[5] else None, Encoding(*found[:5])


def leased_entities(connection: Connection, token: UUID) -> list[str]:
    """The keys of a lease's entities that are still its own."""
    return cast("list[str]", _scalar(connection, "select dynrec._leased_entities(%s)", [token]))


def read_items(connection: Connection, token: UUID) -> list[ItemRow]:
    """The source rows of a lease of items as they are now."""
    with translated_errors(), connection.cursor(row_factory=class_row(ItemRow)) as cursor:
        return cursor.execute(
            "select item_id, content, features::text, needs_vector from dynrec._read_items(%s)", [token]
        ).fetchall()


def publish_items(
    connection: Connection,
    token: UUID,
    rows: Sequence[ItemRow],
    hashes: Sequence[bytes],
    vectors: Sequence[npt.NDArray[np.float32]],
    derived: UUID | None = None,
    lease: timedelta | None = None,
) -> dict[str, Published]:
    """Store what was made of leased items; returns what became of each.

    `hashes` are the sha256 digests of distinct texts, `vectors` what they were encoded to. `derived`: the token of
    another lease, for the time of `lease`, of those that other models are made of; of live changes only.
    """
    arguments = (
        token,
        [row.item_id for row in rows],
        [row.content for row in rows],
        [row.features for row in rows],
        list(hashes),
        [Vector(vector) for vector in vectors],
        derived,
        lease,
    )
    with translated_errors(), connection.cursor(row_factory=tuple_row) as cursor:
        rows_published = cursor.execute(
            "select item_id, outcome, derives from dynrec._publish_items(%s, %s, %s, %s::jsonb[], %s, %b, %s, %s)",
            arguments,
        ).fetchall()
    return {item_id: Published(outcome, derives) for item_id, outcome, derives in rows_published}


def publish_adopted(
    connection: Connection, token: UUID, derived: UUID | None = None, lease: timedelta | None = None
) -> tuple[int, int]:
    """Publish a lease of items whose vectors are a column of the source.

    Returns how many were stored, and how many of them are leased by `derived` as by `publish_items`.
    """
    with translated_errors(), connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            "select published, derives from dynrec._publish_adopted(%s, %s, %s)", [token, derived, lease]
        ).fetchone()
    return cast("tuple[int, int]", row)


def publish_users(connection: Connection, token: UUID) -> int:
    """Fold the pending interactions of a lease of users into their vectors; returns how many users."""
    return cast("int", _scalar(connection, "select dynrec._publish_users(%s)", [token]))


def fail(connection: Connection, token: UUID, entities: Sequence[str], error: str, *, charge: bool) -> None:
    """Give leased entities back. `charge`: it was their own fault, which counts against their attempts."""
    _scalar(connection, "select dynrec._fail(%s, %s, %s, %s)", [token, list(entities), error, charge])


def expire_leases(connection: Connection) -> int:
    """End the leases that are past their deadline; returns how many."""
    return cast("int", _scalar(connection, "select dynrec._expire_leases()"))


def release_retries(connection: Connection) -> int:
    """Bring back the changes whose back-off is over; returns how many."""
    return cast("int", _scalar(connection, "select dynrec._release_retries()"))


def run_task(connection: Connection) -> str | None:
    """Do the next piece of set-based work and say what it was; None if there is none."""
    return cast("str | None", _scalar(connection, "select dynrec._run_task()"))


def maintain(connection: Connection) -> None:
    """Make partitions ahead, forget old history and heartbeats."""
    _scalar(connection, "select dynrec._maintain()")


def queue_batches(connection: Connection) -> int:
    """Queue the batches that are due; returns how many."""
    return cast("int", _scalar(connection, "select dynrec._queue_batches()"))


def take_profiles(connection: Connection) -> None:
    """Note what the inputs of model versions are like that have just been completed."""
    _scalar(connection, "select dynrec._take_profiles()")


def watch(connection: Connection) -> str | None:
    """Measure one recommender that is due; its name, or None if none is."""
    return cast("str | None", _scalar(connection, "select dynrec._watch_next()"))


def beat(connection: Connection, process: str, role: str, details: dict[str, object]) -> None:
    """Say that a process is alive, with details of its work."""
    _scalar(connection, "select dynrec._beat(%s, %s, %s)", [process, role, Jsonb(details)])


def last_beat(connection: Connection, processes: str) -> tuple[timedelta, dict[str, object]] | None:
    """How long ago the last of the processes whose names begin so said that it is alive, and its details."""
    with translated_errors():
        found = connection.execute("select age, details from dynrec._last_beat(%s)", [processes]).fetchone()
    return cast("tuple[timedelta, dict[str, object]] | None", found)


def begin_index_work(connection: Connection) -> IndexWork | None:
    """What the vector indexes need next, noted as begun; None if they need nothing now."""
    with translated_errors(), connection.cursor(row_factory=class_row(IndexWork)) as cursor:
        return cursor.execute(
            "select recommender, model_id, step, statement, replaced from dynrec._begin_index_work()"
        ).fetchone()


def execute_index_statement(connection: Connection, statement: str) -> None:
    """Execute a statement of `begin_index_work`; it may take hours, but waits for locks for INDEX_PATIENCE at most.

    A build waits for the end of every transaction that began before it.
    """
    with translated_errors():
        connection.execute("select set_config('lock_timeout', %s, false)", [INDEX_PATIENCE])
        try:
            connection.execute(statement.encode())
        finally:
            if not connection.closed:
                connection.execute("reset lock_timeout")


def end_index_work(connection: Connection, work: IndexWork, *, succeeded: bool) -> None:
    """Note the end of what was begun: the next build has to wait."""
    arguments = [work.model_id, work.step, work.replaced, succeeded]
    _scalar(connection, "select dynrec._end_index_work(%s, %s, %s, %s)", arguments)


def lock_indexes(connection: Connection) -> bool:
    """Become the one who builds indexes, until `unlock_indexes` or the end of the connection; False: another is."""
    return cast("bool", _scalar(connection, "select pg_try_advisory_lock(hashtext('dynrec.indexes'), 0)"))


def unlock_indexes(connection: Connection) -> None:
    """Let others build indexes."""
    _scalar(connection, "select pg_advisory_unlock(hashtext('dynrec.indexes'), 0)")


def may_sleep(connection: Connection) -> bool:
    """Whether writers would wake a sleeper: they never notify where transactions can be prepared."""
    return _scalar(connection, "select current_setting('max_prepared_transactions')") == "0"


def listen(connection: Connection) -> None:
    """Let this connection receive the notifications that wake a sleeper."""
    with translated_errors():
        connection.execute("listen dynrec_wake")


def fall_asleep(connection: Connection) -> bool:
    """Ask writers to notify from now on; False if one of them is just committing: then look again."""
    return cast("bool", _scalar(connection, "select pg_try_advisory_lock(dynrec._wake_key())"))


def wake_up(connection: Connection) -> None:
    """Writers need not notify any more."""
    _scalar(connection, "select pg_advisory_unlock(dynrec._wake_key())")


def wait_for_notifications(connection: Connection, seconds: float) -> list[str]:
    """Wait for a writer to wake us; what they say: 'item NAME' or 'user NAME', or nothing. Empty after `seconds`."""
    with translated_errors():
        return [notify.payload for notify in connection.notifies(timeout=seconds, stop_after=1)]
