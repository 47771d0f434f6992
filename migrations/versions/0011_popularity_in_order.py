"""The history of popularity stays in order when the clock is set back.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KEEP = """
    create or replace function dynrec_data.keep_popularity() returns trigger
    language plpgsql
    as $$
    declare
      moment timestamptz := {moment};
    begin
      if tg_op = 'UPDATE' then
        if (new.score, new.event_count, new.reference_time, new.rates)
            is not distinct from (old.score, old.event_count, old.reference_time, old.rates) then
          return new;
        end if;
        new.created_at := moment;
      end if;
      insert into dynrec_data.item_popularity_history
        (recommender_id, item_id, score, event_count, reference_time, rates, created_at, replaced_at)
      values (old.recommender_id, old.item_id, old.score, old.event_count, old.reference_time, old.rates,
        old.created_at, moment);
      return case tg_op when 'UPDATE' then new else old end;
    end
    $$
"""


def upgrade() -> None:
    # two versions that are learnt at one moment would share the key of the history
    op.execute(KEEP.format(moment="greatest(clock_timestamp(), old.created_at + interval '1 microsecond')"))


def downgrade() -> None:
    op.execute(KEEP.format(moment="clock_timestamp()"))
