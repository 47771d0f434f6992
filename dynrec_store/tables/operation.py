"""Counters and the state of the system itself."""

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from dynrec_store.tables.base import CLOCK, CREATED_AT, NOW, REPLACED_AT, TIME, metadata

HALF_LIVES = ("6 hours", "1 day", "7 days", "30 days", "ever")  # of item_popularity.rates

item_popularity = Table(
    "item_popularity",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column(
        "score",
        Double,
        nullable=False,
        comment="sum of the interactions' weights, each halved every trending_half_life, as at reference_time",
    ),
    Column("event_count", BigInteger, nullable=False),
    Column("reference_time", TIME, nullable=False, comment="of the latest interaction that was counted"),
    Column("first_met_at", TIME, nullable=False, comment="of the earliest interaction that was counted"),
    Column(
        "key",
        Double,
        nullable=False,
        comment="log2(score) + reference_time / half-life: orders items by score at any moment",
    ),
    Column(
        "rates",
        ARRAY(Double),
        comment="with a learned model: number of interactions, halved every 6 hours, 1, 7, 30 and 36500 days",
    ),
    Column("rate_keys", ARRAY(Double), comment="of rates, as key of score"),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    Index("item_popularity_key", "recommender_id", text("key desc"), info={"comment": "trending: the top"}),
    *(
        Index(
            f"item_popularity_rate_{slot}",
            "recommender_id",
            text(f"(rate_keys[{slot}]) desc"),
            postgresql_where=text("rate_keys is not null"),
            info={"comment": f"recommend by a learned model: the top, half-life {half_life}"},
        )
        for slot, half_life in enumerate(HALF_LIVES, 1)
    ),
    comment="Decayed popularity: its order needs no rewriting as time passes.",
)

item_popularity_history = Table(
    "item_popularity_history",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("score", Double, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("reference_time", TIME, nullable=False),
    Column("rates", ARRAY(Double)),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, primary_key=True, comment=REPLACED_AT),
    Index(
        "item_popularity_history_ended",
        "replaced_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
        info={
            "comment": "_forget_old_history: what ended before a moment; trending as of one: what was replaced since"
        },
    ),
    postgresql_partition_by="RANGE (replaced_at)",
    comment="The counters of before, as item_popularity had them; one partition a month.",
)

# A publish finds the counter of before only by locking it, which it does in the middle of a statement: the row itself
# has to keep what it was.
event.listen(
    item_popularity,
    "after_create",
    DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy says nothing of its return
        """
    create function dynrec_data.keep_popularity() returns trigger
    language plpgsql
    as $$
    declare
      moment timestamptz := greatest(clock_timestamp(), old.created_at + interval '1 microsecond');
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
    ),
)

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("process", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("beat_at", TIME, nullable=False, server_default=CLOCK),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    comment="Which dispatchers and workers are alive.",
)

counter = Table(
    "counter",
    metadata,
    Column("recommender_id", Integer, primary_key=True, autoincrement=False, comment="0: of no recommender"),
    Column("name", Text, primary_key=True),
    Column("labels", JSONB, primary_key=True),
    Column("value", Double, nullable=False),
    comment="What was done since the beginning, over all processes; it never shrinks.",
)

code = Table(
    "code",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),
    Column("hash", Text, nullable=False, comment="sha256 of the files in sql/"),
    Column(
        "vector_schema",
        Text,
        nullable=False,
        comment="where pgvector lived then: functions have it in their path",
    ),
    Column("applied_at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("id", name="id"),
    comment="Which state of sql/ schema dynrec is in: one row.",
)
