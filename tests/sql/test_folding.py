"""Folding interactions in at read time equals recomputing from the whole history, in whatever order they come."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynrec_store import database
from tests.drain import Session, claim, publish_users
from tests.reference import Kinds, item_vectors, user_vector
from tests.sql.shop import KINDS, NOON, Event, Kind, Shop, assert_close, create_shop

NUMBERS = count()
EVENTS = st.builds(
    Event,
    user=st.just(""),
    item=st.sampled_from([*map(str, range(1, 13)), "99"]),
    # 35 days: what is older than forty half-lives, of a day at the shortest, counts nothing
    at=st.integers(0, 50_000).map(lambda minutes: NOON + timedelta(minutes=minutes)),
    kind=st.sampled_from(["view", "purchase", "return", "other", None]),
    value=st.sampled_from([None, 1.0, 0.0, 0.25, -2.0, 30.0]),
)
STEPS = st.lists(
    st.one_of(
        EVENTS,
        st.sampled_from(["publish", "claim", "delete one", "delete all", "change kind", "change time"]),
        st.lists(EVENTS, min_size=2, max_size=4),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def folding(make_database: Callable[..., str], template: str) -> Iterator[Shop]:
    with database.connect(make_database(template)) as connection:
        shop = create_shop(connection, products=12)
        shop.drain()
        yield shop


@settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_after_every_step(folding: Shop, steps: list[Event | str | list[Event]]) -> None:
    user = f"user{next(NUMBERS)}"
    items = item_vectors(folding.texts())
    token = None
    for step in steps:
        if isinstance(step, Event):
            folding.add_events([replace(step, user=user)])
        elif isinstance(step, list):
            with folding.connection.transaction():
                folding.add_events([replace(event, user=user) for event in step])
        elif step == "publish":
            folding.drain()
        elif step == "claim":
            token = claim(folding.connection, "shop", "user") or token
        elif step == "delete one":
            folding.execute(
                "delete from shop.events where id = (select max(id) from shop.events where user_id = %s)", [user]
            )
        elif step == "delete all":
            folding.execute("delete from shop.events where user_id = %s", [user])
        elif step == "change kind":
            folding.execute("update shop.events set kind = 'purchase' where user_id = %s and mod(id, 2) = 0", [user])
        else:
            folding.execute(
                "update shop.events set occurred_at = occurred_at - interval '3 days' where user_id = %s", [user]
            )
        assert_user_right(folding, user, items)
    if token is not None:
        publish_users(folding.connection, token)
        assert_user_right(folding, user, items)
    folding.drain()
    assert_user_right(folding, user, items)


def assert_user_right(shop: Shop, user: str, items: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]) -> None:
    events = [
        Event(*row)
        for row in shop.execute(
            "select user_id, item_id::text, occurred_at, kind, value from shop.events where user_id = %s", [user]
        )
    ]
    assert_close(shop.user_vectors([user]), {user: user_vector(events, items, shop.kinds)})


SORTED = [
    Event(
        "u", str(1 + n % 12), NOON + timedelta(hours=9 * n), ["view", "purchase", "return"][n % 3], [None, 2.0][n % 2]
    )
    for n in range(24)
]
ORDERS: list[Callable[[list[Event]], list[Event]]] = [
    lambda events: events,
    lambda events: events[::-1],
    lambda events: events[1::2] + events[::2],
    lambda events: sorted(events, key=lambda event: event.item),
]


@pytest.mark.parametrize("batch", [1, 5, 24])
@pytest.mark.parametrize("order", ORDERS)
def test_late_interactions_end_in_the_same_vector(
    shop: Shop, order: Callable[[list[Event]], list[Event]], batch: int
) -> None:
    events = order(SORTED)
    for start in range(0, len(events), batch):
        shop.add_events(events[start : start + batch])
        shop.assert_users_folded()
        shop.drain()
    shop.assert_right()
    assert_close(shop.user_vectors(["u"]), {"u": user_vector(SORTED, item_vectors(shop.texts()), KINDS)})


def test_an_interaction_years_after_the_others(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON - timedelta(days=5000), "purchase")])
    shop.drain()
    shop.assert_right()
    assert shop.recommend("u", k=1)[0][2] == "personal", "old interactions do not fade before there are newer ones"
    shop.add_events([Event("u", "2", NOON, "view")])
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()
    for _ in range(3):
        shop.add_events([Event("u", "3", NOON, "view")])
        shop.drain()
    shop.assert_right()


def test_interactions_that_cancel(shop: Shop) -> None:
    shop.add_events(
        [Event("u", "1", NOON, "view", 2), Event("u", "1", NOON, "view", -2), Event("v", "1", NOON, "return")]
    )
    for _ in range(2):
        shop.assert_users_folded()
        assert {source for _, _, source in shop.recommend("u", k=3)} <= {"trending", "fallback"}
        worst_first = [item for item, _, _ in shop.recommend("v", k=12, exclude_seen=False)]
        assert worst_first[-1] == "1", "what was returned is as far from the user as can be"
        shop.drain()
    shop.assert_right()


def test_a_user_whose_interactions_are_all_taken_back(shop: Shop) -> None:
    events = [Event("u", str(n), NOON + timedelta(minutes=77 * n), "view", 1 / 3) for n in range(1, 12)]
    shop.add_events(events)
    shop.drain()
    shop.execute("delete from shop.events where user_id = 'u'")
    for _ in range(2):
        assert shop.user_vectors(["u"]) == {"u": None}
        shop.drain()
    assert shop.counts() == (12, 0)


@pytest.mark.parametrize("seconds", [1, 3600, 100 * 365 * 86400])
def test_half_lives_short_and_long(connection: Session, seconds: int) -> None:
    kinds: Kinds = {"*": Kind(1, timedelta(seconds=seconds))}
    shop = create_shop(connection, products=6, kinds=kinds)
    shop.drain()
    for gap in (0, 1, 5, 60, 10_000, 10_000_000):
        shop.add_events([Event("u", str(1 + gap % 6), NOON + timedelta(seconds=gap))])
        shop.assert_users_folded()
        shop.drain()
    shop.assert_right()


def test_a_session_counts_its_items_alike(shop: Shop) -> None:
    items = item_vectors(shop.texts())
    total = items["1"] + items["2"] + items["2"]
    expected = {
        item: float(vector @ total / np.linalg.norm(total)) for item, vector in items.items() if item not in {"1", "2"}
    }
    rows = shop.call("recommend_for_items", item_ids=["1", "2", "2", "99", "abc"], k=10)
    assert {item: score for item, score, _ in rows} == pytest.approx(expected, abs=1e-4)
    assert {source for _, _, source in rows} == {"session"}
    assert {source for _, _, source in shop.call("recommend_for_items", item_ids=[], k=10)} == {"fallback"}


def test_scores_are_cosines(shop: Shop) -> None:
    shop.add_events(SORTED)
    items = item_vectors(shop.texts())
    mine = user_vector(SORTED, items, KINDS)
    assert mine is not None
    rows = shop.recommend("u", k=12, exclude_seen=False)
    assert {item: score for item, score, _ in rows} == pytest.approx(
        {i: float(v @ mine) for i, v in items.items()}, abs=1e-4
    )
    assert [score for _, score, _ in rows] == sorted((score for _, score, _ in rows), reverse=True)
