"""What is kept of users who were forgotten."""

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Table

from dynrec_store.tables.base import TIME, metadata
from dynrec_store.tables.declared import recommender

forgotten_user = Table(
    "forgotten_user",
    metadata,
    Column("recommender_id", Integer, ForeignKey(recommender.c.id, ondelete="CASCADE"), primary_key=True),
    Column("user_hash", LargeBinary, primary_key=True, comment="sha256 of the recommender's number and the key"),
    Column("forgotten_at", TIME, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="sha256 of the last receipt"),
    comment="Users who were forgotten: what they do is not read or captured any more.",
)
