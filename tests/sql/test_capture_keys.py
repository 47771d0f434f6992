"""Keys that change, rows that vanish with others, tables that are emptied."""

from datetime import timedelta

from tests.sql.shop import NOON, Event, Shop

HOUR = timedelta(hours=1)
SOME_EVENTS = [Event(f"u{n % 4}", str(1 + n % 12), NOON + n * HOUR, "view") for n in range(30)]


def test_a_key_that_changes(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.drain()
    shop.execute("update shop.products set id = 1000 where id = 1")
    assert shop.queued() == {("item", "1"), ("item", "1000")}
    shop.drain()
    shop.assert_right()


def test_keys_swapped_within_one_statement(shop: Shop) -> None:
    shop.execute("alter table shop.products drop constraint products_pkey, add primary key (id) deferrable")
    shop.execute("update shop.products set id = 13 - id")
    assert shop.queued() == {("item", str(n)) for n in range(1, 13)}
    shop.drain()
    shop.assert_right()


def test_a_key_shifted_onto_the_next(shop: Shop) -> None:
    shop.execute("update shop.products set id = -id")
    shop.execute("update shop.products set id = 1 - id")
    shop.drain()
    assert shop.counts() == (12, 0)
    shop.assert_right()


def test_a_row_deleted_and_put_back(shop: Shop) -> None:
    shop.execute("begin")
    shop.execute("delete from shop.products where id = 1")
    shop.execute("insert into shop.products (id, title) values (1, 'back again')")
    shop.execute("commit")
    shop.drain()
    shop.assert_right()
    shop.execute("delete from shop.products where id = 1")
    shop.drain()
    shop.execute("insert into shop.products (id, title) values (1, 'back once more')")
    shop.drain()
    shop.assert_right()


def test_a_user_or_an_item_of_an_interaction_that_changes(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.drain()
    shop.execute("update shop.events set user_id = 'other' where user_id = 'u1'")
    assert shop.queued() == {("user", "u1"), ("user", "other")}
    shop.execute("update shop.events set item_id = 12 where user_id = 'u2'")
    shop.execute("update shop.events set user_id = null where user_id = 'u3' and item_id < 6")
    shop.drain()
    shop.assert_right()
    assert shop.user_vectors(["u1"]) == {"u1": None}
    shop.execute("update shop.events set user_id = 'u3' where user_id is null")
    shop.drain()
    shop.assert_right()


def test_cascades_of_a_foreign_key(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.execute(
        "alter table shop.events add foreign key (item_id) references shop.products on delete cascade on update cascade"
    )
    shop.drain()
    shop.execute("delete from shop.products where id in (1, 2)")
    assert shop.queued() == {("item", "1"), ("item", "2"), *(("user", f"u{n}") for n in (0, 1))}
    shop.drain()
    shop.assert_right()
    shop.execute("update shop.products set id = 300 where id = 3")
    shop.drain()
    shop.assert_right()
    shop.execute("alter table shop.events drop constraint events_item_id_fkey")
    shop.execute("alter table shop.events add foreign key (item_id) references shop.products on delete set null")
    shop.execute("delete from shop.products where id = 300")
    shop.drain()
    shop.assert_right()


def test_truncated_items(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.drain()
    shop.execute("truncate shop.products")
    assert shop.recommend("u1") == []
    shop.drain()
    assert shop.counts() == (0, 4)
    shop.add_products(range(5, 8))
    shop.drain()
    shop.assert_right()


def test_truncated_interactions(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.drain()
    shop.execute("truncate shop.events")
    assert {source for _, _, source in shop.recommend("u1")} <= {"trending", "fallback"}
    shop.drain()
    assert {source for _, _, source in shop.recommend("u1")} == {"fallback"}
    assert shop.counts() == (12, 0)
    shop.add_events(SOME_EVENTS[:3])
    shop.drain()
    shop.assert_right()


def test_truncate_that_cascades(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.execute("alter table shop.events add foreign key (item_id) references shop.products")
    shop.drain()
    shop.execute("truncate shop.products cascade")
    shop.drain()
    assert shop.counts() == (0, 0)


def test_a_truncate_that_was_rolled_back(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.drain()
    shop.execute("begin")
    shop.execute("truncate shop.products, shop.events")
    shop.execute("rollback")
    assert shop.queued() == set()
    shop.assert_right()


def test_rows_after_a_truncate_in_the_same_transaction(shop: Shop) -> None:
    shop.add_events(SOME_EVENTS)
    shop.drain()
    shop.execute("begin")
    shop.execute("insert into shop.products (id, title) values (99, 'gone at once')")
    shop.execute("truncate shop.products, shop.events")
    shop.add_products([1, 2, 30])
    shop.add_events([Event("u1", "30", NOON)])
    shop.execute("commit")
    shop.drain()
    shop.assert_right()
