"""What the tables share: their schema, the names of constraints, times."""

from sqlalchemy import MetaData, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from dynrec_store.schema import DATA_SCHEMA

TIME = TIMESTAMP(timezone=True)
NOW = text("now()")  # when the transaction began
CLOCK = text("clock_timestamp()")  # this instant

CREATED_AT = "when the system learnt it"
REPLACED_AT = "when the system learnt what came after it"

# The names that PostgreSQL would choose itself.
metadata = MetaData(
    schema=DATA_SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    },
)
