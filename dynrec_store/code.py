"""Bringing schema dynrec to the state of the files in sql/, without destroying what users built on it."""

import hashlib
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Cursor

from dynrec_store import catalog, grants
from dynrec_store.exceptions import MigrationError


def fingerprint(folder: Path) -> str:
    """The sha256 of the files: their names and contents."""
    digest = hashlib.sha256()
    for file in files(folder):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def is_current(cursor: Cursor[Any], folder: Path, vector_schema: str) -> bool:
    """Whether schema dynrec is what these files made, with pgvector in that schema."""
    if cursor.execute("select to_regnamespace('dynrec')::text").fetchone() == (None,):
        return False
    row = cursor.execute("select hash, vector_schema from dynrec_data.code").fetchone()
    return row == (fingerprint(folder), vector_schema)


def apply(cursor: Cursor[Any], folder: Path, vector_schema: str) -> None:
    """Run the files, after dropping what `create or replace` could not replace.

    The transaction's search_path becomes the functions' own (`set search_path from current`). Raises
    DependentObjectsError if objects outside of dynrec use something that has to go.
    """
    there, kept = catalog.objects(cursor), grants.grants(cursor)
    if there:
        wanted = _wanted(cursor, folder)
        catalog.drop(
            cursor, [one for one in there.values() if one.name not in wanted or not one.can_become(wanted[one.name])]
        )
    _run(cursor, folder)
    grants.restore(cursor, kept)
    _call_if_there(cursor, "dynrec._regenerate()")
    cursor.execute(
        """
        insert into dynrec_data.code (hash, vector_schema) values (%s, %s)
        on conflict (id) do update
        set hash = excluded.hash, vector_schema = excluded.vector_schema, applied_at = excluded.applied_at
        """,
        [fingerprint(folder), vector_schema],
    )


def remove(cursor: Cursor[Any]) -> None:
    """Drop all recommenders and schema dynrec; DependentObjectsError if objects outside use something in it."""
    _call_if_there(cursor, "dynrec._drop_all_recommenders()")
    withdraw(cursor)
    cursor.execute("drop schema if exists dynrec")


def withdraw(cursor: Cursor[Any]) -> None:
    """Drop what is in schema dynrec, and leave the recommenders, whose triggers go on; errors as of `remove`.

    The next `apply` brings it back, of this version or of another.
    """
    catalog.drop(cursor, catalog.objects(cursor).values())


def _wanted(cursor: Cursor[Any], folder: Path) -> dict[str, catalog.CodeObject]:
    # PostgreSQL itself says what the files make: they run in an empty schema, and nothing of that stays.
    cursor.execute("savepoint wanted")
    cursor.execute("alter schema dynrec rename to dynrec_as_it_was")
    _run(cursor, folder)
    wanted = catalog.objects(cursor)
    cursor.execute("rollback to savepoint wanted")
    return wanted


def _run(cursor: Cursor[Any], folder: Path) -> None:
    cursor.execute("create schema if not exists dynrec")
    for file in files(folder):
        source = file.read_bytes()
        try:
            cursor.execute(source)
        except psycopg.OperationalError:
            raise  # a lock, a deadlock, a connection: not the file's fault
        except psycopg.Error as error:
            raise MigrationError(f"sql/{file.name}{_place(error, source)}: {error}") from error


def _call_if_there(cursor: Cursor[Any], function: str) -> None:
    # A folder of sql/ without per-recommender code has no such function.
    found = cursor.execute("select to_regprocedure(%s) is not null", [function]).fetchone()
    if found == (True,):
        cursor.execute(f"select {function}".encode())


def files(folder: Path) -> list[Path]:
    """The files of sql/ in the order in which they run."""
    found = sorted(folder.glob("*.sql"))
    if not found:
        raise MigrationError(f"the folder {folder} has no .sql files: the installation is incomplete")
    return found


def _place(error: psycopg.Error, source: bytes) -> str:
    position = error.diag.statement_position
    return f":{source.decode()[: int(position)].count(chr(10)) + 1}" if position else ""
