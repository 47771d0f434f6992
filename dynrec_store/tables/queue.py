"""The queue: changes, leases, retries, dead letters, tasks."""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from dynrec_store.tables.base import CLOCK, TIME, metadata

change = Table(
    "change",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("recommender_id", Integer, nullable=False),
    Column("kind", Text, nullable=False, comment="item, derived (its vector of another model) or user"),
    Column("entity", Text, nullable=False, comment="the entity's key as text"),
    Column(
        "op",
        Text,
        nullable=False,
        comment="insert or delete: an interaction came or went; refresh: read the source again, "
        "came or went: the same, from the stream: read the source again, too",
    ),
    Column(
        "lane",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="0: live, 1: backfill, 8: to be claimed alone, 9: waits for its retry",
    ),
    Column("captured_at", TIME, nullable=False, server_default=CLOCK),
    Column("item_id", Text, comment="this and the rest describe an interaction"),
    Column("event_kind", Text),
    Column("value", Double),
    Column("occurred_at", TIME),
    Index(
        "change_head",
        "recommender_id",
        "kind",
        "lane",
        "id",
        info={"comment": "_claim: the oldest changes, live ones first"},
    ),
    Index(
        "change_entity",
        "entity",
        "kind",
        "recommender_id",
        info={"comment": "recommend: interactions that no user vector holds yet; _publish_*: deletes what was claimed"},
    ),
    # Rows come and go all day: vacuum by their number, not by the size that the table once had, and without pauses.
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "2000",
        "autovacuum_vacuum_cost_delay": "0",
    },
    comment="The queue. Capture only appends; a row stays until the publish that used it deletes exactly it.",
)

lease = Table(
    "lease",
    metadata,
    Column("recommender_id", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    PrimaryKeyConstraint("entity", "kind", "recommender_id"),
    Column("token", Uuid, nullable=False, comment="one for each claim"),
    Column("deadline", TIME, nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("lane", SmallInteger, nullable=False, comment="of the changes that were claimed"),
    Column("change_ids", ARRAY(BigInteger), nullable=False, comment="the changes that this claim will use up"),
    Column("captured_at", TIME, nullable=False, comment="of the oldest of them"),
    Column("claimed_at", TIME, nullable=False, server_default=CLOCK),
    Index("lease_token", "token", info={"comment": "_read_items, _publish_*, _fail: the entities of a claim"}),
    Index("lease_deadline", "deadline", info={"comment": "_expire_leases, _next_due: what ran out"}),
    comment="Entities that a worker has claimed. No lease, no publish.",
)

retry = Table(
    "retry",
    metadata,
    Column("recommender_id", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    PrimaryKeyConstraint("entity", "kind", "recommender_id"),
    Column("attempts", SmallInteger, nullable=False),
    Column("not_before", TIME, nullable=False),
    Column("error", Text, nullable=False),
    Index(
        "retry_due",
        "not_before",
        info={"comment": "_release_retries, _next_due: what has waited long enough"},
    ),
    comment="Entities that failed and wait for their next try.",
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("recommender_id", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    PrimaryKeyConstraint("entity", "kind", "recommender_id"),
    Column("attempts", SmallInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("failed_at", TIME, nullable=False, server_default=CLOCK),
    comment="Entities that failed too often; retry_failed() brings them back.",
)

task = Table(
    "task",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("recommender_id", Integer, nullable=False),
    Column(
        "action",
        Text,
        nullable=False,
        comment="scan_items, scan_derived, scan_users, await_writers, batch_items, batch_users, fill_users, audience, "
        "popularity, begin_outbox, fill_outbox or retire",
    ),
    Column("entity", Text, comment="audience: the item whose vector moved; batch_items: the transactions to wait for"),
    Column("captured_at", TIME, nullable=False, server_default=CLOCK),
    Index("task_recommender", "recommender_id", "action", info={"comment": "_pending_work; equal tasks are one"}),
    comment="Work on whole sets, done by the maintenance queue; the row is gone when it is done.",
)
