"""Smaller vectors: what the index of a model version holds, and item vectors in half precision.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
EMBEDDING = "the vector; null: it is stored in half precision"
HALF = "the vector in half precision, where it is stored so"
INDEX = "what the index holds that reads go through: full, half or binary"
STORAGE = "how its item vectors are stored: full, half, or mixed while that changes"

OPTIONS = '{"vector_index": "full", "vector_storage": "full"}'

# In PostgreSQL 18 a partition that was attached has a constraint of its own that says not null.
# What is there is known to satisfy the new check: nobody reads it all to be sure.
PARTITIONS = """
    do $$
    declare
      leaf record;
    begin
      for leaf in
        select c.oid::regclass as name, k.conname, substring(pg_get_constraintdef(k.oid) from '= (\\d+)') as dimension
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        left join pg_constraint k on k.conrelid = c.oid and k.contype = 'c' and k.conname = c.relname || '_dimension'
        where i.inhparent in ('dynrec_data.item_vector'::regclass, 'dynrec_data.item_vector_history'::regclass)
      loop
        execute format('alter table %s alter column embedding drop not null', leaf.name);
        if leaf.conname is not null then
          execute format('alter table %1$s drop constraint %2$I, add constraint %2$I
            check (num_nonnulls(embedding, half) = 1 and coalesce(vector_dims(embedding), vector_dims(half)) = %3$s)
            not valid', leaf.name, leaf.conname, leaf.dimension);
        end if;
      end loop;
    end
    $$
"""

# The check went with column half, and indexes that are made of it as well.
PARTITIONS_BEFORE = """
    do $$
    declare
      leaf record;
    begin
      for leaf in
        select c.oid::regclass as name, m.id, m.dimension
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        left join dynrec_data.model_version m on c.relname = format('item_vector_%s', m.id)
        where i.inhparent in ('dynrec_data.item_vector'::regclass, 'dynrec_data.item_vector_history'::regclass)
      loop
        execute format('alter table %s alter column embedding set not null', leaf.name);
        if leaf.id is not null then
          execute format('alter table %s add constraint item_vector_%s_dimension check (vector_dims(embedding) = %s)',
            leaf.name, leaf.id, leaf.dimension);
        end if;
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
    op.execute(PARTITIONS)
    op.execute(f"update dynrec_data.recommender set options = '{OPTIONS}'::jsonb || options")


def downgrade() -> None:
    op.execute("update dynrec_data.recommender set options = options - '{vector_index,vector_storage}'::text[]")
    for table in ("item_vector", "item_vector_history"):
        op.execute(FULL.format(table))
        op.drop_column(table, "half", schema=SCHEMA)
    op.execute(PARTITIONS_BEFORE)
    for table in ("item_vector", "item_vector_history"):
        op.alter_column(table, "embedding", nullable=False, comment=None, schema=SCHEMA)
    for name in ("vector_storage", "vector_index"):
        op.drop_column("model_version", name, schema=SCHEMA)
