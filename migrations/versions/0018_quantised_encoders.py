"""Encoders of 8 bits.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

NAME = "encoder_family_check"
FAMILIES = "family in ('sentence-transformers', 'sentence-transformers-int8', 'hashing')"
FORGET = """
    delete from dynrec_data.encoder e where family = 'sentence-transformers-int8'
      and not exists (select from dynrec_data.model_version m where m.encoder = e.name)
"""
BEFORE = "family in ('sentence-transformers', 'hashing')"


def upgrade() -> None:
    """Allow the family of models in 8 bits."""
    op.drop_constraint(op.f(NAME), "encoder", schema="dynrec_data")
    op.create_check_constraint(op.f(NAME), "encoder", FAMILIES, schema="dynrec_data")


def downgrade() -> None:
    """Allow it no more; fails while a model version was made by such an encoder."""
    op.execute(FORGET)
    op.drop_constraint(op.f(NAME), "encoder", schema="dynrec_data")
    op.create_check_constraint(op.f(NAME), "encoder", BEFORE, schema="dynrec_data")
