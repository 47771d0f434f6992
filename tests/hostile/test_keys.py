"""Rows of the application whose keys, kinds, texts and numbers are hostile: writes go on, and what comes of them is right."""

from datetime import timedelta

import psycopg
import pytest

from tests.drain import Session
from tests.hostile.canary import FRAGMENTS, has_sung, plant
from tests.hostile.journey import travel
from tests.hostile.values import HUGE, NOISE, ODD
from tests.sql.shop import NOON, Shop

LIMIT = 2_600  # bytes, of a key

TABLES = """
    create table items (id text primary key, title text, category text, price numeric);
    create table events (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz);
    create index on events using hash (user_id);
    create index on events using hash (item_id);
    select dynrec.create_recommender('odd', 'public.items', text_columns => '{title}', categorical_columns => '{category}', numeric_columns => '{price}',
      interactions => 'public.events', kind_column => 'kind', value_column => 'value', encoder => 'hashing');
"""
ITEMS = f"select id, title, category from items where octet_length(id) <= {LIMIT}"
INTERACTIONS = f"select user_id, item_id, occurred_at, kind, value from events where octet_length(user_id) <= {LIMIT} and octet_length(item_id) <= {LIMIT}"

KEYS = [*ODD, *FRAGMENTS, NOISE[:LIMIT], "x" * LIMIT]
PRICES = ["NaN", "Infinity", "-Infinity", "0", "1e300", "-1e-300", "12345678901234567890.5", None]
VALUES = [float("nan"), float("inf"), float("-inf"), -1e308, 5e-324, None, 1.0]


@pytest.fixture
def odd(connection: Session) -> Shop:
    """A recommender whose keys are texts, without rows."""
    connection.execute(TABLES.encode())
    plant(connection)
    return Shop(connection, "odd", items=ITEMS, interactions=INTERACTIONS, kinds={})


def fill(shop: Shop) -> None:
    """An item, a user and a kind of every sort, and their texts and numbers."""
    with shop.connection.cursor() as cursor:
        cursor.executemany(
            "insert into items values (%s, %s, %s, %s::numeric)",
            [(key, f"item {n} {key}", key, PRICES[n % len(PRICES)]) for n, key in enumerate(KEYS)],
        )
        cursor.executemany(
            "insert into events values (%s, %s, %s, %s, %s)",
            [
                (
                    key,
                    KEYS[(n * step) % len(KEYS)],
                    key,
                    VALUES[n % len(VALUES)] if step == 5 else 1.0,
                    NOON + n * timedelta(hours=1),
                )
                for n, key in enumerate(KEYS)
                for step in (1, 5, 7)
            ],
        )


def test_every_sort_of_key_goes_the_whole_way(odd: Shop) -> None:
    fill(odd)
    odd.drain()
    odd.assert_right()
    for number, key in enumerate(KEYS):
        if number % 10 == 3:
            travel(odd, key, KEYS[-number])
    assert not has_sung(odd.connection)


def test_texts_of_a_million_characters(odd: Shop) -> None:
    fill(odd)
    for number, text in enumerate(HUGE):
        odd.execute("insert into items values (%s, %s, %s, 1)", [f"huge {number}", text, text])
        odd.execute("insert into events values ('u', %s, %s, 1, now())", [f"huge {number}", text])
    odd.drain()
    odd.assert_right()
    travel(odd, "u", "huge 1")


@pytest.mark.parametrize("length", [LIMIT + 1, 2_690, 8_192, 1_000_000])
def test_keys_that_no_index_holds_do_not_hinder_the_application(odd: Shop, length: int) -> None:
    fill(odd)
    key = NOISE[:length]
    rows = [(key, "1e999"), ("u", key), (key, key)]
    for user, item in rows:
        odd.execute("insert into events values (%s, %s, 'view', 1, now())", [user, item])
    odd.execute("insert into events select user_id, item_id, kind, 2, occurred_at from events where user_id = 'u'")
    odd.execute("update events set value = 3 where user_id in ('u', %s)", [key])
    odd.execute("update events set user_id = 'v' || user_id where user_id = %s", [key])
    odd.execute("select dynrec.refresh('odd')")
    odd.drain()
    odd.assert_right()
    odd.execute("update events set user_id = 'short' where item_id = '1e999'")
    odd.execute("delete from events where item_id = %s", [key])
    odd.drain()
    odd.assert_right()
    travel(odd, "short", "1e999")
    assert odd.execute("select * from dynrec.queue") == []


@pytest.mark.parametrize("length", [LIMIT + 1, 2_690])
def test_items_whose_keys_fit_into_the_index_of_their_table_alone(odd: Shop, length: int) -> None:
    fill(odd)
    key = NOISE[:length]
    odd.execute("insert into items values (%s, 'long', 'c', 1)", [key])
    odd.execute("update items set title = 'longer' where id = %s", [key])
    odd.drain()
    odd.assert_right()
    odd.execute("update items set id = 'short' where id = %s", [key])
    odd.drain()
    assert odd.execute("select version from dynrec.item_history('odd', 'short')") == [(1,)]
    odd.execute("update items set id = %s where id = 'short'", [key])
    odd.drain()
    odd.assert_right()
    odd.execute("delete from items where id = %s", [key])
    odd.drain()
    odd.assert_right()


def test_functions_refuse_keys_that_no_index_holds(odd: Shop) -> None:
    fill(odd)
    odd.drain()
    odd.execute('select dynrec.create_experiment(\'odd\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
    for statement in (
        "select dynrec.refresh('odd', item_ids => array[%(key)s])",
        "select dynrec.refresh('odd', user_ids => array[%(key)s])",
        "select dynrec.log_impressions('odd', %(key)s, '{a}')",
        "select dynrec.log_exposure('odd', 'colours', %(key)s)",
        "select dynrec.register_encoder(%(key)s, 'hashing', '', 8)",
        "select dynrec.alter_recommender('odd', kinds => jsonb_build_object(%(key)s::text, '{}'::jsonb))",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=NOISE[:100]) as caught:
            odd.connection.execute(statement.encode(), {"key": NOISE})
        assert len(str(caught.value)) < 3_000
    held = odd.value("select dynrec.export_user('odd', %s)", [NOISE])["held"]
    assert set(map(len, held.values())) == {0}
    assert odd.value("select dynrec.forget_user('odd', %s) -> 'removed' ->> 'vectors'", [NOISE]) == "0"
    assert {source for _, _, source in odd.recommend(NOISE, k=5)} == {"trending"}
