"""Values of dynrec.evaluate that more than hits go into: gains, popularity, and the errors of what all lists share."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import numpy as np
import pytest

from tests.sql.shop import KINDS, NOON, Event, Shop

USERS = [f"u{n}" for n in range(40)]
KIND_NAMES = ["view", "purchase", "return", "other"]
K = 5
Statistic = Callable[[Collection[list[str]]], float]


@dataclass(frozen=True)
class Period:
    """A shop, a moment, an end, and the lists of then: user -> items."""

    shop: Shop
    begin: datetime
    end: datetime
    lists: dict[str, list[str]]
    gains: dict[str, dict[str, float]]

    def row(self, metric: str) -> tuple[float, float | None]:
        """Value and standard error of a metric over all users."""
        rows = self.shop.connection.execute(
            "select value, standard_error from dynrec.evaluate('shop', %s, %s, array[%s]) where metric = %s and slice = 'all'",
            [self.begin, self.end, K, metric],
        ).fetchall()
        assert len(rows) == 1
        return rows[0]


def draw_events(rng: Random, number: int, at: datetime) -> list[Event]:
    return [
        Event(
            rng.choice(USERS),
            str(1 + int(30 * rng.random() ** 2)),
            at + timedelta(microseconds=n),
            rng.choice(KIND_NAMES),
            rng.choice([None, 0.5, 2.0, 4.0]),
        )
        for n in range(number)
    ]


@pytest.fixture
def period(shop: Shop) -> Period:
    rng = Random(5)
    shop.add_products(range(13, 31))
    shop.add_events(draw_events(rng, 300, NOON))
    shop.drain()
    begin = shop.value("select clock_timestamp()")
    shop.add_events(draw_events(rng, 400, shop.value("select clock_timestamp()")))
    end = shop.value("select clock_timestamp() + interval '1 second'")
    rows = shop.connection.execute(
        "select user_id, recommended, relevant, gains from dynrec.evaluation_lists('shop', %s, %s, %s)", [begin, end, K]
    ).fetchall()
    lists = {user: items for user, items, _, _ in rows}
    gains = {user: dict(zip(relevant, worth, strict=True)) for user, _, relevant, worth in rows}
    return Period(shop, begin, end, lists, gains)


def test_a_gain_is_the_weight_of_what_was_done(period: Period) -> None:
    before, after = defaultdict(set), defaultdict(list)
    for event in period.shop.events():
        if event.at < period.begin:
            before[event.user].add(event.item)
        else:
            after[event.user, event.item].append(event)
    wanted: dict[str, dict[str, float]] = {user: {} for user in period.gains}
    for (user, item), events in after.items():
        if item not in before[user] and any(KINDS.get(one.kind or "*", KINDS["*"]).weight > 0 for one in events):
            weights = [KINDS.get(one.kind or "*", KINDS["*"]).weight * (1 if one.value is None else one.value) for one in events]  # fmt: skip
            wanted[user][item] = max(0.0, sum(weights))
    assert {user: pytest.approx(gains) for user, gains in wanted.items()} == period.gains
    assert len({gain for gains in wanted.values() for gain in gains.values()}) > 5


def test_graded_ndcg_is_the_mean_of_its_function(period: Period) -> None:
    values = [
        value
        for (value,) in period.shop.connection.execute(
            "select dynrec.ndcg_at_k(recommended, relevant, gains, %s) from dynrec.evaluation_lists('shop', %s, %s, %s)",
            [K, period.begin, period.end, K],
        ).fetchall()
        if value is not None
    ]
    value, error = period.row("graded_ndcg_at_k")
    assert value == pytest.approx(np.mean(values))
    assert error == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
    assert value != pytest.approx(period.row("ndcg_at_k")[0], rel=1e-3)


def test_popularity_bias_is_beside_the_whole_catalogue(period: Period) -> None:
    met = Counter(event.item for event in period.shop.events() if event.at < period.begin)
    usual = sum(met.values()) / 30
    values = [np.mean([met[item] for item in items]) / usual for items in period.lists.values()]
    assert period.row("popularity_bias_at_k")[0] == pytest.approx(np.mean(values))


def coverage(lists: Collection[list[str]]) -> float:
    return len({item for items in lists for item in items}) / 30


def full(lists: Collection[list[str]]) -> float:
    return float(np.mean([len(items) >= K for items in lists]))


def shannon(lists: Collection[list[str]]) -> float:
    shares = np.array(list(Counter(item for items in lists for item in items).values()), dtype=float)
    shares /= shares.sum()
    return float(-(shares * np.log2(shares)).sum())


def gini(lists: Collection[list[str]]) -> float:
    counts = Counter(item for items in lists for item in items)
    exposure = np.sort([counts.get(str(item), 0) for item in range(1, 31)])
    return float((2 * np.arange(1, 31) - 31) @ exposure / (30 * exposure.sum()))


@pytest.mark.parametrize(
    ("metric", "statistic"),
    [
        ("catalogue_coverage_at_k", coverage),
        ("user_coverage_at_k", full),
        ("shannon_of_exposure_at_k", shannon),
        ("gini_of_exposure_at_k", gini),
    ],
)
def test_the_error_of_what_all_lists_share_is_the_jackknife(period: Period, metric: str, statistic: Statistic) -> None:
    part: dict[str, int] = dict(
        period.shop.connection.execute(
            "select u, abs(hashtextextended(u, 1) %% 10) from unnest(%s::text[]) u", [list(period.lists)]
        ).fetchall()
    )
    assert len(set(part.values())) == 10
    without = [
        statistic([items for user, items in period.lists.items() if part[user] != left_out]) for left_out in range(10)
    ]
    value, error = period.row(metric)
    assert value == pytest.approx(statistic(list(period.lists.values())))
    assert error == pytest.approx(np.sqrt(9 / 10 * np.sum((np.array(without) - np.mean(without)) ** 2)))


def test_no_error_from_too_few_users(period: Period) -> None:
    rows = period.shop.connection.execute(
        "select value, standard_error from dynrec.evaluate('shop', %s, %s, user_ids => '{u1,u2}')"
        " where metric = 'catalogue_coverage_at_k'",
        [period.begin, period.end],
    ).fetchall()
    assert rows[0][1] is None
