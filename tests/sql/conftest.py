"""A shop for each test, and one for each test process that tests only read."""

from collections.abc import Iterator

import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.drain import Session
from tests.sql.shop import Shop, create_shop


@pytest.fixture
def shop(connection: Session) -> Shop:
    """Twelve products without events; everything published."""
    created = create_shop(connection, products=12)
    created.drain()
    return created


