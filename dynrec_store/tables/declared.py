"""What is declared: encoders, recommenders, kinds of interaction, model versions."""

from sqlalchemy import Boolean, CheckConstraint, Column, Double, ForeignKey, Identity, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REGCLASS

from dynrec_store.tables.base import CLOCK, NOW, TIME, metadata

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
    CheckConstraint("family in ('sentence-transformers', 'sentence-transformers-int8', 'hashing')", name="family"),
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
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("content_model_id", Integer, comment="the model_version that a change of an item is encoded for first"),
    Column(
        "popularity_since", TIME, comment="from then on the popularity of the past is kept; null: it was never counted"
    ),
    Column("measured_at", TIME, comment="when the watch measured it last"),
    Column(
        "popularity_released_at",
        TIME,
        comment="when its differentially private popularity was released last; null: never",
    ),
    Column("batched_at", TIME, comment="when a batch last compared everything with the source"),
    Column(
        "events_since",
        TIME,
        comment="since when every interaction that came or went is known; null: from the start",
    ),
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

trusted_owner = Table(
    "trusted_owner",
    metadata,
    Column("owner", Text, primary_key=True, comment="name of the role"),
    Column("trusted_at", TIME, nullable=False, server_default=CLOCK),
    comment="Roles without the rights of the owner of dynrec whose tables are read nevertheless.",
)
