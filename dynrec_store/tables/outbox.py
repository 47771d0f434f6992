"""What others have not been told yet."""

from sqlalchemy import BigInteger, Column, Identity, Index, Integer, Table, Text, Uuid, text

from dynrec_store.tables.base import CLOCK, TIME, metadata

outbox = Table(
    "outbox",
    metadata,
    Column("model_id", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True, comment="item or user"),
    Column("entity", Text, primary_key=True, comment="the entity's key as text"),
    Column("recommender_id", Integer, nullable=False),
    Column(
        "id", BigInteger, Identity(always=True), nullable=False, comment="the place in the line, kept until it is told"
    ),
    Column(
        "version",
        Uuid,
        nullable=False,
        server_default=text("gen_random_uuid()"),
        comment="another one for each vector: what was told is deleted only if it has not changed since",
    ),
    Column("valid_from", TIME, nullable=False, comment="of the vector, or when there was none any more"),
    Column("written_at", TIME, nullable=False, server_default=CLOCK, comment="since when it waits"),
    Column("error", Text, comment="why it cannot be told: it waits for another vector or for retry_failed"),
    Index(
        "outbox_head",
        "recommender_id",
        "kind",
        "id",
        postgresql_where=text("error is null"),
        info={"comment": "_outbox_read, _outbox_settle: those that have waited longest"},
    ),
    # as of the queue: rows come and go all day
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "2000",
        "autovacuum_vacuum_cost_delay": "0",
    },
    comment="Vectors that others are to be told of, each once, however often it changed meanwhile.",
)
