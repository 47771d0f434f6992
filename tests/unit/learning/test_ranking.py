"""What the fit of the ranking makes of heads that foresee something, and of those that do not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from workers.learning.objective import softmax_loss
from workers.learning.popularity import HALF_LIVES
from workers.learning.ranking import POWER, Candidates, Ranking, fit_ranking

CALLS, ITEMS = 1_000, 30
HEAD = 0  # the other product is that of the bias


def _calls(head: Tensor, likely: Tensor) -> Candidates:
    """Return calls whose one target each is drawn by how `likely` (calls, items) it is, as a logit."""
    target = likely.softmax(dim=1).multinomial(1)[:, 0]
    calls = torch.arange(CALLS)
    return Candidates(
        context=calls % 25,
        products=torch.stack([head, torch.zeros(CALLS, ITEMS)], dim=2),
        following=torch.zeros(CALLS, ITEMS, 1),
        rates=torch.ones(CALLS, ITEMS, len(HALF_LIVES)),
        cold=torch.zeros(CALLS, ITEMS, dtype=torch.bool),
        times_met=torch.zeros(CALLS, ITEMS),
        days_since=torch.zeros(CALLS, ITEMS),
        allowed=torch.ones(CALLS, ITEMS, dtype=torch.bool),
        target_row=calls,
        target_column=target,
        weight=torch.ones(CALLS),
    )


@pytest.mark.parametrize(("says", "heard"), [(True, 1 / (1 - POWER)), (False, 0.0)])  # the loss sharpens what is true
def test_a_head_is_heard_as_far_as_it_foresees_something(says: bool, heard: float) -> None:
    torch.manual_seed(0)
    head = torch.randn(CALLS, ITEMS) * 0.5
    ranking = Ranking(1, 1)
    fit_ranking(ranking, _calls(head, head if says else torch.zeros(CALLS, ITEMS)))
    assert ranking.gates()[HEAD].mean().item() == pytest.approx(heard, abs=0.15)


def _loss(ranking: Ranking, calls: Candidates) -> float:
    with torch.no_grad():
        scores = ranking(calls)
        target = calls.target_row, calls.target_column
        return float(softmax_loss(scores, scores, *target, calls.weight, power=POWER) + ranking.departure())


@pytest.mark.parametrize("overflows", [True, False])
def test_a_step_that_leaves_what_a_float_holds_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, *, overflows: bool
) -> None:
    torch.manual_seed(0)
    head = torch.randn(CALLS, ITEMS) * 0.5
    straight, led_astray = Ranking(1, 1), Ranking(1, 1)
    fit_ranking(straight, _calls(head, head))
    step = torch.optim.LBFGS.step

    def astray(optimizer: torch.optim.LBFGS, closure: Any) -> Any:
        step(optimizer, closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weights in optimizer.param_groups[0]["params"]:
                weights.add_(1e4) if overflows else weights.fill_(torch.nan)
        if overflows:
            raise RuntimeError("value cannot be converted to type float without overflow")

    monkeypatch.setattr(torch.optim.LBFGS, "step", astray)
    fit_ranking(led_astray, _calls(head, head))
    assert _loss(led_astray, _calls(head, head)) <= _loss(straight, _calls(head, head)) + 1e-4


def test_other_errors_of_the_fit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(_: torch.optim.LBFGS, __: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.LBFGS, "step", step)
    head = torch.zeros(CALLS, ITEMS)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_ranking(Ranking(1, 1), _calls(head, head))
