"""The outbox, as the publisher sees it: one function here for each function in sql/46_outbox.sql."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection


@dataclass(frozen=True)
class Lane:
    """What is told of in turn with others: the items or the users of a recommender."""

    recommender: str
    kind: str  # item or user

    def __str__(self) -> str:
        return f"{self.kind}s of {self.recommender}"


@dataclass(frozen=True)
class Event:
    """What others are to be told of a vector."""

    id: int
    version: UUID
    key: str  # JSON: recommender, kind, entity, model version
    event: str  # JSON


def become_publisher(connection: Connection) -> bool:
    """Become the one who publishes from this database, until the end of the connection; False: another does."""
    with translated_errors():
        row = connection.execute("select pg_try_advisory_lock(hashtext('dynrec.publish'), 0)").fetchone()
    return row == (True,)


def lanes(connection: Connection) -> list[Lane]:
    """The lanes in which something waits."""
    with translated_errors(), connection.cursor(row_factory=class_row(Lane)) as cursor:
        return cursor.execute("select recommender, kind from dynrec._outbox_lanes()").fetchall()


def read(connection: Connection, lane: Lane, most: int) -> list[Event]:
    """What has waited longest, at most so much."""
    with translated_errors(), connection.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute(
            "select id, version, key, event from dynrec._outbox_read(%s, %s, %s)", [lane.recommender, lane.kind, most]
        ).fetchall()


def settle(connection: Connection, lane: Lane, told: Sequence[tuple[Event, str | None]]) -> None:
    """Remove what others have been told of, and set aside what they cannot be told of: that with an error."""
    ids = [event.id for event, _ in told]
    versions = [event.version for event, _ in told]
    errors = [error for _, error in told]
    with translated_errors():
        connection.execute(
            "select dynrec._outbox_settle(%s, %s, %s::bigint[], %s::uuid[], %s::text[])",
            [lane.recommender, lane.kind, ids, versions, errors],
        )
