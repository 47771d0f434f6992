"""What another model version would have earned: the truth of a simulation, and the estimators in numpy."""

import random
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.sql.shop import NOON, Event, Shop

USERS = [f"u{n}" for n in range(6)]
ITEMS = [str(n) for n in range(1, 13)]
K = 4
LISTS = 1500


def chance(item: str, position: int) -> float:
    """With which probability a user clicks an item at a position."""
    return (0.1 + 0.07 * (int(item) % 5)) / position


def estimates(shop: Shop, begin: datetime, **arguments: Any) -> dict[str, dict[str, Any]]:
    extra = "".join(f", {name} => %({name})s" for name in arguments)
    with shop.connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f'select * from dynrec.counterfactual_metrics(\'shop\', "from" => %(a)s, "to" => now(), k => {K}{extra})'.encode(),
            {"a": begin, **arguments},
        ).fetchall()
    return {row["estimator"]: row for row in rows}


@pytest.fixture
def begin(shop: Shop) -> datetime:
    """A shop whose users have met a few items, and the moment from which they are shown things."""
    shop.add_events(Event(USERS[n % 6], str(1 + n % 11), NOON + timedelta(hours=n), "view") for n in range(20))
    shop.drain()
    moment: datetime = shop.value("select clock_timestamp()")
    return moment


def simulate(shop: Shop, begin: datetime, seed: int) -> list[tuple[str, list[str], list[int]]]:
    """Lists drawn evenly from all items, and clicks; returns user, items and clicks of each."""
    rng = random.Random(seed)
    shown, impressions, events = [], [], []
    for number in range(LISTS):
        user, items = rng.choice(USERS), rng.sample(ITEMS, K)
        clicks = [int(rng.random() < chance(item, position)) for position, item in enumerate(items, 1)]
        at = begin + timedelta(microseconds=number)
        shown.append((user, items, clicks))
        impressions.append(
            {"user_id": user, "item_ids": items, "shown_at": at.isoformat(), "propensities": [1 / len(ITEMS)] * K}
        )
        # long before the same item is shown to the same user again, as far as attribution goes
        events += [Event(user, item, at, "view") for item, click in zip(items, clicks, strict=True) if click]
    shop.execute("select dynrec.log_impressions('shop', %s)", [Jsonb(impressions)])
    shop.add_events(events)
    return shown


def test_estimates_agree_with_numpy_and_with_the_truth(shop: Shop, begin: datetime) -> None:
    shown = simulate(shop, begin, 1)
    target = {user: [item for item, _, _ in shop.call("recommend", user_id=user, k=K, as_of=begin)] for user in USERS}
    found = estimates(shop, begin)
    weights = np.array(
        [[12 * (target[user][p] == items[p]) for p in range(K)] for user, items, _ in shown], dtype=float
    )
    earned = np.array([clicks for _, _, clicks in shown], dtype=float)
    expected = earned.mean(axis=0)
    of_lists = {
        "ips": (weights * earned).sum(axis=1),
        "doubly_robust": (expected + weights * (earned - expected)).sum(axis=1),
    }
    for name, values in of_lists.items():
        assert found[name]["value"] == pytest.approx(values.mean())
        assert found[name]["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(LISTS))
    ratios = (weights * earned).sum(axis=0) / weights.sum(axis=0)
    assert found["snips"]["value"] == pytest.approx(ratios.sum())
    influence = (weights * (earned - ratios) / weights.sum(axis=0)).sum(axis=1)
    assert found["snips"]["standard_error"] == pytest.approx(np.sqrt((influence**2).sum()))
    truth = np.mean([sum(chance(item, p) for p, item in enumerate(target[user], 1)) for user, _, _ in shown])
    for row in found.values():
        assert abs(row["value"] - truth) < 4 * row["standard_error"]
        assert row["low"] < row["value"] < row["high"]
        assert (row["lists"], row["matched"]) == (LISTS, (weights.sum(axis=1) > 0).sum())
        assert row["logged_value"] == pytest.approx(earned.sum(axis=1).mean())
        assert 0 < row["effective_lists"] < LISTS
    assert found["snips"]["standard_error"] < found["ips"]["standard_error"]


def test_lists_without_propensities_say_nothing(shop: Shop, begin: datetime) -> None:
    shop.execute("select dynrec.log_impressions('shop', 'u1', '{1,2,3}', 1)")
    assert estimates(shop, begin) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"reward": "fame"}, "'fame'"), ({"by_model": 99}, "'99'"), ({"within": timedelta(0)}, "within")],
    ids=str,
)
def test_bad_arguments(shop: Shop, begin: datetime, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        estimates(shop, begin, **arguments)


def test_before_there_were_vectors(shop: Shop, begin: datetime) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="had no vectors"):
        estimates(shop, begin - timedelta(days=1))
