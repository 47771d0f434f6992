"""A dump of a database in the middle of its work, restored: the same answers, and the work goes on."""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dynrec_store import migrate, queue
from dynrec_store.binaries import Binaries
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import PACKAGES, SETTINGS
from tests.property import answers, labour, oracle, shop
from tests.property.shop import Writer

Session = psycopg.Connection[tuple[Any, ...]]

# What a program is given to make a dump, and what reads it again.
FORMATS: dict[str, tuple[list[str], list[str]]] = {
    "plain": (["pg_dump", "--format=plain"], ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]),
    "custom": (["pg_dump", "--format=custom"], ["pg_restore", "--exit-on-error"]),
    "parallel": (["pg_dump", "--format=directory", "--jobs=2"], ["pg_restore", "--exit-on-error", "--jobs=2"]),
}


KINDS: tuple[queue.Kind, ...] = ("item", "user")


@dataclass(frozen=True)
class Memory:
    """What was known of a database when it was dumped."""

    quiet: answers.Answers  # when everything had been worked through
    busy: answers.Answers  # when it was dumped
    waiting: list[tuple[Any, ...]]  # changes, leases, retries, dead letters, tasks


@pytest.fixture(scope="session")
def older_server(open_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    if postgres_package == PACKAGES["16"]:
        pytest.skip("there is no older server than 16")
    with EmbeddedPostgres(open_folder / "older", package=PACKAGES["16"], settings=SETTINGS) as running:
        yield running


def live(url: str) -> Memory:
    """Fill a database with history, and leave work of every sort undone."""
    dice = random.Random(7)
    with psycopg.connect(url, autocommit=True) as connection, queue.connect(url, application_name="worker") as worker:
        shop.declare(connection, max_attempts=1)
        writer = Writer(connection, dice)
        shop.upsert_items(writer)
        for _ in range(4):
            act(writer, 30)
            labour.drain(worker)
        quiet = answers.now(connection)
        for charge in (True, False):
            act(writer, 15)
            for kind in KINDS:
                if token := queue.claim(worker, shop.NAME, kind, 3, labour.LONG):
                    queue.fail(worker, token, queue.leased_entities(worker, token), "made to fail", charge=charge)
        queue.claim(worker, shop.NAME, "user", 3, labour.LONG)
        act(writer, 10)
        shop.refresh_all(writer)
        return Memory(quiet, answers.now(connection), waiting(connection))


def act(writer: Writer, times: int) -> None:
    for _ in range(times):
        with suppress(psycopg.errors.UniqueViolation):
            writer.act()


def waiting(connection: Session) -> list[tuple[Any, ...]]:
    return connection.execute(
        """
        select 'change', to_jsonb(c)::text from dynrec_data.change c
        union all select 'lease', to_jsonb(l)::text from dynrec_data.lease l
        union all select 'retry', to_jsonb(r)::text from dynrec_data.retry r
        union all select 'dead_letter', to_jsonb(d)::text from dynrec_data.dead_letter d
        union all select 'task', to_jsonb(t)::text from dynrec_data.task t
        order by 1, 2
        """
    ).fetchall()


def copy(binaries: Binaries, form: str, source: str, target: str, folder: Path) -> None:
    """Dump one database and restore the dump into another, which is empty."""
    (dumper, *dump), (restorer, *restore) = FORMATS[form]
    file = folder / "dump"
    reading = [f"--file={file}", f"--dbname={target}"] if restorer == "psql" else [f"--dbname={target}", str(file)]
    subprocess.run([binaries.program(dumper), *dump, f"--file={file}", source], check=True)
    subprocess.run([binaries.program(restorer), *restore, *reading], check=True)


def assert_goes_on(url: str, before: Memory) -> None:
    """The restored database knows what the dumped one knew, and works."""
    with psycopg.connect(url, autocommit=True) as connection, queue.connect(url, application_name="worker") as worker:
        assert waiting(connection) == before.waiting
        assert {kind for kind, _ in before.waiting} == {"change", "lease", "retry", "dead_letter", "task"}
        assert answers.differences(before.busy, answers.now(connection)) == []
        assert answers.differences(before.quiet, answers.as_of(connection, before.quiet.at)) == []
        ailments = "select finding from dynrec.doctor() where severity = 'error' and subject = %s"
        assert connection.execute(ailments, [shop.NAME]).fetchall() == []
        act(Writer(connection, random.Random(8)), 40)
        connection.execute("update dynrec_data.lease set deadline = now()")
        labour.drain(worker)
        assert list(oracle.differences(connection)) == []
        assert answers.differences(before.quiet, answers.as_of(connection, before.quiet.at)) == []


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
