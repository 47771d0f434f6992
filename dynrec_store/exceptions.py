"""Every error that dynrec_store raises on purpose.

DynrecError
├── ConfigurationError          a setting, or a part that is not installed
├── EmbeddedServerError         the embedded PostgreSQL cannot be made, started or stopped
├── MigrationError              the schema cannot be brought to the wanted state
│   └── DependentObjectsError   something of the user's stands on what would have to go
└── DatabaseError               what PostgreSQL answered
    ├── ConnectionFailedError   no connection, or it was lost
    ├── UnsupportedServerError  PostgreSQL or pgvector too old, too new or missing
    ├── NotMigratedError        the database has no schema dynrec, or one of another version
    ├── PermissionDeniedError   the role lacks a right
    ├── InvalidArgumentError    an argument was refused; the message names its value
    │   └── UnknownNameError    no recommender, item, table or column of that name
    ├── BusyError               a lock or serialisation conflict; trying again can help
    └── UnreadableSlotError     what the replication slot holds cannot be decoded
"""

from collections.abc import Iterable


class DynrecError(Exception):
    """The root: catching it catches everything below."""


class ConfigurationError(DynrecError):
    """A setting has no usable value, or an optional part is not installed."""


class EmbeddedServerError(DynrecError):
    """The embedded PostgreSQL cannot be made, started or stopped."""


class MigrationError(DynrecError):
    """The database cannot be brought to the wanted schema; nothing was changed."""


class DependentObjectsError(MigrationError):
    """Objects outside of schema dynrec use something that has to be replaced.

    `dependents` lists them as (what they use, what they are).
    """

    def __init__(self, dependents: Iterable[tuple[str, str]]) -> None:
        self.dependents = tuple(dependents)
        listing = "\n".join(f"  {user} uses {used}" for used, user in self.dependents)
        super().__init__(
            f"nothing was changed: these objects stand in the way\n{listing}\n"
            "Drop them, migrate, and create them again against the new definition."
        )


class DatabaseError(DynrecError):
    """PostgreSQL answered with an error. `sqlstate` is its code, `hint` the remedy it gave."""

    def __init__(self, message: str, *, sqlstate: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.sqlstate = sqlstate
        self.hint = hint


class ConnectionFailedError(DatabaseError):
    """There is no connection, or it was lost."""


class UnsupportedServerError(DatabaseError):
    """PostgreSQL or pgvector is too old, too new or missing."""


class NotMigratedError(DatabaseError):
    """The database lacks what this version of dynrec_store calls: it was never migrated, or by another version."""


class PermissionDeniedError(DatabaseError):
    """The role that is connected lacks a right."""


class InvalidArgumentError(DatabaseError):
    """An argument was refused; the message names its value."""


class UnknownNameError(InvalidArgumentError):
    """There is no recommender, item, table or column of that name."""


class BusyError(DatabaseError):
    """A lock was not to be had in time, or transactions collided: trying again can help."""


class UnreadableSlotError(DatabaseError):
    """The server cannot decode what its replication slot holds, such as where its log has gaps."""
