"""Popularity counters that are differentially private: when they were released.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"


def upgrade() -> None:
    op.add_column(
        "recommender",
        sa.Column(
            "popularity_released_at",
            TIMESTAMP(timezone=True),
            comment="when its differentially private popularity was released last; null: never",
        ),
        schema=SCHEMA,
    )
    op.execute(
        """
        update dynrec_data.recommender
        set options = '{"popularity_epsilon": null, "popularity_bound": 10}'::jsonb || options
        """
    )


# What was counted privately would be read, and added to, as if it were exact: count anew.
COUNT_AGAIN = """
    with private as (
      select r.id from dynrec_data.recommender r where r.options ->> 'popularity_epsilon' is not null
    ), gone as (
      delete from dynrec_data.item_popularity p using private v where p.recommender_id = v.id
    )
    insert into dynrec_data.task (recommender_id, action) select v.id, 'popularity' from private v
"""


def downgrade() -> None:
    op.execute(COUNT_AGAIN)
    op.execute("update dynrec_data.recommender set options = options - '{popularity_epsilon,popularity_bound}'::text[]")
    op.drop_column("recommender", "popularity_released_at", schema=SCHEMA)
