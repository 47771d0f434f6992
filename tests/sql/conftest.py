"""A shop for each test, and one for each test process that is only read."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase, Prepare
from tests.drain import Session, drain
from tests.sql.shop import NOON, Event, Shop, create_shop, open_shop


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    """A database that has the shop already."""
    return prepared(open_shop).name if "shop" in request.fixturenames else beginning


@pytest.fixture
def shop(connection: Session) -> Shop:
    """Twelve products without events; everything published."""
    return Shop(connection)


@pytest.fixture(scope="session")
def _busy(make_database: MakeDatabase, template: str) -> Iterator[Shop]:
    with database.connect(make_database(template)) as connection:
        shop = create_shop(connection, products=60)
        shop.add_events(
            Event(
                f"u{n % 10}",
                str(1 + (n * 7) % 40),
                NOON + n * timedelta(hours=5),
                ["view", "purchase", "return"][n % 3],
            )
            for n in range(120)
        )
        shop.drain()
        shop.execute('select dynrec.create_experiment(\'shop\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
        yield shop


@pytest.fixture
def busy(_busy: Shop) -> Shop:
    """Sixty products, ten users with a dozen events each and an experiment, for tests that leave them as they are."""
    _busy.execute("reset all; reset role")
    return _busy


@pytest.fixture(scope="session")
def many(make_database: MakeDatabase, template: str) -> Iterator[Session]:
    """A recommender `many` over twenty thousand items with vectors of their own, indexed; tests leave it as it is."""
    with database.connect(make_database(template)) as connection:
        connection.execute(
            """
            create table items (id int primary key, price int, embedding vector(16));
            create table events (user_id int, item_id int, occurred_at timestamptz);
            create index on events (user_id);
            create index on events (item_id);
            select setseed(0.5);
            insert into items
            select i, i, array(select random() - 0.5 from generate_series(1, 16) where i > 0)::vector
            from generate_series(1, 20000) i;
            insert into events select 1 + i / 5, i, now() from generate_series(1, 5000) i;
            analyze;
            select dynrec.create_recommender('many', 'public.items', vector_column => 'embedding', interactions => 'public.events');
            """
        )
        drain(connection, batch_size=10_000)
        for (statement,) in connection.execute("select statement from dynrec._index_statements()").fetchall():
            connection.execute(str(statement).encode())
        yield connection
