"""The tables of schema dynrec_data, for Alembic to compare with. They are private: only sql/ reads and writes them.

A comment in `info` belongs to an index and names the query that it serves. Tables without foreign keys change all the
time; drop_recommender clears them.
"""

from dynrec_store.tables import (
    capture,
    declared,
    experiments,
    models,
    operation,
    outbox,
    privacy,
    queue,
    traffic,
    vectors,
    watch,
)
from dynrec_store.tables.base import metadata

__all__ = [
    "capture",
    "declared",
    "experiments",
    "metadata",
    "models",
    "operation",
    "outbox",
    "privacy",
    "queue",
    "traffic",
    "vectors",
    "watch",
]
