"""Going back behind learned models, and forth again, with data in place."""

from collections.abc import Callable

from dynrec_store import database, migrate
from tests.drain import drain
from tests.learned import backfill, stage
from tests.sql.shop import NOON, Event, create_shop


def test_behind_learned_models_the_encoder_answers_again(
    database_url: str, empty_database_url: str, dump_schema: Callable[..., str]
) -> None:
    with database.connect(database_url) as connection:
        shop = create_shop(connection, products=12)
        shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
        shop.drain()
        before = shop.recommend("u1", k=3)
        model = stage(connection)
        backfill(connection)
        connection.execute("select dynrec.promote_model('shop')")
        assert shop.recommend("u1", k=3) != before
    migrate.downgrade(database_url, "0001")
    migrate.upgrade(database_url)
    with database.connect(database_url) as connection:
        shop.connection = connection
        drain(connection)
        assert [item for item, _, _ in shop.recommend("u1", k=3)] == [item for item, _, _ in before]
        assert shop.value("select count(*) from dynrec.model_versions") == 1
        assert shop.value("select to_regclass(%s) is null", [f"dynrec_data.item_vector_{model}"])
        shop.assert_right()
        connection.execute("select dynrec.drop_recommender('shop')")
        assert (
            shop.value(
                "select count(*) from pg_proc where pronamespace = 'dynrec_data'::regnamespace and proname not in ('keep_popularity', 'sees_item')"
            )
            == 0
        )
    migrate.upgrade(empty_database_url)
    assert dump_schema(database_url, "--schema=dynrec") == dump_schema(empty_database_url, "--schema=dynrec")


def test_behind_transitions_a_model_goes_on_without_them(database_url: str) -> None:
    with database.connect(database_url) as connection:
        shop = create_shop(connection, products=12)
        shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
        shop.drain()
        model = stage(connection)
        backfill(connection)
        connection.execute("select dynrec.promote_model('shop')")
    migrate.downgrade(database_url, "0002")
    migrate.upgrade(database_url)
    with database.connect(database_url) as connection:
        shop.connection = connection
        assert len(shop.recommend("u1", k=3)) == 3
        assert shop.value("select config -> 'transitions' = '[]' from dynrec_data.model_version where id = %s", [model])
        assert shop.value("select count(*) from pg_proc where proname = %s", [f"ranked_m{model}"]) == 1
