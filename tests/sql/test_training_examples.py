"""Training examples: what was known at the moment of an interaction, and nothing that came later."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.drain import from_text
from tests.learned import Oracle, backfill, make_config, stage
from tests.reference import user_vector
from tests.sql.shop import KINDS, NOON, Event, Shop
from tests.sql.test_features import assert_like, features_at, history, popularity

Example = dict[str, Any]
COLUMNS = (
    "user_id",
    "item_id",
    "kind",
    "value",
    "occurred_at",
    "item_features",
    "user_features",
    "item_vector",
    "user_vector",
    "item_known_since",
)


def examples(
    shop: Shop, since: datetime | str = "-infinity", until: datetime | str = "infinity", *, backdated: bool = False
) -> list[Example]:
    """The examples of a period."""
    rows = shop.execute(
        "select user_id, item_id, kind, value, occurred_at, item_features, user_features, item_vector::text, user_vector::text, item_known_since "
        "from dynrec.training_examples(%s, %s, %s, %s)",
        [shop.name, since, until, backdated],
    )
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def example_of(shop: Shop, moment: datetime, *, backdated: bool = False) -> Example:
    """The one example at a moment."""
    (found,) = examples(shop, moment, moment + timedelta(microseconds=1), backdated=backdated)
    return found


def happens(shop: Shop, user: str, item: int, kind: str = "view") -> datetime:
    """An interaction now, published."""
    moment: datetime = shop.value(
        "insert into shop.events (user_id, item_id, kind, occurred_at) values (%s, %s, %s, clock_timestamp()) returning occurred_at",
        [user, item, kind],
    )
    shop.drain()
    return moment


LEAKS: dict[str, Callable[[Shop, datetime], Any]] = {
    "a number": lambda s, _: s.execute("update shop.products set price = 999 where id = 1"),
    "a category": lambda s, _: s.execute("update shop.products set category = 'leaked' where id = 1"),
    "a text": lambda s, _: s.execute("update shop.products set title = 'the leaked truth' where id in (1, 2)"),
    "popularity": lambda s, _: [happens(s, f"fan {n}", 1, "purchase") for n in range(3)],
    "the user": lambda s, _: [happens(s, "u", item, "purchase") for item in (1, 3, 4)],
    "the same moment": lambda s, moment: s.add_events([Event("u", "5", moment, "purchase"), Event("v", "1", moment)]),
    "what the user took back": lambda s, moment: s.execute(
        "delete from shop.events where user_id = 'u' and occurred_at < %s", [moment]
    ),
    "the item itself": lambda s, _: s.execute("delete from shop.products where id = 1"),
}
OF_THE_PAST_AS_IT_IS_NOW = {"what the user took back"}  # counts are those of the rows of today


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("leak", LEAKS)
def test_what_changes_after_the_event_cannot_be_seen(shop: Shop, leak: str, published: bool) -> None:
    happens(shop, "u", 2)
    happens(shop, "w", 1, "purchase")
    moment = happens(shop, "u", 1, "purchase")
    before = example_of(shop, moment)
    assert before["item_features"]["popularity_ever"] > 0
    assert before["user_features"]["event_count"] == 1
    assert None not in {before["item_vector"], before["user_vector"], before["item_known_since"]}
    LEAKS[leak](shop, moment)
    if published:
        shop.drain()
    for backdated in (False, True):
        found = [
            row
            for row in examples(shop, moment, moment + timedelta(microseconds=1), backdated=backdated)
            if (row["user_id"], row["item_id"]) == ("u", "1")
        ]
        assert len(found) == 1
        if leak in OF_THE_PAST_AS_IT_IS_NOW:
            if not backdated:
                assert found[0]["user_vector"] == before["user_vector"]
        elif leak == "the item itself" and published and backdated:
            assert found[0]["item_vector"] == before["item_vector"]
        else:
            assert found[0] == before


def test_the_leak_would_show(shop: Shop) -> None:
    """What is planted above does change what is known afterwards."""
    happens(shop, "u", 2)
    moment = happens(shop, "u", 1)
    for leak in ("a number", "a category", "a text", "popularity", "the user"):
        LEAKS[leak](shop, moment)
    shop.drain()
    before, after = example_of(shop, moment), example_of(shop, happens(shop, "u", 1))
    for name in ("price", "price_relative", "category", "popularity_1d", "age_days"):
        assert before["item_features"][name] != after["item_features"][name], name
    for name in ("item_vector", "user_vector", "user_features", "item_known_since"):
        assert before[name] != after[name], name


def test_a_change_before_the_event_that_nobody_had_read_is_not_seen(shop: Shop) -> None:
    known = features_at(shop, "item", "1")
    shop.execute("update shop.products set price = 999, title = 'unread' where id = 1")
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 1)")
    shop.drain()
    (example,) = examples(shop)
    assert example["item_features"]["price"] == known["price"]
    assert example["item_vector"] == known["content_vector"]


def test_an_example_is_what_the_reads_say(shop: Shop) -> None:
    moments = [happens(shop, f"u{n % 2}", 1 + n % 3, ["view", "purchase"][n % 2]) for n in range(8)]
    shop.execute("update shop.products set price = 50, category = 'c' where id < 3")
    moments += [happens(shop, "u1", 2), happens(shop, "u0", 1)]
    rows = examples(shop)
    assert [row["occurred_at"] for row in rows] == moments
    for row in rows:
        at = row["occurred_at"]
        item = features_at(shop, "item", row["item_id"], at)
        assert item.pop("content_vector") == row["item_vector"]
        assert_like(item, {name: value for name, value in row["item_features"].items() if name != "category"})
        assert item["category"] == row["item_features"]["category"]
        user = features_at(shop, "user", row["user_id"], at)
        found, expected = from_text(row["user_vector"]), from_text(user.pop("vector"))
        assert (found is None) == (expected is None)
        assert found is None or expected is None or np.abs(found - expected).max() < 1e-4
        assert_like(user, row["user_features"])
        assert row["item_known_since"] <= at


def test_an_imported_history_has_nothing_that_was_known(shop: Shop) -> None:
    shop.add_events(history(20))
    shop.drain()
    for row in examples(shop):
        assert [row[name] for name in ("item_features", "item_vector", "user_vector", "item_known_since")] == [None] * 4


def test_the_oldest_version_stands_in_for_an_imported_history(shop: Shop) -> None:
    oldest = {str(n): features_at(shop, "item", str(n)) for n in range(1, 13)}
    events = history(90)
    shop.add_events(events)
    for price in (50, 60):
        shop.execute("update shop.products set price = %s, category = 'newer', title = 'newer ' || %s", [price, price])
        shop.drain()
    rows = examples(shop, backdated=True)
    vectors = {item: from_text(features["content_vector"]) for item, features in oldest.items()}
    assert len(rows) == len(events)
    for row in rows:
        item, at = row["item_id"], row["occurred_at"]
        known = oldest[item]
        assert {name: row["item_features"][name] for name in ("price", "price_relative", "category")} == {
            name: known[name] for name in ("price", "price_relative", "category")
        }
        assert_like(row["item_features"], popularity(events, item, at))
        assert row["item_vector"] == known["content_vector"]
        assert row["item_known_since"] > at
        before = [event for event in events if event.user == row["user_id"] and event.at < at]
        expected = user_vector(before, {key: one for key, one in vectors.items() if one is not None}, KINDS)
        found = from_text(row["user_vector"])
        assert (found is None) == (expected is None)
        assert found is None or expected is None or np.abs(found - expected).max() < 1e-4
        assert row["user_features"]["event_count"] == len(before)
        assert row["user_features"]["distinct_items"] == len({event.item for event in before})


def test_a_period_of_a_history_is_a_part_of_the_whole(shop: Shop) -> None:
    shop.add_events(history(90))
    shop.drain()
    whole = examples(shop, backdated=True)
    since, until = NOON + timedelta(days=2), whole[60]["occurred_at"]
    part = examples(shop, since, until, backdated=True)
    same = [row for row in whole if since <= row["occurred_at"] < until]
    vectors = [[from_text(row.pop("user_vector")) for row in rows] for rows in (part, same)]
    assert part == same
    assert 20 < len(part) < 70
    for one, other in zip(*vectors, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or np.abs(one - other).max() < 1e-5


def test_an_item_that_is_away_is_not_known(shop: Shop) -> None:
    happens(shop, "u", 1)
    shop.execute("delete from shop.products where id = 1")
    shop.drain()
    moment = happens(shop, "v", 1)
    shop.execute("insert into shop.products (id, title, price) values (1, 'back again', 5)")
    shop.drain()
    for backdated in (False, True):
        row = example_of(shop, moment, backdated=backdated)
        assert [row[name] for name in ("item_features", "item_vector", "item_known_since")] == [None] * 3
    assert example_of(shop, happens(shop, "v", 1))["item_features"]["price"] == 5


def test_long_pauses_do_not_underflow(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON, "purchase")])
    shop.add_events(Event(f"u{n}", "1", NOON + n * timedelta(days=90), "return") for n in range(1, 40))
    shop.drain()
    last = examples(shop, backdated=True)[-1]
    assert last["item_features"]["popularity_6h"] == 0
    assert last["item_features"]["popularity_ever"] == pytest.approx(np.log(2), abs=0.1)


def test_vectors_are_those_of_the_active_model(shop: Shop) -> None:
    shop.add_events(history(40))
    shop.drain()
    config = make_config()
    stage(shop.connection, config)
    backfill(shop.connection)
    shop.execute("select dynrec.promote_model('shop')")
    rows = shop.execute(
        "select v.item_id, v.embedding::text from dynrec_data.item_vector v join dynrec_data.recommender r on v.model_id = r.content_model_id"
    )
    contents = {item: np.array(text.strip("[]").split(","), dtype=float) for item, text in rows}
    learned = shop.item_vectors(contents)
    events = shop.events()
    for row in examples(shop, backdated=True):
        at = row["occurred_at"]
        vector = from_text(row["item_vector"])
        expected = learned[row["item_id"]]
        assert vector is not None
        assert expected is not None
        assert np.abs(vector - expected).max() < 1e-5
        query = Oracle(config, contents, [event for event in events if event.at < at], KINDS, [], []).query(
            row["user_id"], at
        )
        found = from_text(row["user_vector"])
        assert (query is None) == (found is None)
        assert query is None or found is None or np.abs(query - found).max() < 1e-3
    moment = happens(shop, "u1", 3)
    found = from_text(example_of(shop, moment)["user_vector"])
    ((text,),) = shop.execute(
        "select dynrec.user_vector_at('shop', 'u1', %s)::text", [moment - timedelta(microseconds=1)]
    )
    expected = from_text(text)
    assert found is not None
    assert expected is not None
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("2024-01-02", "2024-01-01", "2024-01-02.*2024-01-01"),
        ("2024-01-01", "2024-01-01", "2024-01-01"),
        (None, "2024-01-01", '"from".*null'),
        ("2024-01-01", None, '"to".*null'),
    ],
)
def test_periods_that_are_none(shop: Shop, since: str | None, until: str | None, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message) as caught:
        shop.execute("select * from dynrec.training_examples('shop', %s, %s)", [since, until])
    assert caught.value.diag.message_hint


def test_recommenders_that_have_no_examples(shop: Shop) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match="'shp'"):
        shop.execute("select * from dynrec.training_examples('shp', '2024-01-01', '2025-01-01')")
    shop.execute(
        "select dynrec.create_recommender('alone', 'shop.products', text_columns => '{title}', encoder => 'hashing')"
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="'alone'"):
        shop.execute("select * from dynrec.training_examples('alone', '2024-01-01', '2025-01-01')")
