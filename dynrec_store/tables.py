"""The tables of schema dynrec_data, for Alembic to compare with. They are private: only sql/ reads and writes them.

A comment in `info` belongs to an index and names the query that it serves. Tables without foreign keys change all the
time; drop_recommender clears them.
"""

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REGCLASS, TIMESTAMP, TSVECTOR

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)
NOW = text("now()")  # when the transaction began
CLOCK = text("clock_timestamp()")  # this instant

# The names that PostgreSQL would choose itself.
metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    },
)

VALID_FROM = "since when it is true in the world"
VALID_TO = "until when it was true in the world"
CREATED_AT = "when the system learnt it"
REPLACED_AT = "when the system learnt what came after it"
STATE = "one decayed sum of item vectors for each of half_lives, as at reference_time"
HALF_LIVES = "those of the recommender when this was made, in seconds"

encoder = Table(
    "encoder",
    metadata,
    Column("name", Text, primary_key=True),
    Column("family", Text, nullable=False),
    Column(
        "model",
        Text,
        nullable=False,
        comment="a model's name or folder; package:NAME for one inside a Python package; empty for hashing",
    ),
    Column("dimension", Integer, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("family in ('sentence-transformers', 'hashing')", name="family"),
    CheckConstraint("dimension between 1 and 16000", name="dimension"),
    comment="What turns texts into vectors: named in create_recommender(encoder => …).",
)

recommender = Table(
    "recommender",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("items", REGCLASS, nullable=False, comment="the application's table of items"),
    Column("item_key", Text, nullable=False, comment="its unique column"),
    Column("item_key_type", Text, nullable=False),
    Column("text_columns", ARRAY(Text), nullable=False),
    Column("numeric_columns", ARRAY(Text), nullable=False),
    Column("categorical_columns", ARRAY(Text), nullable=False),
    Column("vector_column", Text, comment="set: the application makes the vectors, no encoder does"),
    Column("interactions", REGCLASS, comment="the application's table of user-item events"),
    Column("user_column", Text),
    Column("user_key_type", Text),
    Column("item_column", Text),
    Column("item_ref_type", Text, comment="type of item_column, which may differ from item_key_type"),
    Column("time_column", Text),
    Column("kind_column", Text),
    Column("value_column", Text),
    Column(
        "half_lives",
        ARRAY(Double),
        nullable=False,
        comment="distinct half-lives in seconds, ascending; user_vector.state has one sum for each",
    ),
    Column("options", JSONB, nullable=False, server_default=text("'{}'")),
    Column("active_model_id", Integer, comment="the model_version that answers"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column(
        "popularity_landmark",
        TIME,
        nullable=False,
        server_default=NOW,
        comment="the moment at which item_popularity counts an event with weight 1",
    ),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    comment="A declared recommender: which tables and columns it watches, and its options.",
)

interaction_kind = Table(
    "interaction_kind",
    metadata,
    Column("recommender_id", Integer, ForeignKey(recommender.c.id, ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("weight", Double, nullable=False, comment="negative: the event speaks against the item"),
    Column("half_life", Double, nullable=False, comment="seconds after which the event counts half"),
    comment="Weight and half-life of each kind of interaction.",
)

model_version = Table(
    "model_version",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("recommender_id", Integer, ForeignKey(recommender.c.id, ondelete="CASCADE"), nullable=False),
    Column("encoder", Text, ForeignKey(encoder.c.name), comment="null: vectors come from the application"),
    Column("dimension", Integer, nullable=False),
    Column("state", Text, nullable=False, comment="active -> retired"),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("state in ('active', 'retired')", name="state"),
    comment="One vector space of a recommender; its vectors lie in partitions of their own.",
)

change = Table(
    "change",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("recommender_id", Integer, nullable=False),
    Column("kind", Text, nullable=False, comment="item or user"),
    Column("entity", Text, nullable=False, comment="the entity's key as text"),
    Column(
        "op",
        Text,
        nullable=False,
        comment="insert or delete: an interaction came or went; refresh: read the source again",
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
        "recommender_id",
        "kind",
        "entity",
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
    Column("recommender_id", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
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
    Column("recommender_id", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
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
    Column("recommender_id", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
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
    Column("action", Text, nullable=False, comment="scan_items, scan_users, audience or popularity"),
    Column("entity", Text, comment="audience: the item whose vector moved"),
    Column("captured_at", TIME, nullable=False, server_default=CLOCK),
    Index("task_recommender", "recommender_id", "action", info={"comment": "_pending_work; equal tasks are one"}),
    comment="Work on whole sets, done by the maintenance queue; the row is gone when it is done.",
)

item_content = Table(
    "item_content",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False, comment="sha256 of the text that was encoded"),
    Column("document", TSVECTOR, nullable=False),
    Column("features", JSONB, nullable=False, comment="the numeric and categorical columns"),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    Index(
        "item_content_hash",
        "recommender_id",
        "content_hash",
        info={"comment": "_read_items: an item with an equal text, whose vector can be copied"},
    ),
    Index(
        "item_content_document",
        "document",
        postgresql_using="gin",
        info={"comment": "search: the full-text half"},
    ),
    comment="What an item's source row said when it was last read.",
)

item_content_history = Table(
    "item_content_history",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("features", JSONB, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("valid_to", TIME, primary_key=True, comment=VALID_TO),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, nullable=False, comment=REPLACED_AT),
    postgresql_partition_by="RANGE (valid_to)",
    comment="What item_content said before; one partition a month.",
)

item_vector = Table(
    "item_vector",
    metadata,
    Column("model_id", Integer, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("embedding", Vector, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    PrimaryKeyConstraint("item_id", "model_id"),
    postgresql_partition_by="LIST (model_id)",
    comment="The current vector of each item; partition item_vector_N belongs to model version N.",
)

item_vector_history = Table(
    "item_vector_history",
    metadata,
    Column("model_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("embedding", Vector, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("valid_to", TIME, primary_key=True, comment=VALID_TO),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, nullable=False, comment=REPLACED_AT),
    postgresql_partition_by="RANGE (valid_to)",
    comment="The item vectors of before; one partition a month.",
)

user_vector = Table(
    "user_vector",
    metadata,
    Column("model_id", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("state", ARRAY(Vector), nullable=False, comment=STATE),
    Column("half_lives", ARRAY(Double), nullable=False, comment=HALF_LIVES),
    Column("reference_time", TIME, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    PrimaryKeyConstraint("user_id", "model_id"),
    postgresql_partition_by="LIST (model_id)",
    comment="The current vector of each user; partition user_vector_N belongs to model version N.",
)

user_vector_history = Table(
    "user_vector_history",
    metadata,
    Column("model_id", Integer, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("state", ARRAY(Vector), nullable=False, comment=STATE),
    Column("half_lives", ARRAY(Double), nullable=False, comment=HALF_LIVES),
    Column("reference_time", TIME, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("valid_to", TIME, primary_key=True, comment=VALID_TO),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, nullable=False, comment=REPLACED_AT),
    Column(
        "closing_events",
        JSONB,
        nullable=False,
        comment="the interactions that the next version folded in, with captured_at: reads as of between need them",
    ),
    postgresql_partition_by="RANGE (valid_to)",
    comment="The user vectors of before; one partition a month.",
)

item_popularity = Table(
    "item_popularity",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column(
        "score",
        Double,
        nullable=False,
        comment="sum of weight * 2^((event's time - recommender.popularity_landmark) / half-life)",
    ),
    Column("event_count", BigInteger, nullable=False),
    Index("item_popularity_score", "recommender_id", text("score desc"), info={"comment": "trending: the top"}),
    comment="Forward-decayed popularity: its order needs no rewriting as time passes.",
)

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("process", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("beat_at", TIME, nullable=False, server_default=CLOCK),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    comment="Which dispatchers and workers are alive.",
)

code = Table(
    "code",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),
    Column("hash", Text, nullable=False, comment="sha256 of the files in sql/"),
    Column(
        "vector_schema",
        Text,
        nullable=False,
        comment="where pgvector lived then: functions have it in their path",
    ),
    Column("applied_at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("id", name="id"),
    comment="Which state of sql/ schema dynrec is in: one row.",
)
