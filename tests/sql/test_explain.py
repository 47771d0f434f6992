"""Why an item: the interactions that speak for it, whose contributions make up the score."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.reference import weight
from tests.sql.shop import KINDS, NOON, Event, Shop

EVENTS = [
    Event(
        "u",
        str(1 + n % 5),
        NOON + timedelta(hours=13 * n),
        ["view", "purchase", "return", "other"][n % 4],
        [None, 2.0, 0.5][n % 3],
    )
    for n in range(14)
]
COLUMNS = "because_item_id, kind, occurred_at, weight, similarity, contribution, reason"


def explain(shop: Shop, user: str, item: str, k: int = 100, **arguments: Any) -> list[tuple[Any, ...]]:
    return shop.connection.execute(
        f"select {COLUMNS} from dynrec.explain('shop', %(user)s, %(item)s, %(k)s, %(as_of)s)".encode(),
        {"user": user, "item": item, "k": k, "as_of": arguments.get("as_of")},
    ).fetchall()


@pytest.mark.parametrize("published", [True, False])
def test_contributions_sum_to_the_score(shop: Shop, published: bool) -> None:
    shop.add_events(EVENTS)
    if published:
        shop.drain()
    scores = {item: score for item, score, _ in shop.recommend("u", k=12, exclude_seen=False)}
    for item, score in scores.items():
        rows = explain(shop, "u", item)
        assert sum(row[5] for row in rows) == pytest.approx(score, abs=1e-4)
        assert [row[5] for row in rows] == sorted((row[5] for row in rows), reverse=True)


def test_each_row_is_right(shop: Shop) -> None:
    shop.add_events(EVENTS)
    vectors = shop.item_vectors([str(n) for n in range(1, 13)])
    until = max(event.at for event in EVENTS)
    rows = explain(shop, "u", "9")
    assert {row[0] for row in rows} == {event.item for event in EVENTS}
    for item, kind, at, given, similarity, _, reason in rows:
        own = [event for event in EVENTS if event.item == item]
        latest = max(own, key=lambda event: event.at)
        assert (kind, at) == (latest.kind, latest.at)
        assert given == pytest.approx(sum(weight(event, until, KINDS) for event in own), rel=1e-6)
        assert similarity == pytest.approx(float(vectors[item] @ vectors["9"]), abs=1e-5)  # type: ignore[operator]
        assert str(latest.kind) in reason
        assert f"{at:%Y-%m-%d}" in reason


def test_an_interaction_dated_in_the_future(shop: Shop) -> None:
    shop.add_events([*EVENTS, Event("u", "8", shop.value("select now()") + timedelta(days=1000), "view")])
    scores = {item: score for item, score, _ in shop.recommend("u", k=12, exclude_seen=False)}
    for item, score in scores.items():
        assert sum(row[5] for row in explain(shop, "u", item)) == pytest.approx(score, abs=1e-4)


def test_k_rows(shop: Shop) -> None:
    shop.add_events(EVENTS)
    assert explain(shop, "u", "9", 2) == explain(shop, "u", "9")[:2]


def test_interactions_with_items_that_are_gone(shop: Shop) -> None:
    shop.add_events([*EVENTS, Event("u", "77", NOON, "view")])
    shop.execute("delete from shop.products where id = 2")
    shop.drain()
    rows = explain(shop, "u", "9")
    assert {row[0] for row in rows} == {"1", "3", "4", "5"}
    score = {item: score for item, score, _ in shop.recommend("u", k=12, exclude_seen=False)}["9"]
    assert sum(row[5] for row in rows) == pytest.approx(score, abs=1e-4)


def test_a_user_of_whom_nothing_is_known(shop: Shop) -> None:
    shop.add_events([Event("other", "1", shop.value("select now()"), "purchase")])
    shop.drain()
    for user in ("nobody", "", "1; drop"):
        ((because, *_, contribution, reason),) = explain(shop, user, "1")
        assert because is None
        assert contribution == pytest.approx(3, rel=1e-3)
        assert reason.startswith("trending")
        assert explain(shop, user, "2")[0][-1].startswith("fallback")


def test_as_of(shop: Shop) -> None:
    shop.add_events(EVENTS[:7])
    shop.drain()
    before, moment = explain(shop, "u", "9"), shop.value("select clock_timestamp()")
    shop.add_events(EVENTS[7:])
    shop.execute("delete from shop.events where item_id = 3")
    shop.execute("update shop.products set title = 'another' where id < 10")
    shop.drain()
    rows = explain(shop, "u", "9", as_of=moment)
    assert [row[:3] for row in rows] == [row[:3] for row in before]
    assert [row[5] for row in rows] == pytest.approx([row[5] for row in before], abs=1e-5)


@pytest.mark.parametrize(("user", "item"), [("u", "77"), ("u", "abc"), ("u", ""), ("u", None), (None, "1")])
def test_what_does_not_exist(shop: Shop, user: str, item: str) -> None:
    with pytest.raises(
        (psycopg.errors.NoDataFound, psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject)
    ):
        explain(shop, user, item)
