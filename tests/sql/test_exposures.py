"""Who counts as exposed to an experiment, and since when."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dynrec_store import database
from tests.sql import lab as _lab
from tests.sql.lab import HOUR, Lab, create, log, shown
from tests.sql.shop import Shop

lab = _lab.lab


def test_a_list_that_was_shown_is_an_exposure(lab: Lab) -> None:
    experiment = lab.create("seen", [{"arm": "red"}, {"arm": "blue", "share": 2}], ago=HOUR, traffic=0.7)
    users = [f"seen {n}" for n in range(60)]
    before = lab.now()
    log(lab.shop, *({"user_id": user, "experiment": "seen"} for user in users))
    arms = {user: experiment.arm_of(user) for user in users}
    assert {*arms.values()} == {"red", "blue", None}
    for user, arm_name in arms.items():
        assert shown(lab.shop, user) == [("seen", arm_name) if arm_name else (None, None)]
    found = lab.exposures("seen")
    assert {user: ["red", "blue"][arm - 1] for user, (arm, _) in found.items()} == {u: a for u, a in arms.items() if a}
    assert all(before < moment < lab.now() for _, moment in found.values())
    # the arm may be said, if it is right; the other function and Python note the same
    inside = next(user for user, arm_name in arms.items() if arm_name == "blue")
    log(lab.shop, {"user_id": inside, "experiment": "seen", "arm": "blue"})
    single = "select dynrec.log_impressions('shop', %s, '{1}', experiment => 'seen', arm => 'blue')"
    assert lab.shop.value(single, [inside]) == 1
    assert shown(lab.shop, inside) == [("seen", "blue")] * 3
    assert lab.exposures("seen") == found


def test_a_wrong_arm_and_nothing_is_noted(lab: Lab) -> None:
    experiment = lab.create("wrong", traffic=0.5)
    users = [f"wrong {n}" for n in range(40)]
    right = {"user_id": next(user for user in users if experiment.arm_of(user)), "experiment": "wrong"}
    for user in users:
        arm_name = experiment.arm_of(user)
        for given in sorted({"red", "blue", "green", "Red", "red "} - {arm_name}):
            with pytest.raises(
                psycopg.errors.InvalidParameterValue, match=f"impression 2: at .* not in the arm: '{given}'"
            ):
                log(lab.shop, right, {"user_id": user, "experiment": "wrong", "arm": given})
    assert lab.exposures("wrong") == {}
    assert lab.shop.value("select count(*) from dynrec_data.impression where user_id like 'wrong %%'") == 0


def test_an_arm_without_a_name_is_a_wrong_arm(lab: Lab) -> None:
    experiment = lab.create("nameless", traffic=0.5)
    for user in [f"nameless {n}" for n in range(10)]:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not in the arm: ''"):
            log(lab.shop, {"user_id": user, "experiment": "nameless", "arm": ""})
    assert lab.exposures(experiment.name) == {}


def test_lists_outside_the_time_of_an_experiment_have_no_arm(lab: Lab) -> None:
    experiment = lab.create("timed", ago=HOUR)
    began = lab.now() - HOUR - timedelta(minutes=1)
    user = "timed 1"
    lists = [
        {"user_id": user, "experiment": "timed", "shown_at": began.isoformat()},
        {"user_id": user, "experiment": "timed"},
    ]
    log(lab.shop, *lists)
    lab.shop.execute("select dynrec.stop_experiment('shop', 'timed')")
    ended = lab.now()
    log(
        lab.shop,
        {"user_id": user, "experiment": "timed"},
        {"user_id": user, "experiment": "timed", "shown_at": (ended - HOUR / 2).isoformat()},
    )
    arm_name = experiment.arm_of(user)
    assert shown(lab.shop, user) == [(None, None), ("timed", arm_name), ("timed", arm_name), (None, None)]
    assert lab.exposures("timed")[user][1] == ended - HOUR / 2
    log(lab.shop, {"user_id": user, "experiment": "timed", "arm": arm_name})  # who has not heard of the end
    assert shown(lab.shop, user)[-1] == (None, None)


def test_who_logs_an_exposed_user_again_waits_for_nobody(shop: Shop, database_url: str) -> None:
    """Two transactions, the same two users in the other order: both were exposed before."""
    create(shop, "order")
    both = [{"user_id": user, "item_ids": ["1"], "experiment": "order"} for user in ("a", "b")]
    log(shop, *both)
    with database.connect(database_url) as first, database.connect(database_url) as second:
        for connection, lists in ((first, both), (second, both[::-1])):
            connection.execute("begin; set local lock_timeout = '5s'")
            connection.execute("select dynrec.log_impressions('shop', %s)", [Jsonb(lists)])
        second.execute("commit")
        first.execute("commit")
    assert len(shop.execute("select * from dynrec_data.impression where experiment = 'order'")) == 6


def test_who_is_forgotten_while_a_list_is_logged_is_forgotten_after(shop: Shop, database_url: str) -> None:
    create(shop, "late")
    with (
        database.connect(database_url) as writer,
        database.connect(database_url) as clerk,
        ThreadPoolExecutor(1) as pool,
    ):
        writer.execute("begin")
        writer.execute("select dynrec.log_impressions('shop', 'carol', '{1}', experiment => 'late')")
        answer = pool.submit(clerk.execute, "select dynrec.forget_user('shop', 'carol')")
        while not shop.value("select exists (select from pg_locks where not granted)"):
            assert not answer.done()
        writer.execute("commit")
        row: Any = answer.result().fetchone()
    receipt = row[0]
    assert receipt["removed"]["impressions"] == 1
    assert shop.value("select dynrec.verify_forgotten('shop', 'carol', %s)", [Jsonb(receipt)])


def test_the_first_list_is_the_exposure_in_whatever_order_lists_come(lab: Lab) -> None:
    """Eight connections note shuffled batches at the same time; some of their lists are of one user."""
    experiment = lab.create("order", ago=24 * HOUR)
    rng = random.Random(7)
    begin = lab.now() - 23 * HOUR
    lists = [
        {
            "user_id": f"order {rng.randrange(40)}",
            "experiment": "order",
            "shown_at": (begin + timedelta(seconds=rng.randrange(80_000))).isoformat(),
        }
        for _ in range(800)
    ]
    batches = [lists[n : n + 20] for n in range(0, len(lists), 20)]
    with ThreadPoolExecutor(8) as pool:
        assert (
            sum(
                pool.map(
                    lambda batch: lab.store.log_impressions("shop", [{"item_ids": [1]} | one for one in batch]), batches
                )
            )
            == 800
        )
    expected = {
        user: (
            1 + (experiment.arm_of(user) == "blue"),
            min(datetime.fromisoformat(one["shown_at"]) for one in lists if one["user_id"] == user),
        )
        for user in {one["user_id"] for one in lists}
    }
    assert lab.exposures("order") == expected
    lab.arms("log_exposure", experiment, list(expected))
    assert lab.exposures("order") == expected


def test_an_exposure_by_a_clock_that_is_ahead_gives_way_to_an_earlier_one(lab: Lab) -> None:
    experiment = lab.create("ahead")
    later = (lab.now() + HOUR).isoformat()
    log(lab.shop, *({"user_id": user, "experiment": "ahead", "shown_at": later} for user in ("ahead 1", "ahead 2")))
    log(lab.shop, {"user_id": "ahead 1", "experiment": "ahead"})
    lab.arms("log_exposure", experiment, ["ahead 2"])
    assert {user: moment <= lab.now() for user, (_, moment) in lab.exposures("ahead").items()} == {
        "ahead 1": True,
        "ahead 2": True,
    }


def test_who_joins_later_was_not_exposed_before(lab: Lab) -> None:
    """Lists from before traffic was raised, noted afterwards, were served as without the experiment."""
    experiment = lab.create("joins", traffic=0.001, ago=HOUR)
    user = next(user for user in (f"joins {n}" for n in range(99)) if experiment.arm_of(user) is None)
    moment = lab.now()
    lab.store.alter_experiment("shop", "joins", traffic=1)
    log(lab.shop, {"user_id": user, "experiment": "joins", "shown_at": moment.isoformat()})
    assert shown(lab.shop, user) == [(None, None)]
    assert lab.exposures("joins") == {}


def test_an_experiment_of_elsewhere_needs_an_arm(lab: Lab) -> None:
    given = {"user_id": "theirs", "experiment": "theirs"}
    before = lab.shop.value("select count(*) from dynrec_data.exposure")
    log(lab.shop, given | {"arm": "any"}, given | {"arm": ""})
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"impression 2: .* without an arm: 'theirs'"):
        log(lab.shop, given | {"arm": "any"}, given)
    assert shown(lab.shop, "theirs") == [("theirs", "any"), ("theirs", "")]
    assert lab.shop.value("select count(*) from dynrec_data.exposure") == before


def test_a_session_can_be_exposed_where_users_are_numbers(lab: Lab) -> None:
    lab.create("sessions", recommender="bigint", ago=timedelta(days=9))
    logged = lab.shop.value(
        "select dynrec.log_impressions('bigint', 'session 77', '{1}', experiment => 'sessions', arm => dynrec.experiment_arm('bigint', 'sessions', 'session 77'))"
    )
    assert logged == 1
    lab.shop.execute(
        "update dynrec_data.exposure set exposed_at = exposed_at - interval '8 days' where user_id = 'session 77'"
    )
    rows = lab.shop.execute(
        "select users from dynrec.experiment_results('bigint', 'sessions') where metric = 'conversion'"
    )
    assert sorted(rows) == [(0,), (1,)]
