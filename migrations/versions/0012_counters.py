"""Counters that only grow: what was done, summed up over all processes, also those that have ended.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
KNOWN = "recommender_id = 0 or exists (select from dynrec_data.recommender r where r.id = recommender_id)"


def upgrade() -> None:
    op.create_table(
        "counter",
        sa.Column("recommender_id", sa.Integer(), nullable=False, comment="0: of no recommender"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", JSONB(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("recommender_id", "name", "labels", name="counter_pkey"),
        schema=SCHEMA,
        comment="What was done since the beginning, over all processes; it never shrinks.",
    )
    op.execute("alter table dynrec_data.counter enable row level security")
    op.execute(f"create policy reader on dynrec_data.counter for select using ({KNOWN})")


def downgrade() -> None:
    op.drop_table("counter", schema=SCHEMA)
