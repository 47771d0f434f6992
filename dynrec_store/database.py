"""Connections to PostgreSQL, and the one place where its errors become errors of dynrec_store."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import scalar_row

from dynrec_store.exceptions import (
    BusyError,
    ConfigurationError,
    ConnectionFailedError,
    DatabaseError,
    InvalidArgumentError,
    NotMigratedError,
    PermissionDeniedError,
    UnknownNameError,
    UnsupportedServerError,
)

POSTGRES_MAJORS = range(16, 19)
PGVECTOR_MINIMUM = (0, 8)

_VECTOR: LiteralString = """
    select e.extversion, n.nspname
    from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'vector'
"""

# A server that vanished is missed after half a minute; as operating systems have it, an answer is awaited for hours.
# The URL may say otherwise.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}

# By SQLSTATE or by how it begins; the longest match wins.
_BY_SQLSTATE: dict[str, type[DatabaseError]] = {
    "0A000": InvalidArgumentError,  # feature_not_supported
    "3D000": ConnectionFailedError,  # no such database
    "3F000": NotMigratedError,  # no such schema: only dynrec is called by name
    "42501": PermissionDeniedError,
    "42703": UnknownNameError,  # no such column
    "42704": UnknownNameError,  # no such object
    "42710": InvalidArgumentError,  # exists already
    "42883": NotMigratedError,  # no such function
    "42P01": NotMigratedError,  # no such view: tables of the application are looked up in SQL
    "55P03": BusyError,  # lock_not_available
    "P0002": UnknownNameError,  # no such item
    "08": ConnectionFailedError,
    "22": InvalidArgumentError,
    "23": InvalidArgumentError,
    "28": ConnectionFailedError,  # authentication
    "40": BusyError,  # serialisation failure, deadlock
    "42": InvalidArgumentError,
    "53300": ConnectionFailedError,  # too many connections
    "57P": ConnectionFailedError,  # the server shuts down or starts
}


@dataclass(frozen=True)
class Server:
    """What is known of a server after its check."""

    version: str  # as the server says it: 18.6
    vector_version: str | None  # of pgvector in this database; None: not created yet
    vector_schema: str | None  # the schema that pgvector lives in


def psycopg_url(url: str) -> str:
    """The URL without SQLAlchemy's driver part: postgresql+psycopg://… becomes postgresql://…."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def translated(error: psycopg.Error) -> DatabaseError:
    """The error of dynrec_store that says what a driver error says."""
    state = error.sqlstate
    if state is None:  # the server never answered
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        refused = isinstance(error, psycopg.DataError)  # the driver cannot send a value
        return (ConnectionFailedError if lost else InvalidArgumentError if refused else DatabaseError)(
            str(error).strip()
        )
    kind = next((_BY_SQLSTATE[state[:n]] for n in (5, 3, 2) if state[:n] in _BY_SQLSTATE), DatabaseError)
    message = error.diag.message_primary or str(error)
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    hint = "Run `dynrec migrate` on this database." if kind is NotMigratedError else error.diag.message_hint
    return kind(message + detail, sqlstate=state, hint=hint)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Let errors of the driver leave the block as errors of dynrec_store."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


def without_password(url: str) -> str:
    """What can be shown: host, port, database and user, as psql takes them."""
    given = conninfo_to_dict(psycopg_url(url))
    return make_conninfo(
        "", host=given.get("host"), port=given.get("port"), dbname=given.get("dbname"), user=given.get("user")
    )


def _check_url(url: str) -> None:
    # libpq's own words repeat what it cannot read, or takes for a host: often the password
    try:
        conninfo_to_dict(psycopg_url(url))
        is_readable = url.partition("?")[0].count("@") < 2 or "://" not in url
    except (psycopg.ProgrammingError, UnicodeEncodeError):
        is_readable = False
    if not is_readable:
        raise ConfigurationError(
            "the database URL cannot be read (it is not shown, for the sake of the password)\n"
            "It has the form postgresql://user:password@host:5432/database?option=value, with the options of libpq; "
            "in user and password @ : / ? # % and blanks are written as %40 %3A %2F %3F %23 %25 %20"
        )


def connect(
    url: str, *, application_name: str = "dynrec", autocommit: bool = True
) -> psycopg.Connection[tuple[object, ...]]:
    """Open a connection. Each statement commits by itself unless `autocommit` is false."""
    _check_url(url)
    with translated_errors():
        return psycopg.connect(
            make_conninfo("", **{**_KEEPALIVE, **conninfo_to_dict(psycopg_url(url))}),
            autocommit=autocommit,
            application_name=application_name,
            client_encoding="utf8",
        )


def check_server(connection: psycopg.Connection[tuple[object, ...]]) -> Server:
    """Say what server this is, or raise UnsupportedServerError with what was found and what to do."""
    version = connection.info.parameter_status("server_version") or str(connection.info.server_version)
    check_postgres_version(version)
    with translated_errors():
        row = connection.execute(_VECTOR).fetchone()
    if row is None:
        return Server(version, None, None)
    vector_version, vector_schema = str(row[0]), str(row[1])
    check_vector_version(vector_version)
    return Server(version, vector_version, vector_schema)


def check_postgres_version(version: str) -> None:
    """Raise UnsupportedServerError unless dynrec_store works with this version, such as '18.6' or '19beta1'."""
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) not in POSTGRES_MAJORS:
        raise UnsupportedServerError(
            f"this server is PostgreSQL {version}; dynrec_store works with {POSTGRES_MAJORS.start} to "
            f"{POSTGRES_MAJORS.stop - 1}: upgrade the server or connect to another"
        )


def check_vector_version(version: str) -> None:
    """Raise UnsupportedServerError unless this version of pgvector is new enough."""
    parts = tuple(int(part) for part in version.split(".")[:2])
    if parts < PGVECTOR_MINIMUM:
        raise UnsupportedServerError(
            f"pgvector here is {version}; dynrec_store needs "
            f"{'.'.join(map(str, PGVECTOR_MINIMUM))} or later: install a newer one on the server, then run "
            "'alter extension vector update' in this database"
        )


def available_vector_version(connection: psycopg.Connection[tuple[object, ...]]) -> str | None:
    """The version of pgvector that `create extension` would bring; None if the server has none."""
    with translated_errors(), connection.cursor(row_factory=scalar_row) as cursor:
        found: str | None = cursor.execute(
            "select default_version from pg_catalog.pg_available_extensions where name = 'vector'"
        ).fetchone()
    return found
