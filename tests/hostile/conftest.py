"""A shop that hostile calls are thrown at, and how hard they try: `--hypothesis-profile soak` for as long as it takes."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.drain import Session
from tests.hostile.canary import plant
from tests.sql.shop import NOON, Event, create_shop

# Other folders have profiles of their own, and the one that was loaded last is everybody's: it is loaded for each test.
_ALWAYS = settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.register_profile("hostile", _ALWAYS, max_examples=8, derandomize=True, database=None)
settings.register_profile("soak", _ALWAYS, max_examples=400, derandomize=False, database=None)
settings.load_profile("hostile")  # for what is made of it where modules are read


@pytest.fixture(autouse=True)
def _as_hard_as_asked(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same values every time, as many as a minute allows, unless another profile is asked for."""
    before = settings.get_current_profile_name()
    settings.load_profile(request.config.getoption("--hypothesis-profile") or "hostile")
    yield
    settings.load_profile(before)


GiveUp = Callable[[str], None]


def open_session(url: str) -> psycopg.Connection[Any]:
    """A connection whose statements commit by themselves and end after twenty seconds."""
    connection = database.connect(url)
    connection.execute("set statement_timeout = '20s'")
    return connection


@pytest.fixture(scope="session")
def busy_template(make_database: MakeDatabase, template: str) -> str:
    """The name of a database with a shop at work: products, events, an experiment, everything published."""
    url = make_database(template)
    with database.connect(url) as connection:
        shop = create_shop(connection, products=12)
        shop.add_events(
            Event(
                f"u{n % 4}", str(1 + (n * 7) % 9), NOON + n * timedelta(hours=5), ["view", "purchase", "return"][n % 3]
            )
            for n in range(24)
        )
        shop.drain()
        shop.execute('select dynrec.create_experiment(\'shop\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
        plant(connection)
    return url.rpartition("/")[2]


@pytest.fixture
def busy_url(make_database: MakeDatabase, give_up_database: GiveUp, busy_template: str) -> Iterator[str]:
    """A copy of that database of this test's own."""
    url = make_database(busy_template)
    yield url
    give_up_database(url)


@pytest.fixture
def fresh_session(
    make_database: MakeDatabase, give_up_database: GiveUp, busy_template: str
) -> Iterator[Callable[[], Session]]:
    """Open a connection to another copy, each time it is called; the copy before goes."""
    opened: list[tuple[str, Session]] = []

    def close() -> None:
        while opened:
            url, connection = opened.pop()
            connection.close()
            give_up_database(url)

    def fresh() -> Session:
        close()
        url = make_database(busy_template)
        opened.append((url, open_session(url)))
        return opened[0][1]

    yield fresh
    close()
