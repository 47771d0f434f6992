"""What was measured when."""

from sqlalchemy import BigInteger, Column, Double, Integer, Table, Text

from dynrec_store.tables.base import TIME, metadata

measurement = Table(
    "measurement",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("at_k", Integer, primary_key=True, comment="length of the list; 0: not about lists"),
    Column("slice", Text, primary_key=True),
    Column("measured_at", TIME, primary_key=True),
    Column("model_id", Integer, primary_key=True),
    Column("period_from", TIME, comment="of the lists, and from then on what users did was looked at"),
    Column("value", Double, nullable=False),
    Column("standard_error", Double),
    Column("n", BigInteger, nullable=False, comment="units behind it, such as users or items"),
    comment="What the watch measured: quality, index recall, drift; kept for the option retention.",
)
