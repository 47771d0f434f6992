"""Impressions: which lists were shown to whom.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)

DEFAULT_PARTITION = """
    create table dynrec_data.impression_default partition of dynrec_data.impression default;
    comment on table dynrec_data.impression_default is
        'Lists that no monthly partition takes: rows here are an alarm.';
"""


def upgrade() -> None:
    op.create_table(
        "impression",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("shown_at", TIME, nullable=False),
        sa.Column("list_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("item_ids", ARRAY(sa.Text()), nullable=False, comment="in the order shown"),
        sa.Column(
            "first_position", sa.Integer(), nullable=False, comment="of the first item; 11 on a second page of 10"
        ),
        sa.Column("model_version", sa.Integer(), comment="that made the list; null: another system"),
        sa.Column("surface", sa.Text(), comment="where it was shown, such as home or basket"),
        sa.Column("experiment", sa.Text()),
        sa.Column("arm", sa.Text()),
        sa.Column(
            "propensities",
            ARRAY(sa.Double()),
            comment="with which probability each item was shown at its position; null: not known",
        ),
        sa.PrimaryKeyConstraint("recommender_id", "user_id", "shown_at", "list_id", name="impression_pkey"),
        schema=SCHEMA,
        postgresql_partition_by="RANGE (shown_at)",
        comment="What was shown, a row for each list; one partition a month.",
    )
    op.execute(DEFAULT_PARTITION)


def downgrade() -> None:
    op.drop_table("impression", schema=SCHEMA)
