"""Users who were forgotten.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = "dynrec_data"


def upgrade() -> None:
    op.create_table(
        "forgotten_user",
        sa.Column("recommender_id", sa.Integer(), nullable=False),
        sa.Column(
            "user_hash", sa.LargeBinary(), nullable=False, comment="sha256 of the recommender's number and the key"
        ),
        sa.Column("forgotten_at", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="sha256 of the last receipt"),
        sa.ForeignKeyConstraint(
            ["recommender_id"],
            [f"{SCHEMA}.recommender.id"],
            name="forgotten_user_recommender_id_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recommender_id", "user_hash", name="forgotten_user_pkey"),
        schema=SCHEMA,
        comment="Users who were forgotten: what they do is not read or captured any more.",
    )
    op.add_column(
        "model_version",
        sa.Column(
            "forgotten_users",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="users it learned from who were forgotten since",
        ),
        schema=SCHEMA,
    )


NOBODY_RETURNS = """
    do $$
    begin
      if exists (select from dynrec_data.forgotten_user) then
        raise exception 'users were forgotten: an earlier version would read and capture their interactions again'
          using errcode = 'object_not_in_prerequisite_state',
            hint = 'Delete their rows in your tables, then dynrec_data.forgotten_user; or drop the recommender.';
      end if;
    end
    $$
"""


def downgrade() -> None:
    op.execute(NOBODY_RETURNS)
    op.drop_column("model_version", "forgotten_users", schema=SCHEMA)
    op.drop_table("forgotten_user", schema=SCHEMA)
