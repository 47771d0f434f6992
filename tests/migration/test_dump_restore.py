"""A dump of a database in the middle of its work, restored: the same answers, and the work goes on."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dynrec_store import migrate
from dynrec_store.binaries import Binaries
from dynrec_store.embedded import EmbeddedPostgres
from tests.migration.lived import assert_goes_on, live

# What a program is given to make a dump, and what reads it again.
FORMATS: dict[str, tuple[list[str], list[str]]] = {
    "plain": (["pg_dump", "--format=plain"], ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]),
    "custom": (["pg_dump", "--format=custom"], ["pg_restore", "--exit-on-error"]),
    "parallel": (["pg_dump", "--format=directory", "--jobs=2"], ["pg_restore", "--exit-on-error", "--jobs=2"]),
}


def copy(binaries: Binaries, form: str, source: str, target: str, folder: Path) -> None:
    """Dump one database and restore the dump into another, which is empty."""
    (dumper, *dump), (restorer, *restore) = FORMATS[form]
    file = folder / "dump"
    reading = [f"--file={file}", f"--dbname={target}"] if restorer == "psql" else [f"--dbname={target}", str(file)]
    subprocess.run([binaries.program(dumper), *dump, f"--file={file}", source], check=True)
    subprocess.run([binaries.program(restorer), *restore, *reading], check=True)


@pytest.mark.parametrize("form", FORMATS)
def test_restored_on_the_same_server(
    database_url: str, make_database: Callable[..., str], binaries: Binaries, form: str, tmp_path: Path
) -> None:
    before = live(database_url)
    restored = make_database("template0")
    copy(binaries, form, database_url, restored, tmp_path)
    assert_goes_on(restored, before)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_moved_to_a_newer_server(
    older_server: EmbeddedPostgres, make_database: Callable[..., str], binaries: Binaries, form: str, tmp_path: Path
) -> None:
    with psycopg.connect(older_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(f"moving_{form}")))
    source = older_server.url_of(f"moving_{form}")
    migrate.upgrade(source)
    before = live(source)
    restored = make_database("template0")
    copy(binaries, form, source, restored, tmp_path)
    migrate.upgrade(restored)
    assert_goes_on(restored, before)


def test_migrating_a_restored_database_makes_it_the_same(
    database_url: str,
    make_database: Callable[..., str],
    binaries: Binaries,
    dump_schema: Callable[..., str],
    tmp_path: Path,
) -> None:
    live(database_url)
    restored = make_database("template0")
    copy(binaries, "custom", database_url, restored, tmp_path)
    with psycopg.connect(restored, autocommit=True) as connection:
        connection.execute("update dynrec_data.code set hash = 'older'")  # as if sql/ had changed
    migrate.upgrade(restored)
    assert dump_schema(restored) == dump_schema(database_url)
