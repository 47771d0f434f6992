"""What batches and the stream remember of what they have seen."""

from sqlalchemy import BigInteger, Boolean, Column, Integer, Numeric, Table, Text

from dynrec_store.tables.base import metadata

stream_position = Table(
    "stream_position",
    metadata,
    Column("slot", Text, primary_key=True),
    Column("applied", Text, nullable=False, comment="LSN of the last commit whose changes are in the queue"),
    Column(
        "stands",
        Boolean,
        nullable=False,
        comment="the slot that this speaks of has been made, and what came before it is scanned for",
    ),
    comment="How far the replication slot has been read; written with the changes that were read.",
)

stream_span = Table(
    "stream_span",
    metadata,
    Column("recommender_id", Integer, primary_key=True, autoincrement=False),
    Column(
        "starts_at",
        Text,
        primary_key=True,
        comment="LSN: what was committed before, triggers or a scan have seen",
    ),
    Column("ends_at", Text, comment="LSN: what is committed from then on, triggers or batches see; null: it goes on"),
    Column(
        "counted",
        Text,
        comment="snapshot of the last count of popularity: interactions in it are not added again",
    ),
    comment="Which commits a recommender takes from the stream.",
)

user_fingerprint = Table(
    "user_fingerprint",
    metadata,
    Column("recommender_id", Integer, primary_key=True, autoincrement=False),
    Column("user_id", Text, primary_key=True),
    Column("events", BigInteger, nullable=False),
    Column("fingerprint", Numeric, nullable=False, comment="sum of the hashes of the interactions"),
    comment="What the last batch found of each user, so that the next one sees who changed.",
)
