"""Experiments: arms that users are divided among, and who was exposed to them.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False, comment="that the verdict is about"),
        sa.Column(
            "within",
            sa.Interval(),
            nullable=False,
            comment="how long after the first exposure what a user does counts",
        ),
        sa.Column("conversion_kinds", ARRAY(sa.Text()), comment="interactions that are conversions; null: any"),
        sa.Column(
            "planned_users",
            sa.BigInteger(),
            nullable=False,
            comment="with so many users the sequential intervals are tightest",
        ),
        sa.Column("started_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("ended_at", TIME, comment="null: it runs"),
        sa.ForeignKeyConstraint(
            ["recommender_id"],
            [f"{SCHEMA}.recommender.id"],
            name="experiment_recommender_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="experiment_pkey"),
        sa.UniqueConstraint("recommender_id", "name", name="experiment_recommender_id_key"),
        schema=SCHEMA,
        comment="An experiment: users are divided among arms by a hash of their keys.",
    )
    op.create_table(
        "experiment_traffic",
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column(
            "traffic", sa.Double(), nullable=False, comment="share of the users that take part, above 0 and up to 1"
        ),
        sa.CheckConstraint("traffic > 0 and traffic <= 1", name="traffic"),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            [f"{SCHEMA}.experiment.id"],
            name="experiment_traffic_experiment_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "since", name="experiment_traffic_pkey"),
        schema=SCHEMA,
        comment="How many users took part since when; it only grows.",
    )
    op.create_table(
        "experiment_arm",
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False, comment="from 1, the baseline"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "share",
            sa.Double(),
            nullable=False,
            comment="of those who take part; the shares of all arms add up to 1",
        ),
        sa.Column(
            "upper_bound",
            sa.Double(),
            nullable=False,
            comment="the arm of users who draw less, and not less than the last",
        ),
        sa.Column("model_id", sa.Integer(), comment="that answers; null: whichever is active"),
        sa.Column(
            "options",
            JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="arguments of recommend: diversity, exclude_seen",
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            [f"{SCHEMA}.experiment.id"],
            name="experiment_arm_experiment_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "position", name="experiment_arm_pkey"),
        sa.UniqueConstraint("experiment_id", "name", name="experiment_arm_experiment_id_key"),
        schema=SCHEMA,
        comment="What the users of a part of an experiment get.",
    )
    op.create_index("experiment_arm_model", "experiment_arm", ["model_id"], schema=SCHEMA)
    op.execute(
        "comment on index dynrec_data.experiment_arm_model is "
        "'retire_model, promote_model: whether an experiment needs a model version'"
    )
    op.create_table(
        "exposure",
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("arm", sa.SmallInteger(), nullable=False, comment="position of the arm"),
        sa.Column("exposed_at", TIME, nullable=False, comment="for the first time"),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            [f"{SCHEMA}.experiment.id"],
            name="exposure_experiment_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "user_id", name="exposure_pkey"),
        schema=SCHEMA,
        comment="Who met an experiment, and when for the first time: the units of its analysis.",
    )


def downgrade() -> None:
    op.drop_table("exposure", schema=SCHEMA)
    op.drop_table("experiment_arm", schema=SCHEMA)
    op.drop_table("experiment_traffic", schema=SCHEMA)
    op.drop_table("experiment", schema=SCHEMA)
