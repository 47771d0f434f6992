"""A recommender over an empty table, and an encoder that fails on demand."""

from collections.abc import Iterator

import pytest
from pgvector.psycopg import register_vector

from dynrec_store.settings import Settings
from tests.conftest import Prepare
from tests.workers.support import Connection, Fussy, quick_settings
from workers import context as worker_context
from workers.context import Context
from workers.encoders import Encoder


@pytest.fixture
def settings() -> Settings:
    return quick_settings()


def declare(connection: Connection) -> None:
    """A recommender 'shop' over an empty table."""
    connection.execute("create table products (id text primary key, title text)")
    connection.execute("create table clicks (user_id text, item_id text, occurred_at timestamptz default now())")
    connection.execute("""
        select dynrec.create_recommender('shop', 'products', text_columns => '{title}', interactions => 'clicks',
          encoder => 'hashing', options => '{"max_attempts": 2}')""")


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(declare).name if "products" in request.fixturenames else beginning


@pytest.fixture
def products(connection: Connection) -> Connection:
    """A connection to a database with a recommender 'shop' over an empty table, and vectors of numpy."""
    register_vector(connection)
    return connection


@pytest.fixture
def context(settings: Settings, database_url: str) -> Iterator[Context]:
    made = Context(settings, database_url)
    yield made
    made.close()


@pytest.fixture
def fussy(monkeypatch: pytest.MonkeyPatch) -> Fussy:
    """Takes the place of every encoder."""
    encoder = Fussy()

    def load(*_: object) -> Encoder:
        return encoder

    monkeypatch.setattr(worker_context, "load_encoder", load)
    return encoder
