"""Experiments: who is in which arm, and what an arm is served."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest

from dynrec_store.exceptions import UnknownNameError
from tests.sql import lab as _lab
from tests.sql.lab import Lab, about

lab = _lab.lab


KEYS: dict[str, list[object]] = {
    "shop": ["", "ü", "u\u0308", "日本", "🙂", "a b", "'; --", "7", "007", " 7", "A\x1fB", *(f"u{n}" for n in range(2000))],
    "bigint": [*range(-500, 1500), 2**63 - 1, "session 5", ""],
    "uuid": [*(UUID(int=n**9) for n in range(2000)), "no uuid"],
}  # fmt: skip


@pytest.mark.parametrize("recommender", KEYS)
@pytest.mark.parametrize(("weights", "traffic"), [([1, 1], 1), ([1, 0.001, 30, 2], 0.37), (range(1, 21), 0.9)], ids=str)
def test_sql_and_python_agree_on_the_arm(lab: Lab, recommender: str, weights: Sequence[float], traffic: float) -> None:
    arms = [{"arm": f"ä {n}", "share": weight} for n, weight in enumerate(weights)]
    experiment = lab.create(f"agree {weights} {recommender} 'é'", arms, recommender, traffic=traffic)
    assert [arm.share for arm in experiment.arms] == pytest.approx([weight / sum(weights) for weight in weights])
    users = KEYS[recommender]
    expected = [experiment.arm_of(user) for user in users]
    assert (None in expected) == (traffic < 1)
    assert lab.arms("experiment_arm", experiment, users) == expected
    assert lab.arms("log_exposure", experiment, users) == expected
    places = {arm.name: place for place, arm in enumerate(experiment.arms, 1)}
    found = {user: arm for user, (arm, _) in lab.exposures(experiment.name).items()}
    assert found == {str(user): places[arm] for user, arm in zip(users, expected, strict=True) if arm is not None}


def test_keys_are_compared_as_their_source_writes_them(lab: Lab) -> None:
    whole, long = (lab.create("spelt", [{"arm": f"{n}"} for n in range(20)], key) for key in ("bigint", "uuid"))
    key = UUID(int=12**30)
    assert set(lab.arms("log_exposure", whole, ["7", "007", " 7", "+7"])) == {whole.arm_of(7)}
    assert set(lab.arms("log_exposure", long, [f"{{{str(key).upper()}}}", key.hex, key])) == {long.arm_of(key)}
    assert lab.exposures("spelt").keys() == {"7", str(key)}


def test_traffic_grows_and_nobody_moves(lab: Lab) -> None:
    users = [f"u{n}" for n in range(2000)]
    experiment = lab.create("grows", traffic=0.1)
    before = lab.arms("experiment_arm", experiment, users)
    for traffic in (0.1, 0.5, 1.0):
        lab.store.alter_experiment("shop", "grows", traffic=traffic)
        after = lab.arms("experiment_arm", experiment, users)
        assert after == [*map(lab.store.experiment("shop", "grows").arm_of, users)]
        assert {(a, b) for a, b in zip(before, after, strict=True) if a != b and a is not None} == set()
        before = after
    for wrong in (0.9, 0, 1.1, float("nan"), -1):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"(?i)traffic can only grow: '{wrong}'"):
            lab.shop.execute("select dynrec.alter_experiment('shop', 'grows', %s)", [wrong])
    assert lab.store.experiment("shop", "grows").traffic == 1


def test_nobody_has_an_arm_after_the_end(lab: Lab) -> None:
    experiment = lab.create("ends")
    plain = lab.answer("u1")
    for _ in range(2):
        lab.store.stop_experiment("shop", "ends")
        assert lab.arms("experiment_arm", experiment, ["u1", "u2"]) == [None, None]
        assert lab.arms("log_exposure", experiment, ["u1", "u2"]) == [None, None]
    assert lab.store.experiment("shop", "ends").arm_of("u1") is None
    assert lab.exposures("ends") == {}
    assert lab.answer("u1", experiment="ends") == about(plain)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the experiment has ended: 'ends'"):
        lab.shop.execute("select dynrec.alter_experiment('shop', 'ends', 1)")


def test_an_arm_is_served_as_it_says(lab: Lab) -> None:
    """Whatever the call says besides; and as of a moment as it was then."""
    given: dict[str, dict[str, Any]] = {
        "plain": {},
        "deep": {"by_model": lab.model},
        "mixed": {"diversity": 0.8},
        "again": {"exclude_seen": False},
        "all": {"by_model": lab.model, "diversity": 0.4, "exclude_seen": False},
    }
    before = lab.now()
    arms = [{"arm": n} | {k.replace("by_model", "model_version"): v for k, v in a.items()} for n, a in given.items()]
    experiment = lab.create("served", arms, traffic=0.8)
    users = [f"u{n}" for n in range(24)]
    during = lab.now()
    assert {experiment.arm_of(user) for user in users} == {*given, None}
    for call in ({}, {"diversity": 0.5}, {"exclude_seen": True, "filter": "price > 2"}, {"as_of": during}):
        for user in users:
            wanted = call | given.get(experiment.arm_of(user) or "", {})
            assert lab.answer(user, experiment="served", **call) == about(lab.answer(user, **wanted))
    lab.shop.execute("select dynrec.stop_experiment('shop', 'served')")
    for user in users:
        for moment in (before, lab.now()):
            assert lab.answer(user, experiment="served", as_of=moment) == about(lab.answer(user, as_of=moment))
        wanted = given.get(experiment.arm_of(user) or "", {})
        assert lab.answer(user, experiment="served", as_of=during) == about(lab.answer(user, as_of=during, **wanted))


def test_what_recommend_refuses(lab: Lab) -> None:
    lab.create("refuses")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"by_model and experiment .*: '{lab.model}'"):
        lab.answer("u1", experiment="refuses", by_model=lab.model)
    with pytest.raises(psycopg.errors.UndefinedObject, match="no experiment named 'colour'") as caught:
        lab.answer("u1", experiment="colour")
    assert "'refuses'" in (caught.value.diag.message_hint or "")
    with pytest.raises(UnknownNameError, match="'colour'"):
        lab.store.experiment("shop", "colour")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="user_id is missing"):
        lab.shop.execute("select * from dynrec.recommend('shop', null, experiment => 'refuses')")
