"""A shop for each test, and one for each test process that is only read."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.drain import Session
from tests.sql.shop import NOON, Event, Shop, create_shop


@pytest.fixture
def shop(connection: Session) -> Shop:
    """Twelve products without events; everything published."""
    created = create_shop(connection, products=12)
    created.drain()
    return created


@pytest.fixture(scope="session")
def _busy(make_database: MakeDatabase, template: str) -> Iterator[Shop]:
    with database.connect(make_database(template)) as connection:
        shop = create_shop(connection, products=60)
        shop.add_events(
            Event(f"u{n % 10}", str(1 + (n * 7) % 40), NOON + n * timedelta(hours=5), ["view", "purchase", "return"][n % 3])
            for n in range(120)
        )
        shop.drain()
        yield shop


@pytest.fixture
def busy(_busy: Shop) -> Shop:
    """Sixty products and ten users with a dozen events each, for tests that leave them as they are."""
    _busy.execute("reset all; reset role")
    return _busy
