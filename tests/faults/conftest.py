"""A server of its own, with every safeguard on, and processes to kill."""

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dynrec_store import migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.broker import Redis
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.nursery import Nursery
from tests.faults.rabbitmq import RabbitMQ
from tests.property import shop

# A server that loses nothing when it is killed.
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "64MB"}

BROKERS: dict[str, type[Redis] | type[RabbitMQ]] = {"redis": Redis, "rabbitmq": RabbitMQ}

SECONDS = 300  # that a test may take in one round


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """More rounds take more time."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(SECONDS * config.getoption("--rounds")))


@pytest.fixture
def seed() -> int:
    """A new one each time; a failure shows it."""
    chosen = random.randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201
    return chosen


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many times as much as usual to break things."""
    many: int = request.config.getoption("--rounds")
    return many


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """What the table at the end of the run gets from this test."""
    kept = Ledger()
    yield kept
    request.node.user_properties.append(kept.as_property())


@pytest.fixture(scope="session")
def durable_server(disk_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(disk_folder / "durable", package=postgres_package, settings=DURABLE) as running:
        yield running


@pytest.fixture(scope="session")
def durable_template(durable_server: EmbeddedPostgres) -> str:
    """The name of a database on the durable server with the shop declared."""
    return declared_shop(durable_server, "declared").rpartition("/")[2]


@pytest.fixture
def database_url(durable_server: EmbeddedPostgres, durable_template: str, request: pytest.FixtureRequest) -> str:
    """A database of this test's own on the durable server, with the shop declared."""
    name = request.node.name[:60]
    with psycopg.connect(durable_server.url, autocommit=True) as connection:
        # a copy through the log, if the server is killed before its next checkpoint, forgets how far sequences were used
        statement = sql.SQL("create database {} template {} strategy file_copy")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(durable_template)))
    return durable_server.url_of(name)


def declared_shop(server: EmbeddedPostgres, name: str) -> str:
    """The URL of a new database with the shop, of which two model versions are kept."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    url = server.url_of(name)
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        shop.declare(connection)
        # a second model version, so that every change has to reach two
        connection.execute("select dynrec.register_encoder('tinier', 'hashing', '', %s)", [shop.DIMENSION // 2])
        connection.execute("select dynrec.stage_model(%s, encoder => 'tinier')", [shop.NAME])
    return url


@pytest.fixture
def load(database_url: str, seed: int, ledger: Ledger) -> Load:
    return Load(database_url, seed, ledger=ledger)


@pytest.fixture(params=list(BROKERS))
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis | RabbitMQ]:
    with BROKERS[request.param](tmp_path) as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path) as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """None: dispatcher and worker share a process; or a broker between processes of their own."""
    if request.param == "memory":
        yield None
    else:
        with BROKERS[request.param](tmp_path) as running:
            yield running.url


@pytest.fixture
def nursery(database_url: str, broker_url: str | None, tmp_path: Path) -> Iterator[Nursery]:
    with Nursery(database_url, tmp_path, broker_url) as running:
        yield running
