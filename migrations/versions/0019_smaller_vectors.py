"""Smaller vectors: what the index of a model version holds, and item vectors in half precision.

Revision ID: 0019
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
EMBEDDING = "the vector; null: it is stored in half precision"
HALF = "the vector in half precision, where it is stored so"
INDEX = "what the index holds that reads go through: full, half or binary"
STORAGE = "how its item vectors are stored: full, half, or mixed while that changes"

# In PostgreSQL 18 a partition that was attached has a constraint of its own.
EACH = """
    do $$
    declare
      leaf regclass;
    begin
      for leaf in
        select i.inhrelid::regclass from pg_inherits i
        where i.inhparent in ('dynrec_data.item_vector'::regclass, 'dynrec_data.item_vector_history'::regclass)
      loop
        execute format('alter table %s alter column embedding drop not null', leaf);
      end loop;
    end
    $$
"""

# Full vectors are not made again of halves by themselves: they stay rounded.
FULL = "update dynrec_data.{} set embedding = half::vector where embedding is null"


def upgrade() -> None:
    for name, comment in (("vector_index", INDEX), ("vector_storage", STORAGE)):
        column = sa.Column(name, sa.Text, nullable=False, server_default=sa.text("'full'"), comment=comment)
        op.add_column("model_version", column, schema=SCHEMA)
    for table in ("item_vector", "item_vector_history"):
        op.add_column(table, sa.Column("half", HALFVEC(), comment=HALF), schema=SCHEMA)
        op.alter_column(table, "embedding", nullable=True, comment=EMBEDDING, schema=SCHEMA)
    op.execute(EACH)


def downgrade() -> None:
    for table in ("item_vector", "item_vector_history"):
        op.execute(FULL.format(table))
        op.drop_column(table, "half", schema=SCHEMA)
        op.alter_column(table, "embedding", nullable=False, comment=None, schema=SCHEMA)
    for name in ("vector_storage", "vector_index"):
        op.drop_column("model_version", name, schema=SCHEMA)
