"""How often a training was begun that did not end.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

COMMENT = "trainings in a row that were begun and did not end, as yet"


def upgrade() -> None:
    column = sa.Column(
        "training_attempts", sa.SmallInteger, nullable=False, server_default=sa.text("0"), comment=COMMENT
    )
    op.add_column("model_version", column, schema="dynrec_data")


def downgrade() -> None:
    op.drop_column("model_version", "training_attempts", schema="dynrec_data")
