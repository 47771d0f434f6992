"""Popularity as it was: counters of the past are kept, so that a read of a moment finds what was counted then.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)

DEFAULT_PARTITION = """
    create table dynrec_data.item_popularity_history_default partition of dynrec_data.item_popularity_history default;
    comment on table dynrec_data.item_popularity_history_default is
        'Versions that no monthly partition takes: rows here are an alarm.';
"""

KEEP = """
    create function dynrec_data.keep_popularity() returns trigger
    language plpgsql
    as $$
    declare
      moment timestamptz := clock_timestamp();
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
    $$;
    comment on function dynrec_data.keep_popularity() is
      'Keeps a counter that is replaced or deleted, whoever does it.';
    create trigger keep_popularity before update or delete on dynrec_data.item_popularity
    for each row execute function dynrec_data.keep_popularity();
"""

# what is counted now is known from now on
KNOWN_FROM_NOW_ON = """
    update dynrec_data.recommender set popularity_since = clock_timestamp() where interactions is not null;
"""


def upgrade() -> None:
    op.add_column(
        "recommender",
        sa.Column(
            "popularity_since",
            TIME,
            comment="from then on the popularity of the past is kept; null: it was never counted",
        ),
        schema=SCHEMA,
    )
    op.add_column(
        "item_popularity",
        sa.Column(
            "created_at",
            TIME,
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="when the system learnt it",
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "item_popularity_history",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("reference_time", TIME, nullable=False),
        sa.Column("rates", ARRAY(sa.Double())),
        sa.Column("created_at", TIME, nullable=False, comment="when the system learnt it"),
        sa.Column("replaced_at", TIME, nullable=False, comment="when the system learnt what came after it"),
        sa.PrimaryKeyConstraint("recommender_id", "item_id", "replaced_at", name="item_popularity_history_pkey"),
        schema=SCHEMA,
        postgresql_partition_by="RANGE (replaced_at)",
        comment="The counters of before, as item_popularity had them; one partition a month.",
    )
    op.execute(DEFAULT_PARTITION)
    op.execute(KEEP)
    op.execute(KNOWN_FROM_NOW_ON)


def downgrade() -> None:
    op.execute("drop trigger keep_popularity on dynrec_data.item_popularity")
    op.execute("drop function dynrec_data.keep_popularity()")
    op.drop_table("item_popularity_history", schema=SCHEMA)
    op.drop_column("item_popularity", "created_at", schema=SCHEMA)
    op.drop_column("recommender", "popularity_since", schema=SCHEMA)
