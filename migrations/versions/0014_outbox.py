"""The outbox: which vectors others are to be told of.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)
OPTIONS = '{"publish": null}'
ACTIONS = "scan_items, scan_derived, scan_users, batch_items, batch_users, fill_users, audience, popularity or retire"
MORE_ACTIONS = ACTIONS.replace("popularity", "popularity, begin_outbox, fill_outbox")

# As of the other tables with rows of items and of users.
READER = """
    create policy reader on dynrec_data.outbox for select using (exists (
      select from dynrec_data.recommender r where r.id = recommender_id and case kind
        when 'user' then r.interactions is null
          or has_table_privilege(r.interactions::oid, 'select') and not row_security_active(r.interactions::oid)
        else has_table_privilege(r.items::oid, 'select') and not row_security_active(r.items::oid) end))
"""


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("model_id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="item or user"),
        sa.Column("entity", sa.Text, nullable=False, comment="the entity's key as text"),
        sa.Column("recommender_id", sa.Integer, nullable=False),
        sa.Column(
            "id",
            sa.BigInteger,
            sa.Identity(always=True),
            nullable=False,
            comment="the place in the line, kept until it is told",
        ),
        sa.Column(
            "version",
            sa.Uuid,
            nullable=False,
            server_default=sa.text("gen_random_uuid()"),
            comment="another one for each vector: what was told is deleted only if it has not changed since",
        ),
        sa.Column("valid_from", TIME, nullable=False, comment="of the vector, or when there was none any more"),
        sa.Column(
            "written_at",
            TIME,
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
            comment="since when it waits",
        ),
        sa.Column("error", sa.Text, comment="why it cannot be told: it waits for another vector or for retry_failed"),
        sa.PrimaryKeyConstraint("model_id", "kind", "entity", name="outbox_pkey"),
        schema=SCHEMA,
        comment="Vectors that others are to be told of, each once, however often it changed meanwhile.",
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "2000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_index(
        "outbox_head",
        "outbox",
        ["recommender_id", "kind", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("error is null"),
    )
    op.execute(
        "comment on index dynrec_data.outbox_head is '_outbox_read, _outbox_settle: those that have waited longest'"
    )
    op.execute("alter table dynrec_data.outbox enable row level security")
    op.execute(READER)
    _say_actions(ACTIONS, MORE_ACTIONS)
    op.execute(f"update dynrec_data.recommender set options = '{OPTIONS}'::jsonb || options")


def _say_actions(before: str, after: str) -> None:
    op.alter_column("task", "action", schema=SCHEMA, existing_type=sa.Text(), existing_comment=before, comment=after)


def downgrade() -> None:
    op.execute("delete from dynrec_data.task where action in ('begin_outbox', 'fill_outbox')")
    op.execute("update dynrec_data.recommender set options = options - 'publish'")
    _say_actions(MORE_ACTIONS, ACTIONS)
    op.drop_table("outbox", schema=SCHEMA)
