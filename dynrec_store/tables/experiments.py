"""Experiments: their arms, and who was exposed to them."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from dynrec_store.tables.base import CLOCK, TIME, metadata
from dynrec_store.tables.declared import recommender

experiment = Table(
    "experiment",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("recommender_id", Integer, ForeignKey(recommender.c.id, ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("metric", Text, nullable=False, comment="that the verdict is about"),
    Column("within", Interval, nullable=False, comment="how long after the first exposure what a user does counts"),
    Column("conversion_kinds", ARRAY(Text), comment="interactions that are conversions; null: any"),
    Column(
        "planned_users", BigInteger, nullable=False, comment="with so many users the sequential intervals are tightest"
    ),
    Column("started_at", TIME, nullable=False, server_default=CLOCK),
    Column("ended_at", TIME, comment="null: it runs"),
    UniqueConstraint("recommender_id", "name"),
    comment="An experiment: users are divided among arms by a hash of their keys.",
)

experiment_traffic = Table(
    "experiment_traffic",
    metadata,
    Column("experiment_id", Integer, ForeignKey(experiment.c.id, ondelete="CASCADE"), primary_key=True),
    Column("since", TIME, primary_key=True),
    Column("traffic", Double, nullable=False, comment="share of the users that take part, above 0 and up to 1"),
    CheckConstraint("traffic > 0 and traffic <= 1", name="traffic"),
    comment="How many users took part since when; it only grows.",
)

experiment_arm = Table(
    "experiment_arm",
    metadata,
    Column("experiment_id", Integer, ForeignKey(experiment.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", SmallInteger, primary_key=True, comment="from 1, the baseline"),
    Column("name", Text, nullable=False),
    Column("share", Double, nullable=False, comment="of those who take part; the shares of all arms add up to 1"),
    Column("upper_bound", Double, nullable=False, comment="the arm of users who draw less, and not less than the last"),
    Column("model_id", Integer, comment="that answers; null: whichever is active"),
    Column(
        "options",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="arguments of recommend: diversity, exclude_seen",
    ),
    UniqueConstraint("experiment_id", "name"),
    Index(
        "experiment_arm_model",
        "model_id",
        info={"comment": "retire_model, promote_model: whether an experiment needs a model version"},
    ),
    comment="What the users of a part of an experiment get.",
)

exposure = Table(
    "exposure",
    metadata,
    Column("experiment_id", Integer, ForeignKey(experiment.c.id, ondelete="CASCADE"), primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("arm", SmallInteger, nullable=False, comment="position of the arm"),
    Column("exposed_at", TIME, nullable=False, comment="for the first time"),
    comment="Who met an experiment, and when for the first time: the units of its analysis.",
)
