"""A server of its own, with every safeguard on, and processes to kill."""

import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dynrec_store import migrate
from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.nursery import Nursery
from tests.property import shop


@pytest.fixture
def seed() -> int:
    """A new one each time; a failure shows it."""
    chosen = random.randrange(2**32)
    print(f"seed {chosen}")  # noqa: T201
    return chosen


@pytest.fixture(scope="session")
def durable_server(open_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    """A server that loses nothing when it is killed."""
    settings = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "64MB"}
    with EmbeddedPostgres(open_folder / "durable", package=postgres_package, settings=settings) as running:
        yield running


@pytest.fixture
def database_url(durable_server: EmbeddedPostgres, request: pytest.FixtureRequest) -> str:
    """A database of this test's own on the durable server, with the shop declared."""
    name = request.node.name[:60]
    with psycopg.connect(durable_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    url = durable_server.url_of(name)
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        shop.declare(connection)
        # a second model version, so that every change has to reach two
        connection.execute("select dynrec.register_encoder('tinier', 'hashing', '', %s)", [shop.DIMENSION // 2])
        connection.execute("select dynrec.stage_model(%s, encoder => 'tinier')", [shop.NAME])
    return url


@pytest.fixture(params=["memory", "redis"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """None: dispatcher and worker share a process; or a Redis between processes of their own."""
    if request.param == "memory":
        yield None
        return
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: dispatcher and worker were only killed together")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        yield f"redis://127.0.0.1:{port}/0"
        server.terminate()


@pytest.fixture
def nursery(database_url: str, broker_url: str | None, tmp_path: Path) -> Iterator[Nursery]:
    with Nursery(database_url, tmp_path, broker_url) as running:
        yield running
