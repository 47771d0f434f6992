"""Whatever statement writes a row, the vectors follow."""

from datetime import timedelta

import pytest

from tests.sql.shop import NOON, Event, Shop


def test_rows_that_were_there_before_the_recommender(shop: Shop) -> None:
    assert shop.counts() == (12, 0)
    shop.assert_right()


def test_single_rows(shop: Shop) -> None:
    shop.execute("insert into shop.products (id, title) values (100, 'one more')")
    shop.execute("update shop.products set title = 'another name' where id = 1")
    shop.execute("delete from shop.products where id = 2")
    shop.drain()
    assert shop.counts() == (12, 0)
    shop.assert_right()
    shop.add_events([Event("u", "1", NOON, "view"), Event("u", "3", NOON + timedelta(days=1), "purchase", 2)])
    shop.drain()
    shop.assert_right()


def test_many_rows_in_one_statement(shop: Shop) -> None:
    shop.execute("insert into shop.products (id, title) select i, 'bulk ' || i from generate_series(100, 400) i")
    shop.execute(
        """
        insert into shop.events (user_id, item_id, kind, occurred_at)
        select 'u' || mod(i, 7), 1 + mod(i, 12), 'view', %s + i * interval '1 hour' from generate_series(1, 200) i
        """,
        [NOON],
    )
    shop.drain()
    shop.assert_right()
    shop.execute("update shop.products set title = title || ' changed' where id % 2 = 0")
    shop.execute("update shop.events set kind = 'purchase' where id % 3 = 0")
    shop.drain()
    shop.assert_right()
    shop.execute("delete from shop.products where id > 200")
    shop.execute("delete from shop.events where user_id in ('u1', 'u2') or id % 5 = 0")
    shop.drain()
    shop.assert_right()


def test_copy(shop: Shop) -> None:
    with (
        shop.connection.cursor() as cursor,
        cursor.copy("copy shop.products (id, title) from stdin") as copy,
    ):
        for number in range(100, 130):
            copy.write_row((number, f"copied {number}"))
    with (
        shop.connection.cursor() as cursor,
        cursor.copy("copy shop.events (user_id, item_id, kind, occurred_at) from stdin") as copy,
    ):
        for number in range(100, 130):
            copy.write_row((f"u{number % 3}", number, "view", NOON))
    shop.drain()
    assert shop.counts() == (42, 3)
    shop.assert_right()


UPSERT_UPDATE = """
    insert into shop.products (id, title) select i, 'upserted ' || i from generate_series(10, 20) i
    on conflict (id) do update set title = excluded.title
"""
UPSERT_NOTHING = """
    insert into shop.products (id, title) select i, 'ignored ' || i from generate_series(10, 20) i on conflict do nothing
"""


def test_upsert_that_updates(shop: Shop) -> None:
    shop.execute(UPSERT_UPDATE)
    assert shop.queued() == {("item", str(n)) for n in range(10, 21)}
    shop.drain()
    shop.assert_right()


def test_upsert_that_does_nothing(shop: Shop) -> None:
    shop.execute(UPSERT_NOTHING)
    assert shop.queued() == {("item", str(n)) for n in range(13, 21)}
    shop.drain()
    shop.assert_right()
    shop.execute(UPSERT_NOTHING)
    assert shop.queued() == set()


def test_merge_with_every_action(shop: Shop) -> None:
    shop.add_events([Event("u1", "1", NOON), Event("u1", "5", NOON), Event("u2", "2", NOON)])
    shop.drain()
    shop.execute(
        """
        merge into shop.products p using generate_series(1, 20) s (i) on p.id = s.i
        when matched and s.i < 4 then delete
        when matched and s.i < 8 then update set title = 'merged ' || s.i
        when matched then do nothing
        when not matched and s.i < 16 then insert (id, title) values (s.i, 'new ' || s.i)
        when not matched then do nothing
        """
    )
    assert shop.queued() == {("item", str(n)) for n in (*range(1, 8), 13, 14, 15)}
    shop.execute(
        """
        merge into shop.events e using (values ('u1', 1), ('u1', 5), ('u3', 9)) s (user_id, item_id)
            on e.user_id = s.user_id and e.item_id = s.item_id
        when matched and s.item_id = 1 then delete
        when matched then update set kind = 'purchase'
        when not matched then insert (user_id, item_id, occurred_at) values (s.user_id, s.item_id, '2024-01-01')
        """
    )
    shop.drain()
    shop.assert_right()


def test_writes_through_a_view(shop: Shop) -> None:
    shop.execute(
        "create view shop.cheap as select id, title, price from shop.products where price < 100 or price is null"
    )
    shop.execute("insert into shop.cheap (id, title) values (50, 'through a view')")
    shop.execute("update shop.cheap set title = 'seen through a view' where id = 3")
    shop.execute("delete from shop.cheap where id = 4")
    shop.drain()
    shop.assert_right()


def test_a_statement_that_writes_in_a_with_clause(shop: Shop) -> None:
    shop.execute(
        """
        with gone as (delete from shop.products where id <= 3 returning id, title),
             moved as (update shop.products set title = 'moved' where id = 4 returning id)
        insert into shop.products (id, title) select id + 100, title from gone
        """
    )
    shop.drain()
    shop.assert_right()


@pytest.mark.parametrize("ending", ["rollback", "rollback to savepoint here", "commit"])
def test_what_was_rolled_back_queues_nothing(shop: Shop, ending: str) -> None:
    shop.execute("begin")
    shop.execute("savepoint here")
    shop.execute("update shop.products set title = 'maybe' where id = 1")
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 1)")
    shop.connection.execute(ending.encode())
    shop.execute("commit" if "savepoint" in ending else "select 1")
    assert shop.queued() == ({("item", "1"), ("user", "u")} if ending == "commit" else set())
    shop.drain()
    shop.assert_right()


UNWATCHED = [
    "update shop.products set stock = stock + 1",
    "update shop.products set extra = '{\"a\": 1}'",
    "update shop.products set body = repeat('long and stored elsewhere ', 20000)",
    "update shop.products set title = title, category = category, price = price",
    "update shop.products set id = id",
    "update shop.products set title = 'never' where false",
    "update shop.events set user_id = user_id, value = value, kind = kind, occurred_at = occurred_at",
    "insert into shop.products select * from shop.products where false",
    "delete from shop.products where false",
    "alter table shop.products add column more int default 5",
]


@pytest.mark.parametrize("statement", UNWATCHED)
def test_what_touches_no_watched_column_queues_nothing(shop: Shop, statement: str) -> None:
    shop.add_events([Event("u", "1", NOON, "view", 2)])
    shop.drain()
    shop.connection.execute(statement.encode())
    assert shop.queued() == set()


def test_watched_columns_that_are_stored_out_of_line(connection_with_long_texts: Shop) -> None:
    shop = connection_with_long_texts
    shop.execute("update shop.products set stock = 1")
    assert shop.queued() == set()
    shop.execute("update shop.products set body = body || 'x' where id = 2")
    assert shop.queued() == {("item", "2")}
    shop.execute("update shop.products set extra = '{\"a\":  1}' where id = 3")
    assert shop.queued() == {("item", "2"), ("item", "3")}
    shop.drain()
    shop.assert_right()


@pytest.fixture
def connection_with_long_texts(shop: Shop) -> Shop:
    shop.execute("update shop.products set body = repeat(md5(id::text), 5000), extra = '{\"a\": 1}'")
    shop.execute(
        "select * from dynrec.alter_recommender('shop', text_columns => '{title,body}', categorical_columns => '{extra}')"
    )
    shop.items = "select id::text, title, body, extra::text from shop.products"
    shop.drain()
    return shop
