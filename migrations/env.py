"""Run the revisions on the connection that dynrec_store.migrate hands over; it owns the transaction."""

from alembic import context

from dynrec_store.schema import CONTEXT_OPTIONS
from dynrec_store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, **CONTEXT_OPTIONS)
with context.begin_transaction():
    context.run_migrations()
