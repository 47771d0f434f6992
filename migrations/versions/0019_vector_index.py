"""What the vector index of a model version holds: full vectors, half precision, or their signs.

Revision ID: 0019
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "model_version",
        sa.Column(
            "vector_index",
            sa.Text,
            nullable=False,
            server_default=sa.text("'full'"),
            comment="what the index holds that reads go through: full, half or binary",
        ),
        schema="dynrec_data",
    )


def downgrade() -> None:
    op.drop_column("model_version", "vector_index", schema="dynrec_data")
