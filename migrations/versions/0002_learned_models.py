"""Learned models: their life, their artefacts, what they add to vectors; popularity at several half-lives.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)
RATE_INDEXES = {1: "6 hours", 2: "1 day", 3: "7 days", 4: "30 days", 5: "ever"}

CONTEXTS = "learned model: what the item adds to a user, one vector for each head"
WEIGHTS = "learned model: the sum of weights behind each vector of state"
HALF_LIVES = "those of the recommender when this was made, in seconds"
HALF_LIVES_NOW = "those of the recommender when this was made, in seconds; none for a learned model"
STATE = "one decayed sum of item vectors for each of half_lives, as at reference_time"
STATE_NOW = (
    "one decayed sum of item vectors for each half-life, or for each head of a learned model, as at reference_time"
)
STATES = (
    "staged -> training -> backfilling -> shadow -> active <-> standby -> retired; failed: training gave up; "
    "a new encoder needs no training"
)
STATE_CHECK = "state in ('staged', 'training', 'failed', 'backfilling', 'shadow', 'active', 'standby', 'retired')"

ACTIVATE = """
    update dynrec_data.recommender set content_model_id = active_model_id;
    insert into dynrec_data.model_activation (recommender_id, activated_at, model_id)
    select r.id, m.created_at, m.id
    from dynrec_data.recommender r join dynrec_data.model_version m on m.id = r.active_model_id;
"""

# the counters are made afresh from the interactions
COUNT_AGAIN = """
    insert into dynrec_data.task (recommender_id, action)
    select r.id, 'popularity' from dynrec_data.recommender r where r.interactions is not null;
"""

# what 0001 cannot hold: models that do not answer, and those that were trained
GO_BACK_TO_CONTENT = """
    do $$
    declare
      lost record;
      generated regprocedure;
    begin
      -- functions of model versions, which 0001 does not know
      for generated in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'dynrec_data'::regnamespace and p.proname ~ '_m[0-9]+$'
      loop
        execute format('drop function %s', generated);
      end loop;
      update dynrec_data.recommender
      set active_model_id = content_model_id, options = options - '{item_refresh, train_every}'::text[];
      update dynrec_data.model_version m set state = 'active'
      from dynrec_data.recommender r where r.content_model_id = m.id;
      for lost in
        select m.id, m.state from dynrec_data.model_version m
        where not exists (select from dynrec_data.recommender r where r.content_model_id = m.id)
        order by m.base_model_id nulls last, m.id
      loop
        execute format('drop table if exists dynrec_data.item_vector_%1$s, dynrec_data.user_vector_%1$s', lost.id);
        delete from dynrec_data.item_vector_history h where h.model_id = lost.id;
        delete from dynrec_data.user_vector_history h where h.model_id = lost.id;
        delete from dynrec_data.model_version m where m.id = lost.id;
      end loop;
      delete from dynrec_data.change where kind = 'derived';
      delete from dynrec_data.lease where kind = 'derived';
      delete from dynrec_data.retry where kind = 'derived';
      delete from dynrec_data.dead_letter where kind = 'derived';
      delete from dynrec_data.task where action = 'scan_derived';
    end
    $$;
"""


def upgrade() -> None:
    _extend_models()
    _create_model_tables()
    for table in ("item_vector", "item_vector_history"):
        op.add_column(table, sa.Column("contexts", ARRAY(Vector()), comment=CONTEXTS), schema=SCHEMA)
    for table in ("user_vector", "user_vector_history"):
        op.add_column(table, sa.Column("weights", ARRAY(sa.Double()), comment=WEIGHTS), schema=SCHEMA)
        _comment(table, "state", STATE_NOW)
        _comment(table, "half_lives", HALF_LIVES_NOW)
    _comment("change", "kind", "item, derived (its vector of another model) or user")
    _comment("task", "action", "scan_items, scan_derived, scan_users, fill_users, audience, popularity or retire")
    op.execute(ACTIVATE)
    op.drop_column("recommender", "popularity_landmark", schema=SCHEMA)
    op.drop_table("item_popularity", schema=SCHEMA)
    _create_popularity()
    op.execute(COUNT_AGAIN)


def downgrade() -> None:
    op.execute(GO_BACK_TO_CONTENT)
    op.drop_table("item_popularity", schema=SCHEMA)
    _create_old_popularity()
    op.add_column(
        "recommender",
        sa.Column(
            "popularity_landmark",
            TIME,
            server_default=sa.text("now()"),
            nullable=False,
            comment="the moment at which item_popularity counts an event with weight 1",
        ),
        schema=SCHEMA,
    )
    _comment("change", "kind", "item or user")
    _comment("task", "action", "scan_items, scan_users, audience or popularity")
    for table in ("user_vector", "user_vector_history"):
        _comment(table, "state", STATE)
        _comment(table, "half_lives", HALF_LIVES)
        op.drop_column(table, "weights", schema=SCHEMA)
    for table in ("item_vector", "item_vector_history"):
        op.drop_column(table, "contexts", schema=SCHEMA)
    op.drop_table("model_activation", schema=SCHEMA)
    op.drop_table("model_artefact", schema=SCHEMA)
    _reduce_models()
    op.execute(COUNT_AGAIN)


def _comment(table: str, column: str, comment: str) -> None:
    op.alter_column(table, column, comment=comment, schema=SCHEMA)


def _extend_models() -> None:
    op.add_column(
        "recommender",
        sa.Column(
            "content_model_id",
            sa.Integer(),
            comment="the model_version that a change of an item is encoded for first",
        ),
        schema=SCHEMA,
    )
    for column in (
        sa.Column(
            "kind",
            sa.Text(),
            server_default=sa.text("'content'"),
            nullable=False,
            comment="content: vectors are the encoder's; learned: trained on the interactions",
        ),
        sa.Column("base_model_id", sa.Integer(), comment="learned: the content model whose vectors its towers read"),
        sa.Column("parent_model_id", sa.Integer(), comment="the model that training went on from"),
        sa.Column("data_from", TIME, comment="interactions from here on were learned from"),
        sa.Column("data_until", TIME, comment="data cut-off: interactions before it were learned from"),
        sa.Column("options", JSONB(), server_default=sa.text("'{}'"), nullable=False, comment="of training"),
        sa.Column(
            "config", JSONB(), server_default=sa.text("'{}'"), nullable=False, comment="what SQL serves the model with"
        ),
        sa.Column(
            "metrics", JSONB(), server_default=sa.text("'{}'"), nullable=False, comment="on the validation period"
        ),
        sa.Column(
            "report",
            JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="what cleaning dropped and clipped",
        ),
        sa.Column("error", sa.Text(), comment="why training failed"),
        sa.Column("stored_at", TIME, comment="when its backfill began"),
        sa.Column("refreshed_at", TIME, comment="when the features that move with time were last read for all items"),
    ):
        op.add_column("model_version", column, schema=SCHEMA)
    op.create_foreign_key(
        op.f("model_version_base_model_id_fkey"),
        "model_version",
        "model_version",
        ["base_model_id"],
        ["id"],
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )
    op.create_check_constraint(
        op.f("model_version_kind_check"), "model_version", "kind in ('content', 'learned')", schema=SCHEMA
    )
    op.drop_constraint(op.f("model_version_state_check"), "model_version", schema=SCHEMA)
    op.create_check_constraint(op.f("model_version_state_check"), "model_version", STATE_CHECK, schema=SCHEMA)
    _comment("model_version", "state", STATES)
    _comment("model_version", "dimension", "of the item vectors; 0 until the model is trained")


def _reduce_models() -> None:
    _comment("model_version", "state", "active -> retired")
    op.alter_column("model_version", "dimension", comment=None, schema=SCHEMA)
    op.drop_constraint(op.f("model_version_state_check"), "model_version", schema=SCHEMA)
    op.create_check_constraint(
        op.f("model_version_state_check"), "model_version", "state in ('active', 'retired')", schema=SCHEMA
    )
    op.drop_constraint(op.f("model_version_kind_check"), "model_version", schema=SCHEMA)
    op.drop_constraint(op.f("model_version_base_model_id_fkey"), "model_version", schema=SCHEMA)
    for column in (
        "refreshed_at",
        "stored_at",
        "error",
        "report",
        "metrics",
        "config",
        "options",
        "data_until",
        "data_from",
        "parent_model_id",
        "base_model_id",
        "kind",
    ):
        op.drop_column("model_version", column, schema=SCHEMA)
    op.drop_column("recommender", "content_model_id", schema=SCHEMA)


def _create_model_tables() -> None:
    op.create_table(
        "model_artefact",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "content",
            sa.LargeBinary(),
            nullable=False,
            comment="safetensors, skops or JSON: nothing that executes code",
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], [f"{SCHEMA}.model_version.id"], name="model_artefact_model_id_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "name", name="model_artefact_pkey"),
        schema=SCHEMA,
        comment="The files of a trained model: weights, and what was fitted to prepare its features.",
    )
    op.create_table(
        "model_activation",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("activated_at", TIME, nullable=False, comment="from then on this model answers"),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["recommender_id"],
            [f"{SCHEMA}.recommender.id"],
            name="model_activation_recommender_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recommender_id", "activated_at", name="model_activation_pkey"),
        schema=SCHEMA,
        comment="Which model version answered since when: promotions and rollbacks.",
    )
    op.create_index("model_activation_model", "model_activation", ["model_id"], schema=SCHEMA)
    op.execute(
        "comment on index dynrec_data.model_activation_model is "
        "'rollback_model, reads as of a moment: which model answered when'"
    )


def _create_popularity() -> None:
    op.create_table(
        "item_popularity",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column(
            "score",
            sa.Double(),
            nullable=False,
            comment="sum of the interactions' weights, each halved every trending_half_life, as at reference_time",
        ),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("reference_time", TIME, nullable=False, comment="of the latest interaction that was counted"),
        sa.Column("first_met_at", TIME, nullable=False, comment="of the earliest interaction that was counted"),
        sa.Column(
            "key",
            sa.Double(),
            nullable=False,
            comment="log2(score) + reference_time / half-life: orders items by score at any moment",
        ),
        sa.Column(
            "rates",
            ARRAY(sa.Double()),
            comment="with a learned model: number of interactions, halved every 6 hours, 1, 7, 30 and 36500 days",
        ),
        sa.Column("rate_keys", ARRAY(sa.Double()), comment="of rates, as key of score"),
        sa.PrimaryKeyConstraint("recommender_id", "item_id", name="item_popularity_pkey"),
        schema=SCHEMA,
        comment="Decayed popularity: its order needs no rewriting as time passes.",
    )
    op.create_index(
        "item_popularity_key", "item_popularity", ["recommender_id", sa.literal_column("key desc")], schema=SCHEMA
    )
    op.execute("comment on index dynrec_data.item_popularity_key is 'trending: the top'")
    for slot, half_life in RATE_INDEXES.items():
        op.create_index(
            f"item_popularity_rate_{slot}",
            "item_popularity",
            ["recommender_id", sa.literal_column(f"(rate_keys[{slot}]) desc")],
            schema=SCHEMA,
            postgresql_where=sa.text("rate_keys is not null"),
        )
        op.execute(
            f"comment on index dynrec_data.item_popularity_rate_{slot} is "
            f"'recommend by a learned model: the top, half-life {half_life}'"
        )


def _create_old_popularity() -> None:
    op.create_table(
        "item_popularity",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column(
            "score",
            sa.Double(),
            nullable=False,
            comment="sum of weight * 2^((event's time - recommender.popularity_landmark) / half-life)",
        ),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("recommender_id", "item_id", name="item_popularity_pkey"),
        schema=SCHEMA,
        comment="Forward-decayed popularity: its order needs no rewriting as time passes.",
    )
    op.create_index(
        "item_popularity_score", "item_popularity", ["recommender_id", sa.literal_column("score desc")], schema=SCHEMA
    )
    op.execute("comment on index dynrec_data.item_popularity_score is 'trending: the top'")
