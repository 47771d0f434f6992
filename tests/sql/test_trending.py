"""Popularity that decays, against counting all interactions afresh."""

from datetime import datetime, timedelta

import pytest

from tests.reference import popularity
from tests.sql.shop import KINDS, Event, Shop


def at(shop: Shop) -> datetime:
    now: datetime = shop.value("select now()")
    return now


def some_events(now: datetime) -> list[Event]:
    return [
        Event(
            f"u{n % 7}",
            str(1 + (n * n) % 11),
            now - timedelta(hours=7 * n),
            ["view", "purchase", "return"][n % 3],
            [None, 3.0][n % 2],
        )
        for n in range(60)
    ]


def assert_trending_right(shop: Shop) -> None:
    """The rows that trend are the items of positive popularity, and their scores are right."""
    rows = [(item, score) for item, score, source in shop.call("trending", k=100) if source == "trending"]
    events = [event for event in shop.events() if event.item in shop.texts()]
    expected = {item: score for item, score in popularity(events, at(shop), KINDS).items() if score > 1e-9}
    assert dict(rows) == pytest.approx(expected, rel=1e-3)
    assert [score for _, score in rows] == sorted((score for _, score in rows), reverse=True)


def test_counting_afresh(shop: Shop) -> None:
    events = some_events(at(shop))
    for start in range(0, 60, 13):
        shop.add_events(events[start : start + 13])
        shop.drain()
        assert_trending_right(shop)


def test_changes_and_deletions(shop: Shop) -> None:
    shop.add_events(some_events(at(shop)))
    shop.drain()
    shop.execute("update shop.events set kind = 'purchase', value = null where mod(id, 3) = 0")
    shop.execute("delete from shop.events where mod(id, 5) = 0")
    shop.execute("update shop.events set user_id = 'other' where mod(id, 4) = 0")
    shop.execute("delete from shop.products where id = 2")
    shop.drain()
    assert_trending_right(shop)


def test_a_rebuild_gives_the_same(shop: Shop) -> None:
    shop.add_events(some_events(at(shop))[:40])
    shop.drain()
    shop.add_events(some_events(at(shop))[40:])
    shop.execute("delete from shop.events where mod(id, 5) = 0")
    before = shop.call("trending", k=20)
    shop.execute("insert into dynrec_data.task (recommender_id, action) values (1, 'popularity')")
    shop.execute("select dynrec._run_task()")
    after = shop.call("trending", k=20)
    assert [item for item, _, _ in before] == [item for item, _, _ in after]
    assert [score for _, score, _ in before] == pytest.approx([score for _, score, _ in after], rel=1e-3)
    shop.drain()
    assert_trending_right(shop)


def test_popularity_below_zero(shop: Shop) -> None:
    now = at(shop)
    shop.add_events(
        [Event("u", "1", now, "return"), Event("v", "2", now, "purchase"), Event("w", "3", now, "view", -5)]
    )
    shop.drain()
    rows = shop.call("trending", k=12)
    assert [(item, source) for item, _, source in rows[:1]] == [("2", "trending")]
    assert {item for item, _, source in rows if source == "fallback"} == {str(n) for n in (1, *range(3, 13))}
    assert_trending_right(shop)


def test_what_was_taken_back_does_not_trend(shop: Shop) -> None:
    now = at(shop)
    shop.add_events([Event(f"u{n}", "1", now - timedelta(minutes=17 * n), "view", 1 / (n + 3)) for n in range(9)])
    shop.drain()
    for user in (3, 1, 8, 0, 2, 7, 5, 4, 6):
        shop.execute("delete from shop.events where user_id = %s", [f"u{user}"])
        shop.drain()
    assert {source for _, _, source in shop.call("trending", k=12)} == {"fallback"}


def test_interactions_of_the_future_do_not_lead_for_ever(shop: Shop) -> None:
    now = at(shop)
    shop.add_events(
        [
            Event("u", "1", now + timedelta(days=3650), "view"),
            Event("v", "2", now, "view"),
            Event("w", "2", now, "view"),
        ]
    )
    shop.drain()
    assert [item for item, _, _ in shop.call("trending", k=2)] == ["2", "1"]
    shop.execute("delete from shop.events where item_id = 1")
    shop.drain()
    assert [(item, source) for item, _, source in shop.call("trending", k=2)] == [("2", "trending"), ("1", "fallback")]


def test_interactions_a_thousand_half_lives_apart(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"trending_half_life\": \"1 hour\"}')")
    shop.drain()
    shop.add_events([Event("u", "3", at(shop) - timedelta(days=4000), "purchase")])
    shop.drain()
    shop.add_events([Event("u", "1", at(shop), "view"), Event("v", "2", at(shop) - timedelta(hours=1), "purchase")])
    shop.drain()
    rows = shop.call("trending", k=3)
    assert [(item, round(score, 1)) for item, score, _ in rows] == [("2", 1.5), ("1", 1.0), ("3", 0.0)]
    shop.add_events([Event("u", "3", at(shop), "purchase")])
    shop.drain()
    rows = shop.call("trending", k=3)
    assert [(item, round(score, 1)) for item, score, _ in rows] == [("3", 3.0), ("2", 1.5), ("1", 1.0)]


def test_the_clock_can_be_set_back(shop: Shop) -> None:
    past = at(shop) - timedelta(days=300)
    shop.add_events(
        [Event("u", "1", past - timedelta(days=1), "view"), Event("v", "2", past - timedelta(days=8), "view")]
    )
    shop.drain()
    shop.execute("select set_config('dynrec.clock', %s, false)", [past.isoformat()])
    rows = shop.call("trending", k=2)
    shop.execute("reset dynrec.clock")
    assert [item for item, _, _ in rows] == ["1", "2"]
    assert rows[0][1] / rows[1][1] == pytest.approx(2, rel=1e-6)


def test_as_of(shop: Shop) -> None:
    now = at(shop)
    events = some_events(now)
    shop.add_events(events)
    shop.drain()
    moment = now - timedelta(days=3)
    known = [event for event in events if event.at <= moment]
    rows = shop.connection.execute(
        "select c.item_id, c.score from dynrec_data.recommender r, dynrec._popular(r, 100, '{}', 'true', '{}', %s) c",
        [moment],
    ).fetchall()
    expected = {item: score for item, score in popularity(known, moment, KINDS).items() if score > 0}
    assert dict(rows) == pytest.approx(expected, rel=1e-6)
