"""Going back behind experiments, measurements and forgotten users, and forth again, with data in place."""

import pytest

from dynrec_store import database, migrate
from dynrec_store.exceptions import DynrecError
from tests.sql.shop import NOON, Event, Shop, create_shop


@pytest.fixture
def shop(database_url: str) -> Shop:
    """With a profile, an experiment, an exposure and measurements; its connection is closed."""
    with database.connect(database_url) as connection:
        shop = create_shop(connection, products=12)
        shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
        shop.drain()
        connection.execute("select dynrec._take_profiles()")
        connection.execute('select dynrec.create_experiment(\'shop\', \'x\', \'[{"arm": "a"}, {"arm": "b"}]\')')
        connection.execute("select dynrec.log_exposure('shop', 'x', 'u1')")
        connection.execute("select dynrec.watch('shop')")
    return shop


def test_back_and_forth(shop: Shop, database_url: str) -> None:
    migrate.downgrade(database_url, "0005")
    with database.connect(database_url) as connection:
        shop.connection = connection
        shop.add_events([Event("u1", "3", NOON, "view")])  # writers go on
        assert shop.value("select options ? 'measure_every' from dynrec_data.recommender") is False
    migrate.upgrade(database_url)
    with database.connect(database_url) as connection:
        shop.connection = connection
        shop.drain()
        assert shop.value("select options ->> 'measure_every' from dynrec_data.recommender") == "1 day"
        assert shop.execute("select * from dynrec.experiments") == []
        connection.execute("select dynrec._take_profiles()")
        assert shop.value("select dynrec.watch('shop')") > 0
        shop.assert_right()


def test_who_was_forgotten_does_not_come_back_by_a_downgrade(shop: Shop, database_url: str) -> None:
    with database.connect(database_url) as connection:
        connection.execute("select dynrec.forget_user('shop', 'u2')")
    with pytest.raises(DynrecError, match=r"users were forgotten.*\n?.*Delete their rows"):
        migrate.downgrade(database_url, "0007")
    with database.connect(database_url) as connection:
        shop.connection = connection
        shop.add_events([Event("u2", "3", NOON, "view"), Event("u1", "3", NOON, "view")])
        shop.drain()
        assert shop.value("select count(*) from dynrec_data.user_vector where user_id = 'u2'") == 0
    migrate.downgrade(database_url)
    with database.connect(database_url) as connection:
        shop.connection = connection
        shop.add_events([Event("u2", "3", NOON, "view")])


def test_writers_go_on_while_the_code_is_withdrawn(shop: Shop, database_url: str) -> None:
    with database.connect(database_url) as connection:
        connection.execute("select dynrec.forget_user('shop', 'u2')")
        shop.connection = connection
        migrate.downgrade(database_url, "0008")
        shop.add_events([Event("u2", "3", NOON, "view"), Event("u1", "3", NOON, "view")])
        assert shop.execute("select entity from dynrec_data.change where kind = 'user'") == [("u1",)]
