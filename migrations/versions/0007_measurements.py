"""Watching quality: what was measured when, and what the inputs of a model version were like.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "measurement",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("at_k", sa.Integer(), nullable=False, comment="length of the list; 0: not about lists"),
        sa.Column("slice", sa.Text(), nullable=False),
        sa.Column("measured_at", TIME, nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("period_from", TIME, comment="of the lists, and from then on what users did was looked at"),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("standard_error", sa.Double()),
        sa.Column("n", sa.BigInteger(), nullable=False, comment="units behind it, such as users or items"),
        sa.PrimaryKeyConstraint(
            "recommender_id", "metric", "at_k", "slice", "measured_at", "model_id", name="measurement_pkey"
        ),
        schema=SCHEMA,
        comment="What the watch measured: quality, index recall, drift; kept for the option retention.",
    )
    op.add_column(
        "model_version",
        sa.Column("profile", JSONB(), comment="how its inputs and vectors were distributed when it was made"),
        schema=SCHEMA,
    )
    op.add_column(
        "recommender",
        sa.Column("measured_at", TIME, comment="when the watch measured it last"),
        schema=SCHEMA,
    )
    op.execute("""update dynrec_data.recommender set options = '{"measure_every": "1 day"}'::jsonb || options""")


def downgrade() -> None:
    op.execute("update dynrec_data.recommender set options = options - 'measure_every'")
    op.drop_column("recommender", "measured_at", schema=SCHEMA)
    op.drop_column("model_version", "profile", schema=SCHEMA)
    op.drop_table("measurement", schema=SCHEMA)
