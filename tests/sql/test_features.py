"""The features of items and users, now and as known at a moment."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.drain import Session, drain
from tests.sql.shop import KINDS, NOON, Event, Shop

HALF_LIVES = {"6h": 0.25, "1d": 1.0, "7d": 7.0, "30d": 30.0, "ever": 36500.0}  # days
PSEUDO_RATE = 1 / 30  # a day

Features = dict[str, Any]


def features_at(shop: Shop, entity: str, key: str, as_of: datetime | None = None) -> Features:
    """What `item_features_at` or `user_features_at` says, by name."""
    rows = shop.connection.execute(
        f"select feature, coalesce(to_jsonb(number), to_jsonb(label), to_jsonb(vector::text)) from dynrec.{entity}_features_at(%s, %s, %s)".encode(),
        [shop.name, key, as_of],
    ).fetchall()
    return dict(rows)


def stored(shop: Shop, items: list[str] | None = None, moment: datetime | None = None) -> dict[str, Features]:
    """What models read of each item, by name."""
    declared = [name for (name,) in shop.execute("select feature from dynrec._feature_names(1) order by position")]
    rows = shop.execute("select * from dynrec._item_features(1, %s::text[], %s)", [items, moment])
    assert [names for *_, names in rows if names] == [declared][: len(rows)]
    return {item: dict(zip(declared, numbers + labels, strict=True)) for item, numbers, labels, _ in rows}


def popularity(events: list[Event], item: str, moment: datetime) -> dict[str, float | None]:
    """Age, popularity and slopes of an item, from the list of all interactions."""
    met = [event for event in events if event.item == item and event.at < moment]
    if not met:
        rates = dict.fromkeys(HALF_LIVES, 0.0)
        days = None
    else:
        ages = np.array([(moment - event.at) / timedelta(days=1) for event in met])
        wanted = np.array([KINDS.get(event.kind or "*", KINDS["*"]).weight > 0 for event in met])
        rates = {name: float(np.sum(wanted * 2.0 ** (-ages / days))) for name, days in HALF_LIVES.items()}
        days = float(ages.max())
    expected: dict[str, float | None] = {"age_days": days}
    expected |= {f"popularity_{name}": math.log1p(rate) for name, rate in rates.items()}
    for short, long in pairwise(HALF_LIVES):
        pair = [rate_a_day(rates[name], HALF_LIVES[name], days) for name in (short, long)]
        expected[f"popularity_slope_{short}_{long}"] = math.log(pair[0] / pair[1]) if days is not None else 0.0
    return expected


def rate_a_day(rate: float, half_life: float, days: float | None) -> float:
    """A decayed count as interactions a day, over what the item's age lets it see."""
    window = half_life / math.log(2) * (1 - 2.0 ** (-max(days or 0.0, 1.0) / half_life))
    return float(rate / window + PSEUDO_RATE)


def assert_like(got: Mapping[str, Any], expected: Mapping[str, float | None]) -> None:
    for name, value in expected.items():
        assert got[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)), name


def history(number: int) -> list[Event]:
    """Interactions of five users with six items over weeks, of all kinds, many at the same moment."""
    kinds = ["view", "purchase", "return", None]
    return [
        Event(
            f"u{n % 5}",
            str(1 + n * n % 6),
            NOON + timedelta(hours=11 * (n // 3)),
            kinds[n % 4],
            n % 7 if n % 3 else None,
        )
        for n in range(number)
    ]


def test_popularity_and_age_are_what_numpy_says(shop: Shop) -> None:
    events = history(150)
    shop.add_events(events)
    for moment in (NOON + timedelta(days=1), NOON + timedelta(days=9, hours=4), NOON + timedelta(days=400)):
        for item, got in stored(shop, moment=moment).items():
            assert_like(got, popularity(events, item, moment))


def test_an_event_at_the_moment_is_not_seen_yet(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON, "view")])
    at_the_moment, just_after = (
        stored(shop, ["1"], moment)["1"] for moment in (NOON, NOON + timedelta(microseconds=1))
    )
    assert (at_the_moment["age_days"], at_the_moment["popularity_ever"]) == (None, 0)
    assert just_after["popularity_ever"] == pytest.approx(math.log(2))


def test_kinds_that_count_against_an_item_make_no_popularity(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON, "return"), Event("v", "1", NOON, "purchase")])
    got = stored(shop, ["1"], NOON + timedelta(days=1))["1"]
    assert got["popularity_ever"] == pytest.approx(math.log(2), abs=1e-4)
    assert got["age_days"] == 1


def test_a_few_are_read_as_all_are(shop: Shop) -> None:
    shop.add_events(history(40))
    some = ["2", "3", "12", "unheard of"]
    for moment in (None, NOON + timedelta(days=3)):
        shop.execute("select set_config('dynrec.clock', %s, false)", [(NOON + timedelta(days=5)).isoformat()])
        every = stored(shop, moment=moment)
        assert stored(shop, some, moment) == {item: every[item] for item in some[:3]}
        assert len(every) == 12
    shop.execute("reset dynrec.clock")


def test_the_present_is_what_the_clock_says(shop: Shop) -> None:
    events = history(40)
    shop.add_events(events)
    moment = NOON + timedelta(days=2, hours=1)
    shop.execute("select set_config('dynrec.clock', %s, false)", [moment.isoformat()])
    assert_like(stored(shop, ["1"])["1"], popularity(events, "1", moment))
    shop.execute("reset dynrec.clock")


def test_a_steady_item_has_no_slope(shop: Shop) -> None:
    shop.add_events(Event(f"u{n}", "1", NOON + n * timedelta(hours=1), "view") for n in range(24 * 20))
    shop.add_events(
        Event(f"u{n}", "2", NOON + timedelta(days=19.5) + n * timedelta(minutes=2), "view") for n in range(300)
    )
    shop.add_events([Event("u", "2", NOON, "view")])
    got = stored(shop, ["1", "2"], NOON + timedelta(days=20))
    slopes = [
        "popularity_slope_6h_1d",
        "popularity_slope_1d_7d",
        "popularity_slope_7d_30d",
        "popularity_slope_30d_ever",
    ]
    assert max(abs(got["1"][slope]) for slope in slopes) < 0.1
    assert min(got["2"][slope] for slope in slopes[:3]) > 0.3


def test_price_against_its_own_history(shop: Shop) -> None:
    assert features_at(shop, "item", "4")["price_relative"] == 0
    for price in (8, 6):
        shop.execute("update shop.products set price = %s where id = 4", [price])
        shop.drain()
    got = features_at(shop, "item", "4")
    assert (got["price"], got["price_relative"]) == (6, 0)  # the mean of 4, 8 and 6
    shop.execute("update shop.products set price = null where id = 4")
    shop.drain()
    got = features_at(shop, "item", "4")
    assert (got["price"], got["price_relative"]) == (None, None)


def test_each_moment_has_its_features(shop: Shop) -> None:
    moments, seen = [], []
    for n, (price, category, title) in enumerate([(1, "x", "a b"), (2, "x", "a b"), (2, "y", "a b"), (2, "y", "c d")]):
        shop.execute(
            "update shop.products set price = %s, category = %s, title = %s where id = 1", [price, category, title]
        )
        shop.drain()
        moments.append(shop.value("select clock_timestamp()"))
        seen.append(features_at(shop, "item", "1"))
        shop.add_events([Event(f"u{n}", "1", moments[-1], "view")])
    for moment, before in zip(moments, seen, strict=True):
        again = features_at(shop, "item", "1", moment)
        for name in ("price", "price_relative", "category", "content_vector"):
            assert again[name] == before[name]
        assert again["popularity_ever"] == pytest.approx(before["popularity_ever"], abs=1e-6)
    assert len({before["content_vector"] for before in seen}) == 3
    assert [before["price"] for before in seen] == [1, 2, 2, 2]


def test_what_has_not_been_published_is_not_known(shop: Shop) -> None:
    shop.execute("update shop.products set price = 77, category = 'other' where id = 1")
    got = features_at(shop, "item", "1")
    assert (got["price"], got["category"]) == (1, "c1")
    since = shop.value(
        "select max(known_since) from dynrec.item_features_at('shop', '1') where feature in ('price', 'content_vector')"
    )
    assert since < shop.value("select clock_timestamp()")
    shop.drain()
    assert features_at(shop, "item", "1")["price"] == 77
    known = dict(shop.execute("select feature, known_since from dynrec.item_features_at('shop', '1')"))
    assert known["price"] == known["category"] == known["price_relative"] > since


def test_nothing_is_known_before_and_after_an_item(shop: Shop) -> None:
    assert features_at(shop, "item", "1", NOON) == {}
    assert features_at(shop, "item", "unheard of") == {}
    moment = shop.value("select clock_timestamp()")
    shop.execute("delete from shop.products where id = 1")
    shop.drain()
    assert features_at(shop, "item", "1") == {}
    assert features_at(shop, "item", "1", moment)["price"] == 1
    assert "1" not in stored(shop)
    # models that learn of the past take the first version for what came before it
    assert stored(shop, ["1", "2"], NOON)["1"]["price"] == 1


def test_users(shop: Shop) -> None:
    events = history(60)
    shop.add_events(events)
    shop.drain()
    for moment in (NOON, NOON + timedelta(days=4), NOON + timedelta(days=300)):
        before = [event for event in events if event.user == "u1" and event.at < moment]
        values = [event.value for event in before if event.value is not None]
        got = features_at(shop, "user", "u1", moment)
        days = [(moment - event.at) / timedelta(days=1) for event in before]
        assert got.pop("vector") is None  # in 2024 nobody knew
        assert got == pytest.approx({
            "event_count": len(before),
            "distinct_items": len({event.item for event in before}),
            "days_since_last": min(days, default=None),
            "days_since_first": max(days, default=None),
            "value_count": len(values),
            "value_mean": np.mean(values) if values else None,
            "count_view": sum(event.kind == "view" for event in before),
            "count_purchase": sum(event.kind == "purchase" for event in before),
            "count_return": sum(event.kind == "return" for event in before),
        })  # fmt: skip
    assert features_at(shop, "user", "u1")["vector"] == shop.value("select dynrec.user_vector_at('shop', 'u1')::text")
    assert features_at(shop, "user", "a stranger")["event_count"] == 0


def test_the_list_of_features_is_what_there_is(shop: Shop) -> None:
    shop.add_events(history(9))
    shop.drain()
    listed = shop.execute("select entity, feature, type from dynrec.features where recommender = 'shop'")
    for entity, key in (("item", "1"), ("user", "u1")):
        rows = shop.connection.execute(
            f"select feature, case when number is not null then 'number' when label is not null then 'label' else 'vector' end from dynrec.{entity}_features_at('shop', %s)".encode(),
            [key],
        ).fetchall()
        assert rows == [(feature, kind) for of, feature, kind in listed if of == entity]
    named = shop.execute("select feature, type from dynrec._feature_names(1) order by position")
    assert named == [(feature, kind) for of, feature, kind in listed if of == "item" and kind != "vector"]
    assert shop.value("select bool_and(source > '' and freshness > '') from dynrec.features")


def test_features_are_read_with_the_names_of_now(shop: Shop) -> None:
    shop.execute("update shop.products set price = 3, stock = 40")
    for columns in ("{price}", "{stock,price}", "{stock}"):
        shop.execute("select dynrec.alter_recommender('shop', numeric_columns => %s)", [columns])
        shop.drain()
        got = stored(shop, ["1"])["1"]
        assert {name: got[name] for name in got if name in ("price", "stock")} == {
            name: {"price": 3, "stock": 40}[name] for name in columns.strip("{}").split(",")
        }


@pytest.fixture
def odd(connection: Session) -> Shop:
    """A recommender without interactions over columns of all types, one called as a feature is."""
    connection.execute(
        """
        create schema shop;
        create table shop.products (id int primary key, price numeric, price_relative real, cost money, flag boolean, tags text[], size double precision);
        insert into shop.products values
            (1, 'NaN', 'Infinity', '$1,234.50', true, '{a,b}', 1e200), (2, 1e400::numeric, '-Infinity', '-$3.25', null, null, 1e-300),
            (3, 5, 2.5, null, false, '{}', -7), (4, -1e-400::numeric, 0, '$0', false, '{}', 'NaN');
        """
    )
    connection.execute(
        "select dynrec.create_recommender('shop', 'shop.products', numeric_columns => '{price,price_relative,cost,size}', "
        "categorical_columns => '{flag,tags}', encoder => 'hashing')"
    )
    drain(connection)
    return Shop(connection, interactions=None)


def test_odd_numbers_are_missing(odd: Shop) -> None:
    got = stored(odd)
    names = ["price", "price_relative", "cost", "size"]
    assert {item: [features[name] for name in names] for item, features in got.items()} == {
        "1": [None, None, 1234.5, None],
        "2": [None, None, -3.25, 0],
        "3": [5, 2.5, None, -7],
        "4": [0, 0, 0, None],
    }
    assert {item: (features["flag"], features["tags"]) for item, features in got.items()} == {
        "1": ("true", '["a", "b"]'),
        "2": (None, None),
        "3": ("false", "[]"),
        "4": ("false", "[]"),
    }


def test_without_interactions_there_are_columns_alone(odd: Shop) -> None:
    listed = [feature for (feature,) in odd.execute("select feature from dynrec.features")]
    assert listed == [
        "price", "price_relative", "cost", "size", "price_relative_", "price_relative_relative", "cost_relative", "size_relative",
        "flag", "tags", "content_vector",
    ]  # fmt: skip
    assert features_at(odd, "item", "3")["price_relative_"] == 0
    assert odd.execute("select * from dynrec.user_features_at('shop', 'u')") == []


def test_numbers_that_have_no_ratio(odd: Shop) -> None:
    for number in (1e90, -1e90, 1e-90):
        odd.execute("update shop.products set size = %s where id = 3", [number])
        odd.drain()
    # -7 vanishes beside the others, whose mean is next to nothing; of 5 and -5 it is 0
    assert features_at(odd, "item", "3")["size_relative"] in (None, pytest.approx(-1))
    odd.execute("update shop.products set price = -5 where id = 4")
    odd.drain()
    odd.execute("update shop.products set price = 5 where id = 4")
    odd.drain()
    assert features_at(odd, "item", "4")["price_relative_relative"] == 0
    assert features_at(odd, "item", "4")["price_relative_"] is None


def test_a_declaration_that_changes_changes_the_features(shop: Shop) -> None:
    shop.execute(
        "select dynrec.alter_recommender('shop', numeric_columns => '{price,stock}', kinds => %s)",
        [Jsonb({"view": {"weight": 1}})],
    )
    shop.drain()
    assert stored(shop, ["1"])["1"]["stock"] == 0
    listed = {feature for (feature,) in shop.execute("select feature from dynrec.features")}
    assert {"stock", "stock_relative", "count_view"} <= listed
    assert "count_purchase" not in listed


@pytest.mark.parametrize("function", ["item_features_at", "user_features_at"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity", "2999-01-01"])
def test_moments_that_are_none(shop: Shop, function: str, moment: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="as_of") as caught:
        shop.connection.execute(f"select * from dynrec.{function}('shop', '1', %s)".encode(), [moment])
    assert moment[:4] in str(caught.value)
