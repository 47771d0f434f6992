"""What cleaning leaves out, what it changes, what it finds twice, and that it counts all three."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from dynrec_store.models import Unusable
from tests.unit.learning.conftest import shop
from workers.learning.cleaning import Interactions, Row, clean, robust_bounds
from workers.learning.history import ValueScale

START = datetime(2024, 1, 1, tzinfo=UTC)
UNTIL = datetime(2024, 2, 1, tzinfo=UTC)


def row(
    user: str = "u", item: str = "i", kind: str | None = "buy", value: float | None = None, hours: float = 0.0
) -> Row:
    return user, item, kind, value, (START + timedelta(hours=hours)).timestamp()


def test_nothing_becomes_empty_arrays() -> None:
    interactions, report = clean([], UNTIL)
    assert [len(column) for column in (interactions.user, interactions.item, interactions.kind)] == [0, 0, 0]
    assert interactions.value.dtype == interactions.occurred_at.dtype == np.float64
    assert set(report.as_dict().values()) == {0}


def test_sound_interactions_stay_as_they_are() -> None:
    interactions, report = clean(iter([row(value=2.0), row("v", "j", None, None, 1.5)]), UNTIL)
    assert interactions.user.tolist() == ["u", "v"]
    assert interactions.item.tolist() == ["i", "j"]
    assert interactions.kind.tolist() == ["buy", "*"]
    np.testing.assert_array_equal(interactions.value, [2.0, np.nan])
    assert interactions.occurred_at.tolist() == [START.timestamp(), START.timestamp() + 5400]
    assert report.as_dict() == {
        "read": 2,
        "incomplete": 0,
        "impossible_times": 0,
        "duplicates": 0,
        "not_finite": 0,
        "clipped": 0,
        "kept": 2,
    }


def test_only_what_is_the_same_in_everything_is_a_duplicate() -> None:
    differing = [
        row(value=1.0),
        row("v", value=1.0),
        row(item="j", value=1.0),
        row(kind="view", value=1.0),
        row(kind=None, value=1.0),
        row(value=1.5),
        row(value=None),
        row(value=1.0, hours=1e-6),
    ]
    again = [row(value=None), row(value=1.0), row(value=1.0), row(kind=None, value=1.0)]
    interactions, report = clean(sorted(differing + again, key=lambda given: given[4]), UNTIL)
    assert len(interactions.user) == report.kept == len(differing) + len(again), "SQL counts them as well"
    assert report.duplicates == len(again)


def test_infinite_times_and_those_after_the_cut_off_are_impossible() -> None:
    late = ("u", "i", None, None, UNTIL.timestamp() + 1e-6)
    last = ("u", "i", None, None, UNTIL.timestamp())
    never = [("u", "i", None, None, moment) for moment in (np.nan, np.inf, -np.inf)]
    interactions, report = clean([row(), last, late, *never], UNTIL)
    assert interactions.occurred_at.tolist() == [START.timestamp(), UNTIL.timestamp()]
    assert (report.read, report.impossible_times, report.kept) == (6, 4, 2)


def test_what_happened_before_1970_did_happen() -> None:
    moments = [datetime(44, 3, 15, tzinfo=UTC).timestamp(), -60.0, 0.0]
    interactions, report = clean([("u", "i", None, None, moment) for moment in moments], UNTIL)
    assert interactions.occurred_at.tolist() == moments
    assert (report.impossible_times, report.kept) == (0, 3)


def test_what_happened_before_year_1_happened_at_its_beginning() -> None:
    interactions, report = clean([("u", "i", None, None, -7e10), row()], UNTIL)
    assert datetime.fromtimestamp(interactions.occurred_at[0], UTC) == datetime(1, 1, 1, tzinfo=UTC)
    assert report.kept == 2


def test_what_the_database_could_not_give_is_counted_as_well() -> None:
    _, report = clean(
        [row(), row(), row(value=np.inf, hours=1)], UNTIL, Unusable(incomplete=2, impossible_times=3, not_finite=1)
    )
    assert report.as_dict() == {
        "read": 8,
        "incomplete": 2,
        "impossible_times": 3,
        "duplicates": 1,
        "not_finite": 2,
        "clipped": 0,
        "kept": 3,
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.7e308])
def test_a_value_that_is_no_finite_number_is_forgotten_and_its_interaction_kept(value: float) -> None:
    interactions, report = clean([row(value=value), row(value=None, hours=1), row(value=3.0, hours=2)], UNTIL)
    np.testing.assert_array_equal(interactions.value, [np.nan, np.nan, 3.0])
    assert (report.not_finite, report.clipped, report.kept) == (1, 0, 3)


def test_outliers_are_clipped_beyond_what_makes_a_difference() -> None:
    """SQL reads values as they are, and cuts their standard scores: what cleaning clips has the same."""
    bought = [row(value=float(number % 10), hours=number) for number in range(100)]
    rated = [row(kind="rating", value=1000.0 + number % 10, hours=number) for number in range(100)]
    mistaken = [row(value=80_000.0, hours=200), row(kind="rating", value=-80_000.0, hours=201)]
    rows = sorted(bought + rated, key=lambda given: given[4]) + mistaken
    values = np.array([given[3] for given in rows], dtype=np.float64)
    interactions, report = clean(rows, UNTIL)
    low, high = robust_bounds(values)
    assert interactions.value[-2:].tolist() == [high, low]
    assert (report.clipped, report.kept) == (2, 202)
    given, bounded = values.astype(np.float32), interactions.value.astype(np.float32)
    scale = ValueScale.of(replace(shop(), value=bounded))
    np.testing.assert_array_equal(scale.standard(bounded), scale.standard(given))


def test_values_that_are_nearly_all_the_same_are_not_clipped() -> None:
    values = [1.0] * 99 + [50.0]
    interactions, report = clean([row(value=value, hours=hours) for hours, value in enumerate(values)], UNTIL)
    assert interactions.value.tolist() == values
    assert report.clipped == 0


def test_what_comes_in_any_order_leaves_in_that_of_time_and_ties_stay() -> None:
    interactions, _ = clean([row("late", hours=5), row("b", hours=1), row("a", hours=1)], UNTIL)
    assert interactions.user.tolist() == ["b", "a", "late"]


def test_cleaning_twice_changes_nothing_more() -> None:
    random = np.random.default_rng(0)
    rows = [
        row(f"u{random.integers(9)}", f"i{random.integers(9)}", value=float(random.lognormal(sigma=3)), hours=n / 10)
        for n in range(500)
    ]
    once, report = clean(rows + rows, UNTIL)
    assert (report.duplicates, report.kept) == (500, 1000)
    again, second = clean(as_rows(once), UNTIL)
    assert second.duplicates == report.duplicates
    assert second.impossible_times == second.not_finite == 0
    assert again.user.tolist() == once.user.tolist()


def as_rows(interactions: Interactions) -> list[Row]:
    return list(
        zip(
            interactions.user.tolist(),
            interactions.item.tolist(),
            interactions.kind.tolist(),
            interactions.value.tolist(),
            interactions.occurred_at.tolist(),
            strict=True,
        )
    )
