"""Row-level security: a role sees of the tables what it could see of the sources that they were made from.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SEES_ITEM = """
    create function dynrec_data.sees_item(of_recommender int, item_id text) returns boolean
    language plpgsql stable parallel safe as 'begin return false; end';
    comment on function dynrec_data.sees_item(int, text) is
      'Whether the caller sees the row of an item in the source; its code is generated with the recommenders.'
"""

# The recommender that a row belongs to, if the caller may know of it: recommender has a policy, too.
OF_ROW = "dynrec_data.recommender r where r.id = recommender_id"
OF_MODEL = "dynrec_data.recommender r join dynrec_data.model_version m on m.recommender_id = r.id where m.id = model_id"
OF_EXPERIMENT = (
    "dynrec_data.recommender r join dynrec_data.experiment x on x.recommender_id = r.id where x.id = experiment_id"
)

READS_ITEMS = "has_table_privilege(r.items::oid, 'select')"
SEES_ALL_ITEMS = f"({READS_ITEMS} and not row_security_active(r.items::oid))"
SEES_ALL_USERS = """(r.interactions is null
        or has_table_privilege(r.interactions::oid, 'select') and not row_security_active(r.interactions::oid))"""


def known(owner: str) -> str:
    return f"exists (select from {owner})"


def all_items(owner: str) -> str:
    return f"exists (select from {owner} and {SEES_ALL_ITEMS})"


def all_users(owner: str) -> str:
    return f"exists (select from {owner} and {SEES_ALL_USERS})"


def all_of_both(owner: str) -> str:
    return f"exists (select from {owner} and {SEES_ALL_ITEMS} and {SEES_ALL_USERS})"


def items(owner: str, seen: str, also: str = "true") -> str:
    """All items, or those for which `seen` says so."""
    return f"{all_items(owner)} or " + seen.format(recommender=f"(select r.id from {owner} and {also})")


ITEM = "dynrec_data.sees_item({recommender}, item_id)"
ITEMS_IN_A_ROW = """not exists (
      select from unnest(next_item_ids || item_id) i
      where not coalesce(dynrec_data.sees_item({recommender}, i), false))"""

# Which rows a role may read that has the right to read the table at all.
READERS = {
    "recommender": "has_any_column_privilege(items::oid, 'select')",
    **dict.fromkeys(
        ["interaction_kind", "model_version", "model_activation", "experiment", "forgotten_user"], known(OF_ROW)
    ),
    **dict.fromkeys(["item_content", "item_content_history"], items(OF_ROW, ITEM, READS_ITEMS)),
    **dict.fromkeys(["item_popularity", "item_popularity_history"], items(OF_ROW, ITEM)),
    **dict.fromkeys(["item_vector", "item_vector_history"], items(OF_MODEL, ITEM)),
    "item_transition": items(OF_MODEL, ITEMS_IN_A_ROW),
    **dict.fromkeys(["user_vector", "user_vector_history"], all_users(OF_MODEL)),
    **dict.fromkeys(
        ["change", "lease", "retry", "dead_letter"],
        f"case kind when 'user' then {all_users(OF_ROW)} else {all_items(OF_ROW)} end",
    ),
    "task": f"case when entity is null then {known(OF_ROW)} else {all_of_both(OF_ROW)} end",
    "measurement": all_of_both(OF_ROW),
    "impression": all_users(OF_ROW),
    **dict.fromkeys(["experiment_arm", "experiment_traffic"], known(OF_EXPERIMENT)),
    "exposure": all_users(OF_EXPERIMENT),
}

# What a role may write that has the right to write the table at all.
WRITERS = {
    "impression": f"for insert with check ({known(OF_ROW)})",
    "exposure": f"for all using ({all_users(OF_EXPERIMENT)}) with check ({all_users(OF_EXPERIMENT)})",
}


def upgrade() -> None:
    op.execute(SEES_ITEM)
    for table, condition in READERS.items():
        op.execute(f"alter table dynrec_data.{table} enable row level security")
        op.execute(f"create policy reader on dynrec_data.{table} for select using ({condition})")
    for table, clause in WRITERS.items():
        op.execute(f"create policy writer on dynrec_data.{table} {clause}")


# With those of the partitions that were made since.
DISABLE = """
    do $$
    declare
      one record;
    begin
      for one in select p.tablename, p.policyname from pg_policies p where p.schemaname = 'dynrec_data' loop
        execute format('drop policy %I on dynrec_data.%I', one.policyname, one.tablename);
      end loop;
      for one in
        select c.relname from pg_class c where c.relnamespace = 'dynrec_data'::regnamespace and c.relrowsecurity
      loop
        execute format('alter table dynrec_data.%I disable row level security', one.relname);
      end loop;
      for one in select r.rolname from pg_roles r where r.rolname ~ '^dynrec_(reader|writer|worker|admin)$' loop
        execute format('revoke all on all tables in schema dynrec_data from %I', one.rolname);
        execute format('revoke all on all functions in schema dynrec_data from %I', one.rolname);
        execute format('revoke all on schema dynrec_data from %I', one.rolname);
        if to_regnamespace('dynrec') is not null then
          execute format('revoke all on schema dynrec from %I', one.rolname);
        end if;
      end loop;
      grant execute on all functions in schema dynrec_data to public;
    end
    $$
"""


def downgrade() -> None:
    op.execute(DISABLE)
    op.execute("drop function dynrec_data.sees_item(int, text)")
