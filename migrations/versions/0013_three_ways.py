"""Three ways to keep up: triggers, batches, a logical replication slot.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)
OF_ROW = "dynrec_data.recommender r where r.id = recommender_id"
OPTIONS = '{"capture": "incremental", "batch_every": "1 hour", "stream_max_lag_bytes": 10737418240}'
OPS = "insert or delete: an interaction came or went; refresh: read the source again"
ACTIONS = "scan_items, scan_derived, scan_users, fill_users, audience, popularity or retire"
MORE_ACTIONS = ACTIONS.replace("fill_users", "batch_items, batch_users, fill_users")


def upgrade() -> None:
    _columns()
    _tables()
    op.execute(f"create policy reader on dynrec_data.stream_span for select using (exists (select from {OF_ROW}))")
    op.execute(
        f"""
        create policy reader on dynrec_data.user_fingerprint for select using (exists (select from {OF_ROW}
          and has_table_privilege(r.interactions::oid, 'select') and not row_security_active(r.interactions::oid)))
        """
    )
    op.execute(f"update dynrec_data.recommender set options = '{OPTIONS}'::jsonb || options")


def _columns() -> None:
    for name, comment in (
        ("batched_at", "when a batch last compared everything with the source"),
        ("events_since", "since when every interaction that came or went is known; null: from the start"),
    ):
        op.add_column("recommender", sa.Column(name, TIME, comment=comment), schema=SCHEMA)
    op.alter_column(
        "change",
        "op",
        schema=SCHEMA,
        existing_type=sa.Text(),
        existing_comment=OPS,
        comment=f"{OPS}, came or went: the same, from the stream: read the source again, too",
    )
    op.alter_column(
        "task",
        "action",
        schema=SCHEMA,
        existing_type=sa.Text(),
        existing_comment=ACTIONS,
        comment=MORE_ACTIONS,
    )


def _tables() -> None:
    op.create_table(
        "stream_position",
        sa.Column("slot", sa.Text, primary_key=True),
        sa.Column("applied", sa.Text, nullable=False, comment="LSN of the last commit whose changes are in the queue"),
        sa.Column(
            "stands",
            sa.Boolean,
            nullable=False,
            comment="the slot that this speaks of has been made, and what came before it is scanned for",
        ),
        comment="How far the replication slot has been read; written with the changes that were read.",
        schema=SCHEMA,
    )
    op.create_table(
        "stream_span",
        sa.Column("recommender_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(
            "starts_at",
            sa.Text,
            primary_key=True,
            comment="LSN: what was committed before, triggers or a scan have seen",
        ),
        sa.Column(
            "ends_at", sa.Text, comment="LSN: what is committed from then on, triggers or batches see; null: it goes on"
        ),
        sa.Column(
            "counted",
            sa.Text,
            comment="snapshot of the last count of popularity: interactions in it are not added again",
        ),
        comment="Which commits a recommender takes from the stream.",
        schema=SCHEMA,
    )
    op.create_table(
        "user_fingerprint",
        sa.Column("recommender_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.Numeric, nullable=False, comment="sum of the hashes of the interactions"),
        comment="What the last batch found of each user, so that the next one sees who changed.",
        schema=SCHEMA,
    )
    for table in ("stream_span", "user_fingerprint"):
        op.execute(f"alter table dynrec_data.{table} enable row level security")


# The triggers come back with the code of before; then everything is compared with the source.
LEAVE = """
    do $$
    declare
      slot text := format('dynrec_%s', (select d.oid from pg_database d where d.datname = current_database()));
    begin
      if exists (select from pg_replication_slots s where s.slot_name = slot) then
        perform pg_drop_replication_slot(slot);
      end if;
      drop publication if exists dynrec_stream;
      insert into dynrec_data.task (recommender_id, action)
      select r.id, a.action from dynrec_data.recommender r cross join
        (values (1, 'scan_items'), (2, 'popularity'), (3, 'scan_users')) a (position, action)
      where r.options ->> 'capture' <> 'incremental' and (a.position = 1 or r.interactions is not null)
      order by r.id, a.position;
      delete from dynrec_data.task where action in ('batch_items', 'batch_users');
      update dynrec_data.change set op = case op when 'came' then 'insert' else 'delete' end
      where op in ('came', 'went');
    end
    $$
"""


def downgrade() -> None:
    op.execute(LEAVE)
    for table in ("user_fingerprint", "stream_span", "stream_position"):
        op.drop_table(table, schema=SCHEMA)
    for name in ("events_since", "batched_at"):
        op.drop_column("recommender", name, schema=SCHEMA)
    op.alter_column("change", "op", schema=SCHEMA, existing_type=sa.Text(), comment=OPS)
    op.alter_column("task", "action", schema=SCHEMA, existing_type=sa.Text(), comment=ACTIONS)
    op.execute(
        "update dynrec_data.recommender set options = options - '{capture,batch_every,stream_max_lag_bytes}'::text[]"
    )
