"""`dynrec demo --load`: the shop of the demo in a database that has dispatcher and workers of its own."""

from datetime import UTC, datetime

import psycopg

from dynrec_store import migrate
from dynrec_store.database import psycopg_url, translated_errors
from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.demo.declaring import RECOMMENDER
from workers.demo.grocery import read_grocery
from workers.demo.shop import create_shop


def load_demo(settings: Settings, households: int | None = None) -> str:
    """Make schema shop and recommender shop, whose vectors the workers fill in; what is there already stays.

    Returns what was done. Raises ConfigurationError for a schema shop that is somebody else's.
    """
    with target_database(settings, create=True) as url, translated_errors():
        migrate.upgrade(url)
        with psycopg.connect(psycopg_url(url), autocommit=True, application_name="dynrec demo") as connection:
            found = connection.execute(
                """
                select exists (select from dynrec.status where recommender = 'shop'),
                  to_regnamespace('shop') is not null
                """
            ).fetchone()
            if found == (True, True):
                return "the demo is loaded already"
            if found != (False, False):
                raise ConfigurationError(
                    "this database has a schema shop or a recommender shop that is not the demo's: "
                    "drop it, or load into another database"
                )
            grocery = read_grocery(datetime.now(UTC), households)
            with connection.transaction():
                create_shop(connection, grocery, lambda _sent, _total: None)
                connection.execute(RECOMMENDER)
    products, purchases = len(grocery.products), len(grocery.purchases)
    return f"loaded {products:,} products and {purchases:,} purchases; workers fill in the vectors"
