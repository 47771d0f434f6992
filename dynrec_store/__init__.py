"""dynrec_store: recommendations inside PostgreSQL."""

__version__ = "0.1.0"
