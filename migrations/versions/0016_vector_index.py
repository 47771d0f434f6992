"""When the vector indexes were built: rebuilds are bounded. And what is old in history.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"
TIME = TIMESTAMP(timezone=True)

READ_AS_OF = "_forget_old_history: what ended before a moment; reads as of a moment: what was replaced since"
# rows come in the order of these times, so that a few pages say where to look
BY_TIME = (
    ("item_content_history_ended", "item_content_history", ["valid_to", "replaced_at"], READ_AS_OF),
    ("item_vector_history_ended", "item_vector_history", ["valid_to", "replaced_at"], READ_AS_OF),
    ("user_vector_history_ended", "user_vector_history", ["valid_to", "replaced_at"], READ_AS_OF),
    (
        "item_popularity_history_ended",
        "item_popularity_history",
        ["replaced_at"],
        "_forget_old_history: what ended before a moment; trending as of one: what was replaced since",
    ),
    ("impression_shown", "impression", ["shown_at"], "_forget_old_history: what was shown before a moment"),
)


def upgrade() -> None:
    op.create_table(
        "vector_index",
        sa.Column(
            "model_id", sa.Integer, sa.ForeignKey("dynrec_data.model_version.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("begun_at", TIME, nullable=False, comment="when a worker last began to build it"),
        sa.Column("attempts", sa.SmallInteger, nullable=False, comment="builds in a row that did not succeed, as yet"),
        sa.Column("memory", sa.BigInteger, nullable=False, comment="maintenance_work_mem of the last build, in bytes"),
        sa.Column(
            "not_before",
            TIME,
            nullable=False,
            server_default=sa.text("'-infinity'"),
            comment="when it may be built again, whatever has been replaced until then",
        ),
        sa.Column("built_at", TIME, comment="when a build last succeeded"),
        sa.Column(
            "built_from",
            sa.BigInteger,
            comment="how many vectors the server had counted as replaced when that build began",
        ),
        sa.Column("vacuumed_at", TIME, comment="when the vacuum after a build last began"),
        sa.Column("cleaned_from", sa.BigInteger, comment="the same count when a vacuum began that cleaned the indexes"),
        comment="What was done for the vector index of a model version, so that workers agree on what is due.",
        schema=SCHEMA,
    )
    for name, table, columns, comment in BY_TIME:
        op.create_index(
            name, table, columns, schema=SCHEMA, postgresql_using="brin", postgresql_with={"autosummarize": "on"}
        )
        op.execute(f"comment on index {SCHEMA}.{name} is '{comment}'")


def downgrade() -> None:
    for name, table, _, _ in reversed(BY_TIME):
        op.drop_index(name, table, schema=SCHEMA)
    op.drop_table("vector_index", schema=SCHEMA)
