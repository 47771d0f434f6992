"""dynrec_store: recommendations inside PostgreSQL."""

from dynrec_store.store import FeatureStore

__version__ = "0.1.0"

__all__ = ["FeatureStore"]
