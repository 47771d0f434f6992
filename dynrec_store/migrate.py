"""`dynrec migrate`: the one way in to a database. Tables by revisions, then code from sql/, all or nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import tenacity
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from dynrec_store import code, database
from dynrec_store.exceptions import (
    BusyError,
    DatabaseError,
    MigrationError,
    PermissionDeniedError,
    UnsupportedServerError,
)
from dynrec_store.resources import resource_folder
from dynrec_store.schema import CONTEXT_OPTIONS, DATA_SCHEMA

# Then the migration lets go of everything, rather than make an application wait behind it. Less than deadlock_timeout,
# a second, so that it is the one to give up.
LOCK_TIMEOUT = "800ms"
ATTEMPTS = 10  # to get all locks; in between, after 0.5, 1, 2, 4 and then each 5 seconds, the application goes on

# Locks that a migration takes, counted in pg_locks: some hundred, and for each recommender; many where policies, rights
# and all of its functions are new to it.
LOCKS = 1000
LOCKS_EACH = 4
LOCKS_EACH_BEFORE_RIGHTS = 32
RIGHTS = "0009"  # the revision from which on they are there

SCHEMA_COMMENT: LiteralString = (
    "comment on schema dynrec_data is 'Private tables of dynrec_store. Use the functions and views of schema dynrec.'"
)


@dataclass(frozen=True)
class State:
    """How far a database is."""

    revision: str | None  # of the tables; None: there are none
    head: str  # the revision that this version of dynrec_store brings
    code_is_current: bool  # whether schema dynrec is what sql/ says

    @property
    def is_current(self) -> bool:
        """Whether `upgrade` would do nothing."""
        return self.revision == self.head and self.code_is_current


def upgrade(url: str, *, sql_folder: Path | None = None) -> tuple[State, State]:
    """Bring the database to this version of dynrec_store, in one transaction; nothing happens if it is there already.

    Returns the state before and after. Creates the extension vector where it is missing. `sql_folder` defaults to the
    project's own. Raises MigrationError (or DependentObjectsError, which names the user's objects that stand in
    the way), UnsupportedServerError, PermissionDeniedError, or BusyError if a lock is not to be had.
    """
    return _until_not_busy()(_upgrade, url, sql_folder or resource_folder("sql"))


def _upgrade(url: str, folder: Path) -> tuple[State, State]:
    with _transaction(url) as connection:
        cursor = _cursor(connection)
        vector_schema = _prepare(cursor)
        before = _state(connection, cursor, folder, vector_schema)
        if before.is_current:
            return before, before
        _refuse_extension(
            cursor, "have its files on the server (dynrec extension build), then: alter extension dynrec update"
        )
        if before.revision is None and _missing(cursor, DATA_SCHEMA):
            cursor.execute("create schema dynrec_data")
            cursor.execute(SCHEMA_COMMENT)
        elif before.revision is not None:
            _check_room_for_locks(cursor, before.revision)
            if before.revision != before.head:
                _hold_readers(cursor)
        command.upgrade(_config(connection), "head")
        code.apply(cursor, folder, vector_schema)
        return before, _state(connection, cursor, folder, vector_schema)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the tables back to a revision. `base` removes everything: recommenders, vectors, both schemas.

    At another revision schema dynrec is empty until the version of dynrec_store that belongs to it migrates; changes
    are captured meanwhile. The extension vector stays. Raises DependentObjectsError if a user's object uses schema
    dynrec, or BusyError if a lock is not to be had.
    """
    _until_not_busy()(_downgrade, url, revision)


def _downgrade(url: str, revision: str) -> None:
    with _transaction(url) as connection:
        cursor = _cursor(connection)
        _prepare(cursor)
        if _missing(cursor, DATA_SCHEMA):
            return
        _refuse_extension(cursor, "select dynrec.drop_recommender(…) for each of them, then: drop extension dynrec")
        if revision == "base":
            code.remove(cursor)
        else:
            _hold_readers(cursor)
            code.withdraw(cursor)  # views stand on columns that may go
            cursor.execute("delete from dynrec_data.code")  # so that the next upgrade applies sql/ again
        command.downgrade(_config(connection), revision)
        if revision == "base":
            cursor.execute("drop table dynrec_data.alembic_version")
            cursor.execute("drop schema dynrec_data")


def current(url: str, *, sql_folder: Path | None = None) -> State:
    """Say how far the database is; changes nothing."""
    folder = sql_folder or resource_folder("sql")
    with _transaction(url) as connection:
        cursor = _cursor(connection)
        server = database.check_server(cursor.connection)
        return _state(connection, cursor, folder, server.vector_schema or "")


def _until_not_busy() -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BusyError),
        wait=tenacity.wait_exponential(multiplier=0.5, max=5),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        reraise=True,
    )


@contextmanager
def _transaction(url: str) -> Iterator[Connection]:
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: database.connect(url, application_name="dynrec migrate", autocommit=False),
        poolclass=NullPool,
    )
    try:
        with database.translated_errors(), engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise _explained(database.translated(error.orig)) from error
        raise
    except BusyError as error:
        raise _explained(error) from error
    except CommandError as error:
        raise MigrationError(
            f"{error}: if the database was migrated by a newer dynrec_store, install that version"
        ) from error


def _explained(error: DatabaseError) -> DatabaseError:
    if not isinstance(error, BusyError):
        return error
    return BusyError(
        str(error), sqlstate=error.sqlstate, hint="Nothing was changed. Try again when no long transaction runs."
    )


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)  # noqa: S101 - the dialect above says so
    return raw.cursor()


def _prepare(cursor: psycopg.Cursor[Any]) -> str:
    """Check the server, wait for other migrations, and set up the transaction; returns pgvector's schema."""
    database.check_server(cursor.connection)
    cursor.execute("select pg_advisory_xact_lock(hashtextextended('dynrec migrate', 0))")
    cursor.execute("select set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
    vector_schema = database.check_server(cursor.connection).vector_schema or _create_vector(cursor)
    # Users' schemas are left out: nothing of theirs can take the place of what the revisions and sql/ name.
    cursor.execute(sql.SQL("set local search_path = pg_catalog, {}, pg_temp").format(sql.Identifier(vector_schema)))
    # Loads the library: until then only a superuser may make functions that carry a setting of pgvector.
    cursor.execute("select '[1]'::vector")
    return vector_schema


def _refuse_extension(cursor: psycopg.Cursor[Any], instead: str) -> None:
    row = cursor.execute("select extversion from pg_extension where extname = 'dynrec'").fetchone()
    if row is not None:
        raise MigrationError(
            f"this database has dynrec by create extension, version {row[0]}, and not by dynrec migrate: {instead}"
        )


def _check_room_for_locks(cursor: psycopg.Cursor[Any], revision: str) -> None:
    """Refuse what would use up the server's room for locks: other sessions would fail for want of them, too."""
    row = cursor.execute(
        """
        select (select count(*) from dynrec_data.recommender), current_setting('max_locks_per_transaction')::int,
            current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int
        """
    ).fetchone()
    assert row is not None  # noqa: S101  of one row
    recommenders, each, transactions = row
    needed = LOCKS + recommenders * (LOCKS_EACH_BEFORE_RIGHTS if revision < RIGHTS else LOCKS_EACH)
    if needed > each * transactions:
        raise MigrationError(
            f"migrating {recommenders} recommenders takes about {needed} locks, and this server has room for "
            f"{each * transactions}. Nothing was changed. Have a superuser run 'alter system set "
            f"max_locks_per_transaction = {needed // transactions + 1}' and restart the server, then migrate again; "
            "afterwards the setting can be reset"
        )


def _hold_readers(cursor: psycopg.Cursor[Any]) -> None:
    """Have readers wait where they begin, at a view or in a function: they hold nothing that is needed later."""
    # `lock table` on a view would lock what it reads, catalogs included; who owns it already changes nothing
    cursor.execute(
        """
        select format('alter view %s owner to %s', c.oid::regclass, c.relowner::regrole) from pg_class c
        where c.relnamespace = to_regnamespace('dynrec') and c.relkind = 'v' order by c.oid desc
        """
    )
    for (statement,) in cursor.fetchall():
        cursor.execute(statement)
    cursor.execute("lock table dynrec_data.recommender in access exclusive mode")


def _create_vector(cursor: psycopg.Cursor[Any]) -> str:
    version = database.available_vector_version(cursor.connection)
    if version is None:
        raise UnsupportedServerError(
            "this server has no pgvector: install it there (package postgresql-18-pgvector on Debian, or the image "
            "pgvector/pgvector), then migrate again"
        )
    database.check_vector_version(version)
    try:
        cursor.execute("create extension vector")
    except psycopg.errors.InsufficientPrivilege as error:
        info = cursor.connection.info
        raise PermissionDeniedError(
            f"role {info.user!r} may not create the extension vector: have a superuser run 'create extension vector' "
            f"in database {info.dbname!r}, then migrate again"
        ) from error
    schema = database.check_server(cursor.connection).vector_schema
    if schema is None:
        raise UnsupportedServerError("the extension vector was created and is not there")
    return schema


def _state(connection: Connection, cursor: psycopg.Cursor[Any], folder: Path, vector_schema: str) -> State:
    revision = MigrationContext.configure(connection, opts=CONTEXT_OPTIONS).get_current_revision()
    head = ScriptDirectory.from_config(_config(connection)).get_current_head()
    if head is None:
        raise MigrationError("the folder migrations has no revisions: the installation is incomplete")
    return State(revision, head, revision is not None and code.is_current(cursor, folder, vector_schema))


def _missing(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    return cursor.execute("select to_regnamespace(%s) is null", [schema]).fetchone() == (True,)


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(resource_folder("migrations")).replace("%", "%%"))
    return config
