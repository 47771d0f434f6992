"""Transitions of learned models: which items come right after which.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, REAL

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"

# models that were trained before have none
WITHOUT_TRANSITIONS = """
    update dynrec_data.model_version set config = config || '{"transitions": []}'
    where kind = 'learned' and config <> '{}'
"""

# the code of model versions is made anew by either side; a function of other parameters would stay beside the new one
DROP_MODEL_CODE = """
    do $$
    declare
      generated regprocedure;
    begin
      for generated in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'dynrec_data'::regnamespace and p.proname ~ '^(ranked|following)_m[0-9]+$'
      loop
        execute format('drop function %s', generated);
      end loop;
    end
    $$
"""


def upgrade() -> None:
    op.create_table(
        "item_transition",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("pace", sa.SmallInteger(), nullable=False, comment="which of the config's transitions, from 1"),
        sa.Column("next_item_ids", ARRAY(sa.Text()), nullable=False, comment="what tends to come right after the item"),
        sa.Column("weights", ARRAY(REAL()), nullable=False, comment="how much each of them follows"),
        sa.ForeignKeyConstraint(
            ["model_id"], [f"{SCHEMA}.model_version.id"], name="item_transition_model_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "item_id", "pace", name="item_transition_pkey"),
        schema=SCHEMA,
        comment="Which items come right after which, as a learned model found it in training.",
    )
    op.execute(DROP_MODEL_CODE)
    op.execute(WITHOUT_TRANSITIONS)


def downgrade() -> None:
    op.execute(DROP_MODEL_CODE)
    op.drop_table("item_transition", schema=SCHEMA)
    op.execute("update dynrec_data.model_version set config = config - 'transitions'")
