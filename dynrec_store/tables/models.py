"""Model versions, what they were made of, and when they answered."""

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from dynrec_store.tables.base import NOW, TIME, metadata
from dynrec_store.tables.declared import encoder, recommender

STATES = (
    "staged -> training -> backfilling -> shadow -> active <-> standby -> retired; failed: training gave up; "
    "a new encoder needs no training"
)

model_version = Table(
    "model_version",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("recommender_id", Integer, ForeignKey(recommender.c.id, ondelete="CASCADE"), nullable=False),
    Column("encoder", Text, ForeignKey(encoder.c.name), comment="null: vectors come from the application"),
    Column("dimension", Integer, nullable=False, comment="of the item vectors; 0 until the model is trained"),
    Column("state", Text, nullable=False, comment=STATES),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column(
        "kind",
        Text,
        nullable=False,
        server_default=text("'content'"),
        comment="content: vectors are the encoder's; learned: trained on the interactions",
    ),
    Column(
        "base_model_id",
        Integer,
        ForeignKey("dynrec_data.model_version.id"),
        comment="learned: the content model whose vectors its towers read",
    ),
    Column("parent_model_id", Integer, comment="the model that training went on from"),
    Column("data_from", TIME, comment="interactions from here on were learned from"),
    Column("data_until", TIME, comment="data cut-off: interactions before it were learned from"),
    Column("options", JSONB, nullable=False, server_default=text("'{}'"), comment="of training"),
    Column("config", JSONB, nullable=False, server_default=text("'{}'"), comment="what SQL serves the model with"),
    Column("metrics", JSONB, nullable=False, server_default=text("'{}'"), comment="on the validation period"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'"), comment="what cleaning dropped and clipped"),
    Column("error", Text, comment="why training failed"),
    Column("stored_at", TIME, comment="when its backfill began"),
    Column("refreshed_at", TIME, comment="when the features that move with time were last read for all items"),
    Column("profile", JSONB, comment="how its inputs and vectors were distributed when it was made"),
    Column(
        "forgotten_users",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="users it learned from who were forgotten since",
    ),
    Column(
        "vector_index",
        Text,
        nullable=False,
        server_default=text("'full'"),
        comment="what the index holds that reads go through: full, half or binary",
    ),
    Column(
        "vector_storage",
        Text,
        nullable=False,
        server_default=text("'full'"),
        comment="how its item vectors are stored: full, half, or mixed while that changes",
    ),
    Column(
        "training_attempts",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="trainings in a row that were begun and did not end, as yet",
    ),
    CheckConstraint(
        "state in ('staged', 'training', 'failed', 'backfilling', 'shadow', 'active', 'standby', 'retired')",
        name="state",
    ),
    CheckConstraint("kind in ('content', 'learned')", name="kind"),
    comment="One vector space of a recommender; its vectors lie in partitions of their own.",
)

model_artefact = Table(
    "model_artefact",
    metadata,
    Column("model_id", Integer, ForeignKey(model_version.c.id, ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False, comment="safetensors, skops or JSON: nothing that executes code"),
    comment="The files of a trained model: weights, and what was fitted to prepare its features.",
)

item_transition = Table(
    "item_transition",
    metadata,
    Column("model_id", Integer, ForeignKey(model_version.c.id, ondelete="CASCADE"), primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("pace", SmallInteger, primary_key=True, comment="which of the config's transitions, from 1"),
    Column("next_item_ids", ARRAY(Text), nullable=False, comment="what tends to come right after the item"),
    Column("weights", ARRAY(REAL), nullable=False, comment="how much each of them follows"),
    comment="Which items come right after which, as a learned model found it in training.",
)

model_activation = Table(
    "model_activation",
    metadata,
    Column("recommender_id", Integer, ForeignKey(recommender.c.id, ondelete="CASCADE"), primary_key=True),
    Column("activated_at", TIME, primary_key=True, comment="from then on this model answers"),
    Column("model_id", Integer, nullable=False),
    Index(
        "model_activation_model",
        "model_id",
        info={"comment": "rollback_model, reads as of a moment: which model answered when"},
    ),
    comment="Which model version answered since when: promotions and rollbacks.",
)

vector_index = Table(
    "vector_index",
    metadata,
    Column("model_id", Integer, ForeignKey(model_version.c.id, ondelete="CASCADE"), primary_key=True),
    Column("begun_at", TIME, nullable=False, comment="when a worker last began to build it"),
    Column("attempts", SmallInteger, nullable=False, comment="builds in a row that did not succeed, as yet"),
    Column("memory", BigInteger, nullable=False, comment="maintenance_work_mem of the last build, in bytes"),
    Column(
        "not_before",
        TIME,
        nullable=False,
        server_default=text("'-infinity'"),
        comment="when it may be built again, whatever has been replaced until then",
    ),
    Column("built_at", TIME, comment="when a build last succeeded"),
    Column(
        "built_from",
        BigInteger,
        comment="how many vectors the server had counted as replaced when that build began",
    ),
    Column("vacuumed_at", TIME, comment="when the vacuum after a build last began"),
    Column("cleaned_from", BigInteger, comment="the same count when a vacuum began that cleaned the indexes"),
    comment="What was done for the vector index of a model version, so that workers agree on what is due.",
)
