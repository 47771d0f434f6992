"""What was shown, what users did about it, and the metrics of it, against a computation in Python."""

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.sql.shop import KINDS, NOON, Event, Shop

DAY = timedelta(days=1)
KINDS_OF_EVENTS = ["view", "purchase", "return", "other"]


def log(shop: Shop, *impressions: dict[str, Any]) -> int:
    logged: int = shop.value("select dynrec.log_impressions('shop', %s)", [Jsonb(list(impressions))])
    return logged


def rows_of(shop: Shop, function: str, arguments: str, *values: Any) -> list[dict[str, Any]]:
    with shop.connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"select * from dynrec.{function}('shop', {arguments})".encode(), values).fetchall()


def traffic(shop: Shop, seed: int) -> tuple[list[dict[str, Any]], list[Event]]:
    """Random lists over three days, some shown twice or on second pages, and interactions, some with what was shown."""
    rng = random.Random(seed)
    impressions: list[dict[str, Any]] = [
        {
            "user_id": f"u{rng.randrange(9)}",
            "item_ids": [str(item) for item in rng.sample(range(1, 13), 4)],
            "shown_at": (NOON + timedelta(minutes=rng.randrange(4320), seconds=number)).isoformat(),
            "first_position": rng.choice([1, 1, 5]),
            "model_version": rng.choice([1, 2]),
            "surface": rng.choice(["home", "basket", None]),
        }
        for number in range(60)
    ]
    events = []
    for number in range(150):
        shown = rng.choice(impressions)
        at = datetime.fromisoformat(shown["shown_at"]) + timedelta(hours=rng.uniform(-3, 30), microseconds=number)
        item = rng.choice([*shown["item_ids"], "12"])
        events.append(Event(shown["user_id"], item, at, rng.choice(KINDS_OF_EVENTS), rng.choice([None, 1.0, 4.5])))
    log(shop, *impressions)
    shop.add_events(events)
    return impressions, events


def attribute(
    impressions: list[dict[str, Any]], events: list[Event], within: timedelta
) -> dict[tuple[str, str, str], list[Event]]:
    """The interactions of each shown item: (user, time, item)."""
    credited = defaultdict(list)
    for event in sorted(events, key=lambda one: one.at):
        before = [
            shown["shown_at"]
            for shown in impressions
            if shown["user_id"] == event.user
            and event.item in shown["item_ids"]
            and event.at - within < datetime.fromisoformat(shown["shown_at"]) <= event.at
        ]
        if before:
            credited[event.user, max(before), event.item].append(event)
    return credited


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("within", [timedelta(hours=1), DAY])
def test_an_interaction_counts_for_the_last_time_that_its_item_was_shown(
    shop: Shop, seed: int, within: timedelta
) -> None:
    impressions, events = traffic(shop, seed)
    credited = attribute(impressions, events, within)
    begin, end = NOON + timedelta(hours=6), NOON + timedelta(hours=50)
    expected = {
        (shown["user_id"], shown["shown_at"], item): credited.get((shown["user_id"], shown["shown_at"], item), [])
        for shown in impressions
        if begin <= datetime.fromisoformat(shown["shown_at"]) < end
        for item in shown["item_ids"]
    }
    rows = rows_of(shop, "attributed_impressions", "%s, %s, %s", begin, end, within)
    assert len(rows) == len(expected)
    assert any(expected.values())
    for row in rows:
        found = expected[row["user_id"], row["shown_at"].isoformat(), row["item_id"]]
        assert row["kinds"] == [event.kind for event in found]
        assert row["event_values"] == [event.value for event in found]
        assert row["first_at"] == (found[0].at if found else None)
        values = [event.value for event in found if event.value is not None]
        assert row["value"] == (pytest.approx(sum(values)) if values else None)
        weights = [
            (KINDS.get(event.kind or "", KINDS["*"])).weight * (1 if event.value is None else event.value)
            for event in found
        ]
        assert row["satisfaction"] == pytest.approx(sum(weights))


@pytest.mark.parametrize("by", ["model_version", "position", "surface", "day"])
def test_metrics_by_a_dimension(shop: Shop, by: str) -> None:
    traffic(shop, 7)
    begin, end = NOON - DAY, NOON + 5 * DAY
    groups = defaultdict(list)
    for row in rows_of(shop, "attributed_impressions", "%s, %s", begin, end):
        groups[row["shown_at"].date() if by == "day" else row[by]].append(row)
    found = rows_of(shop, "online_metrics", "%s, %s, array[%s], conversion_kinds => array['purchase']", begin, end, by)
    assert {row[by] for row in found} == groups.keys()
    for row in found:
        items = groups[row[by]]
        clicked = [bool(item["kinds"]) for item in items]
        bought = ["purchase" in item["kinds"] for item in items]
        assert (row["impressions"], row["users"]) == (len(items), len({item["user_id"] for item in items}))
        assert row["lists"] == len({item["list_id"] for item in items})
        assert row["click_through"] == pytest.approx(np.mean(clicked))
        assert row["conversion"] == pytest.approx(np.mean(bought))
        assert row["value_per_impression"] == pytest.approx(sum(item["value"] or 0 for item in items) / len(items))
        assert row["satisfaction"] == pytest.approx(sum(item["satisfaction"] for item in items) / row["lists"])
        values = [value for item in items for value in item["event_values"] if value is not None]
        assert row["mean_value"] == (pytest.approx(np.mean(values)) if values else None)
        assert row["click_through_error"] == pytest.approx(error(items, clicked))
        assert row["conversion_error"] == pytest.approx(error(items, bought))
        assert [row[name] for name in ("experiment", "arm")] == [None, None]


def test_satisfaction_by_weights_of_the_caller(shop: Shop) -> None:
    traffic(shop, 7)
    begin, end = NOON - DAY, NOON + 5 * DAY
    items = rows_of(shop, "attributed_impressions", "%s, %s", begin, end)
    lists = len({item["list_id"] for item in items})
    done = [kind for item in items for kind in item["kinds"]]
    assert {"purchase", "return", "other"} <= set(done)
    weights = {"purchase": 5, "return": -8.5, "*": 0.25}
    for given, expected in (
        (weights, sum(weights.get(kind, 0.25) for kind in done)),
        ({"view": 1}, done.count("view")),
        ({}, 0),
    ):
        (row,) = rows_of(shop, "online_metrics", "%s, %s, '{}', kind_weights => %s", begin, end, Jsonb(given))
        assert row["satisfaction"] == pytest.approx(expected / lists)
    for wrong in ({"view": "much"}, {"view": None}, {"view": 1e9}, ["view"]):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="kind_weights"):
            rows_of(shop, "online_metrics", "%s, %s, '{}', kind_weights => %s", begin, end, Jsonb(wrong))


def error(items: list[dict[str, Any]], hits: list[bool]) -> float:
    """The delta method for sum(hits) / sum(items) with users as units."""
    users = sorted({item["user_id"] for item in items})
    x = np.array([sum(item["user_id"] == user for item in items) for user in users], dtype=float)
    y = np.array([sum(hit for item, hit in zip(items, hits, strict=True) if item["user_id"] == user) for user in users])
    residuals = y - y.sum() / x.sum() * x
    return float(np.sqrt(len(users) * np.var(residuals, ddof=1)) / x.sum())


def test_a_list_is_logged_with_the_call_that_makes_it(shop: Shop) -> None:
    shop.add_events([Event("u1", "3", NOON, "view")])
    shop.drain()
    logged = shop.value(
        "select dynrec.log_impressions('shop', 'u1', array_agg(item_id order by rank), min(model_version), 'home') "
        "from dynrec.recommend('shop', 'u1', 5)"
    )
    assert logged == 1
    moment = shop.value("select shown_at from dynrec_data.impression")
    shown = [item for item, _, _ in shop.recommend("u1", k=5)]
    rows = rows_of(shop, "attributed_impressions", "%s, %s", moment, moment + DAY)
    assert [row["item_id"] for row in sorted(rows, key=lambda row: row["position"])] == shown
    assert {(row["model_version"], row["surface"], row["position"] in range(1, 6)) for row in rows} == {
        (1, "home", True)
    }


def test_partitions_and_retention(shop: Shop) -> None:
    now = shop.value("select now()")
    old = (now - timedelta(days=400)).isoformat()
    log(shop, {"user_id": "u", "item_ids": ["1"]}, {"user_id": "u", "item_ids": ["2"], "shown_at": old})
    shop.execute("select dynrec._ensure_history_partitions()")
    log(shop, {"user_id": "v", "item_ids": ["3"]})
    assert shop.value("select count(*) from dynrec_data.impression_default") == 1  # the old one
    shop.execute("select dynrec._forget_old_history()")
    assert shop.execute("select item_ids from dynrec_data.impression order by 1") == [(["1"],), (["3"],)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"item_ids": ["1"]}, "impression 2: user_id is missing"),
        ({"user_id": "u"}, "item_ids is not an array"),
        ({"user_id": "u", "item_ids": []}, "item_ids is not an array"),
        ({"user_id": "u", "item_ids": [None]}, "item_ids is not an array"),
        ({"user_id": "u", "item_ids": ["1"], "shown": 5}, "unknown field: 'shown'"),
        ({"user_id": "u", "item_ids": ["1"], "shown_at": "yesterday or so"}, "'yesterday or so'"),
        ({"user_id": "u", "item_ids": ["1"], "shown_at": "infinity"}, "'infinity'"),
        ({"user_id": "u", "item_ids": ["1"], "first_position": 0}, "first_position is out of range: '0'"),
        ({"user_id": "u", "item_ids": ["1"], "model_version": "new"}, "'new'"),
        ({"user_id": "u", "item_ids": ["1"], "arm": "b"}, "an arm without an experiment: 'b'"),
        ({"user_id": "u", "item_ids": ["1", "2"], "propensities": [0.5]}, "propensities"),
        ({"user_id": "u", "item_ids": ["1"], "propensities": [0]}, "propensities"),
        ({"user_id": "u", "item_ids": ["1"], "propensities": ["much"]}, "propensities"),
        (5, "impression 2: not a JSON object: '5'"),
    ],
    ids=str,
)
def test_one_wrong_impression_and_none_is_noted(shop: Shop, given: Any, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        log(shop, {"user_id": "u", "item_ids": ["1"]}, given)
    assert shop.value("select count(*) from dynrec_data.impression") == 0


def test_what_is_logged_need_not_be_known(shop: Shop) -> None:
    """Sessions have keys of their own, and items may be gone; nothing is lost for that."""
    assert log(shop, {"user_id": "session 5", "item_ids": ["not a number", 7], "propensities": [0.5, 1]}) == 1
    assert shop.execute("select user_id, item_ids, propensities from dynrec_data.impression") == [
        ("session 5", ["not a number", "7"], [0.5, 1.0])
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("now(), now()", "period"),
        ("null, now()", "null"),
        ("now() - interval '1 day', now(), within => '0'", "within is out of range"),
        ("now() - interval '1 day', now(), within => null", "within is out of range: null"),
    ],
)
def test_bad_periods(shop: Shop, arguments: str, message: str) -> None:
    for function in ("attributed_impressions", "online_metrics"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
            rows_of(shop, function, arguments)


def test_a_period_to_the_end_of_the_calendar(shop: Shop) -> None:
    log(shop, {"user_id": "u", "item_ids": ["1"], "shown_at": NOON.isoformat()})
    shop.add_events([Event("u", "1", NOON + timedelta(hours=1), "view")])
    (row,) = rows_of(shop, "attributed_impressions", "%s, '294276-12-31 23:00+00', '2 days'", NOON)
    assert row["kinds"] == ["view"]


def test_an_unknown_name_to_group_by(shop: Shop) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="'colour'"):
        rows_of(shop, "online_metrics", "now() - interval '1 day', now(), '{colour}'")
