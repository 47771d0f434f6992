"""Counters and the state of the system itself."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Double, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from dynrec_store.tables.base import CLOCK, NOW, TIME, metadata

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
