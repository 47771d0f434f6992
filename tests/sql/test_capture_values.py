"""Odd values: no writer ever fails because of capture, and what is stored is what the definition says."""

from datetime import UTC, datetime, timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.drain import Session
from tests.sql.shop import KINDS, NOON, Event, Shop, kinds_argument


def test_interactions_of_nobody_or_with_nothing(shop: Shop) -> None:
    shop.execute("alter table shop.events alter column occurred_at drop not null")
    shop.execute(
        "insert into shop.events (user_id, item_id, occurred_at, kind) values "
        "(null, 1, now(), 'view'), ('u', null, now(), 'view'), ('u', 1, null, 'view'), ('u', 1, 'infinity', 'view'), "
        "('u', 1, '-infinity', 'view')"
    )
    assert shop.queued() == set()
    shop.execute("update shop.events set kind = 'purchase' where id <> 2")
    shop.execute("delete from shop.events where id = 1")
    assert shop.queued() == set()
    shop.execute("update shop.events set user_id = 'v', item_id = 3, occurred_at = %s where id = 2", [NOON])
    assert shop.queued() == {("user", "v")}
    shop.drain()
    shop.execute("delete from shop.events where occurred_at is null or not isfinite(occurred_at)")
    shop.assert_right()
    shop.execute("update shop.events set occurred_at = null")
    shop.drain()
    assert shop.counts() == (12, 0)


VALUES = [None, 0.0, -0.0, 1e-8, 2.5, -3.0, 1e6, 1e7, -1e300, float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("type_", ["double precision", "real", "numeric", "numeric(20,10)"])
def test_values_of_any_size(shop: Shop, type_: str) -> None:
    values = [v for v in VALUES if type_ != "numeric(20,10)" or v is None or abs(v) < 1e8]
    values = [v for v in values if type_ != "real" or v is None or abs(v) < 1e38 or abs(v) == float("inf")]
    rebuild(shop, sql.SQL(type_))
    for number, value in enumerate(values):
        user = f"u{number}"
        shop.add_events(
            [Event(user, "1", NOON, "view", value), Event(user, "2", NOON - timedelta(days=1), "view", 1.5)]
        )
    assert len(shop.queued()) == len(values)
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()


@pytest.mark.parametrize(("type_", "least"), [("numeric", "1e-400"), ("double precision", "5e-324"), ("real", "1e-45")])
def test_values_too_small_to_count(shop: Shop, type_: str, least: str) -> None:
    rebuild(shop, sql.SQL(type_))
    shop.interactions = (
        "select user_id, item_id::text, occurred_at, kind, round(value::numeric, 12)::double precision from shop.events"
    )
    for user, sign in (("u", ""), ("v", "-")):
        shop.execute(
            "insert into shop.events (user_id, item_id, occurred_at, value) values (%s, 1, %s, %s), (%s, 2, %s, 1)",
            [user, NOON, sign + least, user, NOON + timedelta(days=200)],
        )
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()
    (first, second) = shop.execute(
        "select because_item_id, contribution from dynrec.explain('shop', 'u', '3') order by 1"
    )
    assert (first, second[0]) == (("1", 0), "2")


def test_a_weight_too_small_to_count_is_refused(shop: Shop) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"1e-13|0\.0000000000001"):
        shop.execute("select dynrec.alter_recommender('shop', kinds => '{\"view\": {\"weight\": 1e-13}}')")
    shop.execute(
        'select dynrec.alter_recommender(\'shop\', kinds => \'{"view": {"weight": 1e-12}, "return": {"weight": 0}}\')'
    )


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("smallint", [None, 0, -3, 32767]),
        ("integer", [None, 5, 2**31 - 1, -(2**31)]),
        ("bigint", [None, 7, 2**63 - 1, -(2**63)]),
    ],
)
def test_whole_numbers_as_values(shop: Shop, type_: str, values: list[float | None]) -> None:
    rebuild(shop, sql.SQL(type_))
    for number, value in enumerate(values):
        user = f"u{number}"
        shop.add_events([Event(user, "1", NOON, "view", value), Event(user, "2", NOON - timedelta(days=1), "view", 3)])
    shop.drain()
    shop.assert_right()


def test_booleans_as_values(shop: Shop) -> None:
    rebuild(shop, sql.SQL("boolean"))
    shop.execute(
        "insert into shop.events (user_id, item_id, occurred_at, value) values "
        "('u', 1, now(), true), ('u', 2, now(), false), ('v', 3, now(), null)"
    )
    shop.interactions = "select user_id, item_id::text, occurred_at, kind, value::int from shop.events"
    shop.drain()
    shop.assert_right()


def rebuild(shop: Shop, value_type: sql.SQL) -> None:
    """The same recommender over a value column of another type."""
    shop.execute("select dynrec.drop_recommender('shop')")
    shop.connection.execute(
        sql.SQL("alter table shop.events alter column value type {0} using null").format(value_type)
    )
    shop.execute(
        """
        select dynrec.create_recommender('shop', 'shop.products', text_columns => '{title}',
            categorical_columns => '{category}', interactions => 'shop.events',
            kind_column => 'kind', value_column => 'value', kinds => %s, encoder => 'hashing')
        """,
        [kinds_argument(KINDS)],
    )
    shop.interactions = "select user_id, item_id::text, occurred_at, kind, value::double precision from shop.events"
    shop.drain()


ZONES = ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"]


@pytest.mark.parametrize(
    ("type_", "text", "meant"),
    [
        ("timestamptz", "2024-03-10 02:30:00-03:30", datetime(2024, 3, 10, 6, tzinfo=UTC)),
        ("timestamp", "2024-03-10 02:30:00", datetime(2024, 3, 10, 2, 30, tzinfo=UTC)),
        ("timestamp(0)", "2024-03-10 02:30:00", datetime(2024, 3, 10, 2, 30, tzinfo=UTC)),
        ("date", "2024-03-10", datetime(2024, 3, 10, tzinfo=UTC)),
    ],
)
def test_times_mean_the_same_in_every_session(connection: Session, type_: str, text: str, meant: datetime) -> None:
    connection.execute("create table items (id int primary key, title text)")
    connection.execute("insert into items select i, 'item ' || i from generate_series(1, 9) i")
    connection.execute(f"create table events (user_id int, item_id int, occurred_at {type_})".encode())
    connection.execute(
        "select dynrec.create_recommender('times', 'public.items', text_columns => '{title}', "
        "interactions => 'public.events', encoder => 'hashing', options => '{\"half_life\": \"1 hour\"}')"
    )
    for number, zone in enumerate(ZONES):
        connection.execute("select set_config('timezone', %s, false)", [zone])
        connection.execute("insert into events values (1, %s, %s)", [number + 1, text])
    assert connection.execute("select distinct occurred_at from dynrec_data.change where kind = 'user'").fetchall() == [
        (meant,)
    ]
    connection.execute("set timezone = 'Pacific/Auckland'")
    shop = Shop(connection, "times", items="select id::text, title from items", kinds={})
    shop.drain()
    for zone in ZONES:
        connection.execute("select set_config('timezone', %s, false)", [zone])
        (row,) = connection.execute("select occurred_at from dynrec.explain('times', '1', '9', 1)").fetchall()
        assert row[0] == meant
        connection.execute("update events set item_id = item_id where item_id = 1")
        assert shop.queued() == set()


EXTREMES: list[tuple[LiteralString, LiteralString]] = [
    ("timestamptz", "4713-01-01 BC"),
    ("timestamptz", "294276-12-31 23:59:59+00"),
    ("timestamp", "4713-01-01 BC"),
    ("timestamp", "294276-12-31 23:59:59"),
    ("timestamp", "infinity"),
    ("date", "4713-01-01 BC"),
    ("date", "5874897-12-31"),
    ("date", "-infinity"),
]


@pytest.mark.parametrize(("type_", "text"), EXTREMES)
def test_times_at_the_ends_of_the_calendar(connection: Session, type_: LiteralString, text: LiteralString) -> None:
    connection.execute("create table items (id int primary key, title text)")
    connection.execute("insert into items select i, 'item ' || i from generate_series(1, 9) i")
    connection.execute(f"create table events (user_id int, item_id int, occurred_at {type_})")
    connection.execute(
        "select dynrec.create_recommender('times', 'public.items', text_columns => '{title}', "
        "interactions => 'public.events', encoder => 'hashing')"
    )
    shop = Shop(connection, "times", items="select id::text, title from items", kinds={})
    shop.drain()
    connection.execute("insert into events values (1, 2, %s), (1, 3, '2024-01-01')", [text])
    shop.recommend("1")
    shop.drain()
    assert len(shop.recommend("1", exclude_seen=False)) == 9
    shop.execute("select * from dynrec.trending('times')")
    shop.execute("update events set item_id = 4 where item_id = 2")
    shop.drain()
    connection.execute("delete from events where item_id = 4")
    shop.drain()
    assert shop.recommend("1", k=1, exclude_seen=False)[0][0] == "3"


def test_interactions_dated_in_the_future_count_as_happening_now(shop: Shop) -> None:
    now: datetime = shop.value("select now()")
    shop.add_events([Event("u", "1", now + timedelta(days=400), "purchase"), Event("u", "2", now, "purchase")])
    shop.add_events([Event("v", "1", now, "purchase"), Event("v", "2", now, "purchase")])
    for _ in range(2):
        close = shop.value("select 1 - (dynrec.user_vector_at('shop', 'u') <=> dynrec.user_vector_at('shop', 'v'))")
        assert close == pytest.approx(1, abs=1e-4)
        shop.drain()


def test_a_text_with_every_sort_of_character(shop: Shop) -> None:
    texts = [
        "",
        "   ",
        "\n\t",
        "'; drop table shop.products; --",
        "$$ $q$",
        "{id} {model}",
        "é ü ß 漢字 \U0001f600",
        "x" * 200_000,
    ]
    for number, text in enumerate(texts):
        shop.execute(
            "insert into shop.products (id, title, category) values (%s, %s, %s)", [100 + number, text, text[:30]]
        )
    shop.drain()
    shop.assert_right()
    shop.execute("update shop.products set title = null, category = null where id > 103")
    shop.drain()
    shop.assert_right()
