"""Which values hyper-parameters can have, and what is said of others."""

import math
import re
from dataclasses import fields

import pytest

from dynrec_store.exceptions import ConfigurationError
from workers.learning.settings import Settings, training_settings

WHOLE: dict[str, tuple[int, int]] = {
    "learned": (1, 1_998),
    "content": (1, 1_998),
    "numbers_rank": (1, 1_000),
    "recent": (1, 10**9),
    "older": (0, 100_000),
    "epochs": (1, 1_000),
    "patience": (1, 1_000),
    "batch": (1, 1_000_000),
    "examples": (1, 10**9),
    "snapshots": (1, 10_000),
    "full_softmax": (0, 1_000_000),
    "negatives": (1, 1_000_000),
    "ease_items": (0, 100_000),
    "transition_items": (0, 100_000),
    "transition_neighbours": (1, 1_000),
    "transition_examples": (1, 10**9),
    "companions": (0, 10_000),
    "fewest_interactions": (1, 10**9),
    "fewest_examples": (1, 10**9),
    "continued_epochs": (1, 1_000),
    "validated": (1, 10**9),
    "candidates": (1, 1_000),
    "seed": (0, 2**63 - 1),
}
NUMBERS: dict[str, tuple[float, float]] = {
    "identity_dropout": (0, 0.99),
    "dropout": (0, 0.99),
    "history_dropout": (0, 0.99),
    "rate": (1e-9, 1),
    "averaging": (0, 0.99999),
    "pull": (0, 100),
    "recency": (0, 100),
    "validation": (0.001, 0.5),
    "value_task": (0, 100),
    "category_task": (0, 100),
    "ease_penalty": (0.001, 1e9),
    "transition_penalty": (0.001, 1e9),
    "exploration": (0, 1),
}
LISTS: dict[str, tuple[int, int, float, float]] = {  # fewest and most numbers, lowest and highest
    "decays": (1, 9, 0.001, 1),
    "content_decays": (1, 9, 0.001, 1),
    "transition_decays": (0, 8, 0.001, 0.99),
}
REFUSED: list[tuple[str, object]] = [
    *((name, value) for name, (low, high) in WHOLE.items() for value in (low - 1, high + 1, 1.5, "many", True, None)),
    *(
        (name, value)
        for name, (low, high) in NUMBERS.items()
        for value in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), math.nan, "much", True)
    ),
    *((name, 0.5) for name in LISTS),
]
# the sums of these are limited as well
BESIDE: dict[str, dict[str, object]] = {
    "learned": {"content": 1},
    "content": {"learned": 1},
    "decays": {"content_decays": [1]},
    "content_decays": {"decays": [1]},
}


def test_every_field_has_a_range() -> None:
    assert {*WHOLE, *NUMBERS, *LISTS} == {field.name for field in fields(Settings)}


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_with_the_range(name: str, value: object) -> None:
    low, high = WHOLE.get(name) or [f"{end:g}" for end in NUMBERS.get(name) or LISTS[name][2:]]
    said = re.escape(f"training option {name} cannot be {value!r}: give"), re.escape(f"from {low} to {high}")
    with pytest.raises(ConfigurationError, match="^{} .*{}".format(*said)):
        training_settings({name: value})


@pytest.mark.parametrize("name", LISTS)
def test_lists_have_no_more_and_no_other_numbers(name: str) -> None:
    fewest, most, low, high = LISTS[name]
    given = f"give a list of {fewest} to {most} numbers from {low} to {high}"
    for numbers in ([low] * (most + 1), [low] * (fewest - 1) if fewest else None, [high, high + 0.001], [low, low / 2]):
        with pytest.raises(ConfigurationError, match=f"^training option {name} cannot be .*: {given}$"):
            training_settings({name: numbers})


@pytest.mark.parametrize("name", [*WHOLE, *NUMBERS, *LISTS])
def test_the_ends_of_a_range_can_be_used(name: str) -> None:
    for end in ends(name):
        assert getattr(training_settings({name: end, **BESIDE.get(name, {})}), name) == end


def ends(name: str) -> list[object]:
    if name not in LISTS:
        return list((WHOLE | NUMBERS)[name])
    fewest, most, low, high = LISTS[name]
    return [(low,) * fewest, (high,) * most]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learned": 1_900, "content": 100}, "learned and content cannot be 1900 and 100: .* add up to 1999 at most"),
        ({"decays": [0.5] * 9}, r"decays and content_decays cannot be \[0.5, .*\] and \[0.93, 0.3\]: give 10 numbers"),
    ],
)
def test_what_is_too_much_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        training_settings(options)


def test_what_is_not_given_is_that_of_the_base() -> None:
    base = Settings(epochs=7, decays=(0.8,))
    assert training_settings({"seed": 3, "promote": True, "features": {}}, base) == Settings(
        epochs=7, decays=(0.8,), seed=3
    )
