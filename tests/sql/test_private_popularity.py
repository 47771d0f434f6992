"""Differentially private popularity: what one user can change is bounded, the noise hides it, and nothing exact is left."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from scipy import stats

from tests.conftest import Prepare
from tests.drain import Session
from tests.reference import Event
from tests.sql.shop import Shop, open_shop

PRIVATE = '{"popularity_epsilon": 1, "popularity_bound": 5, "trending_half_life": "7 days"}'
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
LEFT = 0.5 ** (1 / 7)  # of a day's weight, a day later
SAMPLES = 20_000


def day(ago: int, hour: float = 12) -> datetime:
    return TODAY - timedelta(days=ago) + timedelta(hours=hour)


def release_once(connection: Session) -> None:
    """A shop whose popularity is private, and was released once."""
    shop = open_shop(connection)
    shop.add_events([Event(f"u{n}", str(1 + n % 3), day(1 + n % 4), "view") for n in range(40)])
    shop.drain()
    alter(shop, PRIVATE)
    shop.drain()


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(release_once).name if "private" in request.fixturenames else beginning


@pytest.fixture
def private(shop: Shop) -> Shop:
    return shop


def alter(shop: Shop, options: str) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [options])


def counters(shop: Shop) -> dict[str, float]:
    return dict(shop.execute("select item_id, score from dynrec_data.item_popularity"))


def units(shop: Shop, moment: datetime) -> dict[str, int]:
    return dict(shop.execute("select item_id, units from dynrec._bounded_popularity(1, %s)", [moment]))


def release_again(shop: Shop) -> dict[str, float]:
    """A day later, as far as the counters know."""
    shop.execute(
        "update dynrec_data.recommender set popularity_released_at = popularity_released_at - interval '1 day 1 second'"
    )
    shop.execute("select dynrec._maintain()")
    shop.drain()
    return counters(shop)


def test_every_item_has_a_counter_and_none_is_exact(private: Shop) -> None:
    released = counters(private)
    assert set(released) == {str(n) for n in range(1, 13)}
    exact = units(private, datetime.now(UTC))
    assert set(exact) == {"1", "2", "3"}
    assert all(abs(released[item] - exact.get(item, 0) / 200) > 1e-9 for item in released)
    assert len({round(score, 6) for score in released.values()}) > 6
    assert private.value("select count(*) from dynrec_data.item_popularity_history") == 0
    assert private.value("select count(*) from dynrec_data.item_popularity where rates is not null") == 0


def test_what_is_trending_is_what_was_released(private: Shop) -> None:
    released = counters(private)
    best = sorted((item for item in released if released[item] > 0), key=lambda item: -released[item])
    rows = private.execute("select item_id from dynrec.trending('shop', %s)", [len(best)])
    assert [item for (item,) in rows] == best


def test_interactions_wait_for_the_next_release(private: Shop) -> None:
    before = counters(private)
    private.add_events([Event("late", "9", day(0, 0), "purchase", 4)] * 5)
    private.drain()
    private.execute("select dynrec.refresh('shop')")
    private.execute("select dynrec._maintain()")
    private.drain()
    assert counters(private) == before
    private.assert_users_right()
    after = release_again(private)
    assert sum(after[item] != before[item] for item in before) >= 10, "new noise for every item"


def test_a_day_counts_when_it_is_over(private: Shop) -> None:
    now = datetime.now(UTC)
    before = units(private, now)
    private.add_events([Event("today", "7", TODAY, "view"), Event("today", "7", now + timedelta(days=3), "view")])
    assert units(private, now) == before
    assert units(private, TODAY + timedelta(days=1)).get("7", 0) > 0


@pytest.mark.parametrize("value", [1, 1000, None, -3])
def test_what_a_user_does_in_a_day_is_bounded(private: Shop, value: float | None) -> None:
    dice = np.random.default_rng(5)
    moments = [TODAY + timedelta(days=n, hours=float(dice.uniform(0, 24))) for n in range(12)]
    moments = [moments[0], *(moments[0] + timedelta(days=n, minutes=n) for n in range(1, 12))]
    before = [units(private, moment) for moment in moments]
    private.add_events(
        [
            Event(
                "busy", str(dice.integers(1, 13)), day(1, hour), str(dice.choice(["view", "purchase", "return"])), value
            )
            for hour in dice.uniform(0, 23.9, size=60)
        ]
    )
    changes = [
        sum(abs(after.get(item, 0) - earlier.get(item, 0)) for item in {*after, *earlier})
        for earlier, after in zip(before, (units(private, moment) for moment in moments), strict=True)
    ]
    assert changes[0] > 0
    assert all(change <= 1000 * LEFT**n for n, change in enumerate(changes)), changes
    assert sum(changes) <= 1000 / (1 - LEFT)


def test_the_noise_is_that_of_the_guarantee(shop: Shop) -> None:
    alter(shop, PRIVATE)
    scale = shop.value("select dynrec._noise_scale(r) from dynrec_data.recommender r")
    # all releases of a day together: (1000 + 1000 q + 1000 q^2 + …) / scale is epsilon
    assert 1000 / (1 - LEFT) / scale == pytest.approx(1)
    drawn = [z for (z,) in shop.execute("select dynrec._discrete_laplace(2.5) from generate_series(1, %s)", [SAMPLES])]
    law = stats.dlaplace(1 / 2.5)
    values = np.arange(-8, 9)
    expected = [law.cdf(-9), *law.pmf(values), law.sf(8)]
    found = [sum(z <= -9 for z in drawn), *(drawn.count(v) for v in values), sum(z >= 9 for z in drawn)]
    assert stats.chisquare(found, np.array(expected) * SAMPLES).pvalue > 1e-9


def test_going_back_counts_exactly_again(private: Shop) -> None:
    alter(private, '{"popularity_epsilon": null}')
    private.drain()
    found = private.execute("select item_id, score, event_count from dynrec_data.item_popularity order by 1")
    assert {item for item, _, _ in found} == {"1", "2", "3"}
    assert sum(count for _, _, count in found) == 40
    private.add_events([Event("new", "9", day(0, 0), "view")])
    private.drain()
    assert "9" in counters(private)


def test_an_item_that_left_has_no_counter_after_a_release(private: Shop) -> None:
    private.execute("delete from shop.products where id = 1")
    private.add_products([50])
    private.drain()
    assert {"1", "50"} & set(release_again(private)) == {"50"}


def test_the_past_before_the_first_release_shows_no_exact_counter(private: Shop) -> None:
    rows: list[tuple[Any, ...]] = private.execute(
        "select source from dynrec.trending('shop', as_of => (select popularity_since - interval '1 ms' from dynrec_data.recommender))"
    )
    assert {source for (source,) in rows} <= {"fallback"}


@pytest.mark.parametrize("option", ["popularity_epsilon", "popularity_bound"])
@pytest.mark.parametrize("bad", ["0", "-1", "1e9", '"1"', "[]", "true"])
def test_bad_options(shop: Shop, option: str, bad: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=rf"options\.{option}"):
        alter(shop, f'{{"{option}": {bad}}}')
