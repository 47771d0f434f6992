"""How far reads look into the vector index.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give every recommender the option."""
    op.execute("""update dynrec_data.recommender set options = '{"vector_probe": 100}'::jsonb || options""")


def downgrade() -> None:
    """Take it away."""
    op.execute("update dynrec_data.recommender set options = options - 'vector_probe'")
