"""A small shop whose recommender is up to date."""

from typing import LiteralString

import pytest

from dynrec_store import database
from dynrec_store.store import FeatureStore
from tests.conftest import MakeDatabase
from tests.drain import drain

TABLES: LiteralString = """
    create table product (id bigint primary key, title text, price numeric);
    create table purchase (
      id bigint generated always as identity primary key, user_id bigint, item_id bigint, kind text,
      occurred_at timestamptz not null default now());
    create index on purchase (user_id);
    create index on purchase (item_id);
    insert into product values
      (1, 'red running shoes', 40), (2, 'blue running shoes', 50), (3, 'green hat', 15),
      (4, 'warm green hat', 25), (5, 'a long coat', 120);
    insert into purchase (user_id, item_id, kind) values (42, 1, 'buy'), (43, 3, 'view'), (44, 3, 'buy');
"""


@pytest.fixture(scope="session")
def shop_template(make_database: MakeDatabase, template: str) -> str:
    """The name of a database with the shop."""
    return make_shop(make_database(template)).rpartition("/")[2]


@pytest.fixture
def beginning(request: pytest.FixtureRequest, shop_template: str, beginning: str) -> str:
    return shop_template if "shop_url" in request.fixturenames else beginning


@pytest.fixture
def shop_url(database_url: str) -> str:
    """The URL of a database with recommender 'shop' over product and purchase, everything computed."""
    return database_url


@pytest.fixture
def shop_vector_elsewhere_url(vector_elsewhere_url: str) -> str:
    """The same, with pgvector in a schema that is not on the search path."""
    return make_shop(vector_elsewhere_url)


def make_shop(url: str) -> str:
    """Make the tables and the recommender, and compute everything; returns the URL."""
    with database.connect(url) as connection, FeatureStore.connect(url) as store:
        connection.execute("set search_path = public, extensions")  # for drain
        connection.execute(TABLES)
        store.create_recommender(
            "shop",
            "public.product",
            text_columns=["title"],
            numeric_columns=["price"],
            interactions="public.purchase",
            kind_column="kind",
            kinds={"buy": {"weight": 3, "half_life": "60 days"}},
            encoder="hashing",
        )
        drain(connection)
    return url
