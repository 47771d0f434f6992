"""What was shown to users."""

from sqlalchemy import Column, Double, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY

from dynrec_store.tables.base import TIME, metadata

impression = Table(
    "impression",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("shown_at", TIME, primary_key=True),
    Column("list_id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("item_ids", ARRAY(Text), nullable=False, comment="in the order shown"),
    Column("first_position", Integer, nullable=False, comment="of the first item; 11 on a second page of 10"),
    Column("model_version", Integer, comment="that made the list; null: another system"),
    Column("surface", Text, comment="where it was shown, such as home or basket"),
    Column("experiment", Text),
    Column("arm", Text),
    Column(
        "propensities",
        ARRAY(Double),
        comment="with which probability each item was shown at its position; null: not known",
    ),
    Index(
        "impression_shown",
        "shown_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
        info={"comment": "_forget_old_history: what was shown before a moment"},
    ),
    postgresql_partition_by="RANGE (shown_at)",
    comment="What was shown, a row for each list; one partition a month.",
)
