"""Tasks that wait for those who write while a recommender is altered.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

ACTIONS_BEFORE = (
    "scan_items, scan_derived, scan_users, batch_items, batch_users, fill_users, audience, popularity, "
    "begin_outbox, fill_outbox or retire"
)
ACTIONS = ACTIONS_BEFORE.replace("batch_items", "await_writers, batch_items")
ENTITY_BEFORE = "audience: the item whose vector moved"
ENTITY = f"{ENTITY_BEFORE}; batch_items: the transactions to wait for"


def _comment(column: str, before: str, after: str) -> None:
    op.alter_column(
        "task", column, schema="dynrec_data", existing_type=sa.Text(), existing_comment=before, comment=after
    )


def upgrade() -> None:
    """Say what the new tasks are."""
    _comment("action", ACTIONS_BEFORE, ACTIONS)
    _comment("entity", ENTITY_BEFORE, ENTITY)


def downgrade() -> None:
    """Compare at once what was to be compared later."""
    op.execute(
        """
        update dynrec_data.task set action = 'batch_items', entity = null
        where action = 'await_writers' or action = 'batch_items' and entity is not null
        """
    )
    _comment("entity", ENTITY, ENTITY_BEFORE)
    _comment("action", ACTIONS, ACTIONS_BEFORE)
