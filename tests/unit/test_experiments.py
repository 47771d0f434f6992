"""Who is in which arm, as Python says it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from uuid import UUID

import numpy as np
import pytest
from scipy import stats

from dynrec_store.experiments import UNITS, Arm, Experiment

USERS = [f"u{n}" for n in range(20_000)]


def make(
    weights: Sequence[float], traffic: float = 1.0, name: str = "colours", recommender: str = "shop"
) -> Experiment:
    """An experiment with arms of these weights, named by their places."""
    shares = [weight / sum(weights) for weight in weights]
    bounds = [*list(accumulate(shares))[:-1], 1.0]
    arms = [Arm(f"arm {n}", shares[n], bounds[n], None) for n in range(len(weights))]
    return Experiment(recommender, name, traffic, arms, None)


def numbers(experiment: Experiment, users: Sequence[object] = USERS) -> np.ndarray:
    """The place of each user's arm, -1 for who does not take part."""
    places: dict[str | None, int] = {arm.name: place for place, arm in enumerate(experiment.arms)}
    places[None] = -1
    return np.array([places[experiment.arm_of(user)] for user in users])


@pytest.mark.parametrize(
    "weights", [[1, 1], [1, 99], [1, 2, 3, 4], [1.0] * 20, [0.001, 1, 1], [5, 0.5, 0.25] * 5], ids=str
)
@pytest.mark.parametrize("traffic", [1.0, 0.3])
def test_users_fall_to_arms_by_their_shares(weights: list[float], traffic: float) -> None:
    """The counts of a few experiments together; the bounds are for two dozen looks at chance."""
    experiments = [make(weights, traffic, f"{weights} of {traffic} {n}") for n in range(5)]
    found = np.concatenate([numbers(experiment, USERS[:8000]) for experiment in experiments])
    counts = np.array([(found == place).sum() for place in range(len(weights))])
    expected = [arm.share * counts.sum() for arm in experiments[0].arms]
    assert stats.chisquare(counts, expected).pvalue > 0.0001
    assert stats.binomtest(int(counts.sum()), len(found), traffic).pvalue > 0.0001


def test_more_traffic_moves_nobody_who_takes_part() -> None:
    experiment = make([1, 2, 3, 0.5], 0.05)
    before = numbers(experiment)
    for traffic in (0.1, 0.11, 0.5, 0.999, 1.0):
        after = numbers(replace(experiment, traffic=traffic))
        assert (after[before >= 0] == before[before >= 0]).all()
        assert (after >= 0).sum() > (before >= 0).sum()
        before = after
    assert (before >= 0).all()


@pytest.mark.parametrize(
    "other",
    [
        make([1, 1], name="colours 2"),
        make([1, 1], name="colour"),
        make([1, 1], name="u"),
        make([1, 1], recommender="shop2"),
    ],
    ids=lambda experiment: f"{experiment.recommender} {experiment.name}",
)
def test_experiments_do_not_know_of_each_other(other: Experiment) -> None:
    table = np.zeros((2, 2))
    np.add.at(table, (numbers(make([1, 1])), numbers(other)), 1)
    assert stats.chi2_contingency(table).pvalue > 0.001
    assert abs(np.corrcoef(numbers(make([1, 1])), numbers(other))[0, 1]) < 0.025


def test_who_takes_part_does_not_depend_on_the_place() -> None:
    """Within those who take part the shares hold, and so they do among those who do not yet."""
    arms = numbers(make([1, 1, 1]))
    taking_part = numbers(make([1, 1, 1], 0.4)) >= 0
    table = [[int((arms[taking_part == flag] == place).sum()) for place in range(3)] for flag in (True, False)]
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_keys_of_any_type_are_those_of_their_text() -> None:
    experiment = make([1] * 20)
    key = UUID("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")
    assert experiment.arm_of(key) == experiment.arm_of("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
    assert [experiment.arm_of(n) for n in range(-50, 50)] == [experiment.arm_of(str(n)) for n in range(-50, 50)]
    assert len({experiment.arm_of(n) for n in range(200)}) == 20
    assert any(experiment.arm_of(f"00{n}") != experiment.arm_of(n) for n in range(10))


def test_the_draw_is_the_sha_256_of_utf_8() -> None:
    """By whole numbers: the first 104 bits of the digest, of which Experiment makes two fractions."""
    experiment = make([3, 1, 4, 1, 5], 0.7)
    users = ["", "ü", "u\u0308", "日本", "🙂", "a\x1fb", " 7", "'; --", *map(str, range(2000))]
    for user in users:
        whole = int.from_bytes(hashlib.sha256(f"shop\x1fcolours\x1f{user}".encode()).digest()[:13], "big")
        participation, place = whole // UNITS / UNITS, whole % UNITS / UNITS
        inside = [arm.name for arm in experiment.arms if place < arm.upper_bound]
        assert experiment.arm_of(user) == (inside[0] if participation < 0.7 else None)


def test_known_draws() -> None:
    """Fixed for ever: users must not change arms with a release."""
    experiment = make([1] * 10)
    assert [*map(experiment.arm_of, USERS[:24])] == [f"arm {place}" for place in "193820005493371446415519"]


def test_nobody_has_an_arm_after_the_end() -> None:
    ended = replace(make([1, 1]), ended_at=datetime(2024, 3, 1, tzinfo=UTC))
    assert {ended.arm_of(user) for user in USERS[:100]} == {None}
