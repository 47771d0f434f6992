"""The arithmetic of a figure, and the order in which a thing and its reference are run."""

import pytest

from workers.bench.measure import Figure, in_turn, medians_in_turn, p99, timed_in_turn


def figure(*, target: float | None, higher_is_better: bool) -> Figure:
    return Figure("name", "about", (9.0, 20.0, 10.0), (10.0, 10.0, 10.0), "ms", higher_is_better, target)


def test_ratio_is_the_median_of_the_ratios() -> None:
    assert figure(target=None, higher_is_better=True).ratio == 1.0


@pytest.mark.parametrize(
    ("target", "higher_is_better", "met"),
    [
        (0.9, True, True),
        (1.1, True, False),
        (1.1, False, True),
        (0.9, False, False),
        (1.0, True, True),
        (None, True, None),
    ],
)
def test_met_knows_both_directions(target: float | None, higher_is_better: bool, met: bool | None) -> None:
    assert figure(target=target, higher_is_better=higher_is_better).met is met


def test_taken_in_turn_and_told_apart() -> None:
    order: list[str] = []

    def run(name: str, value: float) -> float:
        order.append(name)
        return value

    taken = in_turn(3, lambda: run("ours", 1.0), lambda: run("theirs", 2.0), lambda: order.append("|"))
    assert order == ["ours", "theirs", "|", "theirs", "ours", "|", "ours", "theirs", "|"]
    assert taken == ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))


def test_short_calls_alternate_with_their_reference() -> None:
    order: list[str] = []
    calls = [(lambda: order.append("ours"), lambda: order.append("theirs"))] * 2
    ours, theirs = medians_in_turn(1, calls, lambda: order.append("|"))
    assert order == ["ours", "theirs", "theirs", "ours", "|"]
    assert len(ours) == len(theirs) == 1


def test_calls_that_say_their_own_seconds_are_believed() -> None:
    taken = timed_in_turn(2, [(lambda: 0.001, lambda: 0.004), (lambda: 0.003, lambda: 0.004)], lambda: None)
    assert taken == ((2.0, 2.0), (4.0, 4.0))


def test_short_calls_take_turns_with_all_their_references() -> None:
    order: list[str] = []
    calls = [[lambda: order.append("a"), lambda: order.append("b"), lambda: order.append("c")]] * 3
    medians = medians_in_turn(2, calls, lambda: order.append("|"))
    assert "".join(order) == "abcbcacab|" * 2
    assert [len(values) for values in medians] == [2, 2, 2]


def test_p99_of_few_is_the_largest() -> None:
    assert p99([3.0, 1.0, 2.0]) == 3.0
    assert p99([float(n) for n in range(200)]) == 198.0
