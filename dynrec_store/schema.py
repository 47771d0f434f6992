"""The names of the two schemas, and how Alembic looks at the private one."""

import re
from typing import Any

PUBLIC_SCHEMA = "dynrec"
DATA_SCHEMA = "dynrec_data"

# Made at run time: partitions of a model version (item_vector_7) and of a month or the rest (impression_default).
_PARTITION = re.compile(
    r"(item_vector|user_vector)_\d+|((item_content|item_vector|user_vector|item_popularity)_history|impression)_\w+"
)


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether Alembic looks at an object of the database; kind is 'schema', 'table', 'column' and so on."""
    if kind == "schema":
        return name == DATA_SCHEMA
    return not (kind == "table" and name and _PARTITION.fullmatch(name))


# For MigrationContext.configure() and for context.configure() alike.
CONTEXT_OPTIONS: dict[str, Any] = {
    "version_table_schema": DATA_SCHEMA,
    "include_schemas": True,
    "include_name": is_ours,
    "compare_type": True,
    "compare_server_default": True,
}
