"""Whose tables are read: those of roles that have the rights of dynrec's owner anyway, and of roles that it trusts.

Revision ID: 0015
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# The owners of tables that are watched already were trusted until now without a word.
KEEP = """
    insert into dynrec_data.trusted_owner (owner)
    select distinct pg_get_userbyid(c.relowner)
    from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (relation)
    cross join lateral (select s.relation::oid union select p.relid from pg_partition_tree(s.relation) p) t (oid)
    join pg_class c on c.oid = t.oid
    where not pg_has_role(c.relowner, (select n.nspowner from pg_namespace n where n.nspname = 'dynrec_data'), 'member')
"""

# Triggers outlive schema dynrec until the version of before is there: they go on without the question, as in that one.
FORGET = """
    do $$
    declare
      capture regprocedure;
    begin
      for capture in
        select p.oid from pg_proc p
        where p.pronamespace = 'dynrec_data'::regnamespace and position('dynrec_data.trusted_owner' in p.prosrc) > 0
      loop
        execute replace(pg_get_functiondef(capture),
          'exists (select from dynrec_data.trusted_owner t where t.owner = pg_get_userbyid(c.relowner))', 'true');
      end loop;
    end
    $$
"""


def upgrade() -> None:
    op.create_table(
        "trusted_owner",
        sa.Column("owner", sa.Text, primary_key=True, comment="name of the role"),
        sa.Column("trusted_at", TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        comment="Roles without the rights of the owner of dynrec whose tables are read nevertheless.",
        schema="dynrec_data",
    )
    op.execute(KEEP)


def downgrade() -> None:
    op.execute(FORGET)
    op.drop_table("trusted_owner", schema="dynrec_data")
