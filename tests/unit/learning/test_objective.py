"""The loss, against its formula."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from workers.learning.objective import softmax_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -8.0]])
ROW, COLUMN = torch.tensor([0, 0, 1]), torch.tensor([0, 2, 2])  # the last one is far from any list
WEIGHT = torch.tensor([1.0, 3.0])


def _loss(power: float, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    return softmax_loss(logits, logits, ROW, COLUMN, WEIGHT, power=power)


@pytest.mark.parametrize("power", [0.0, 0.2, 0.7])
def test_the_loss_is_its_formula(power: float) -> None:
    logp = log_softmax(LOGITS.numpy(), axis=1)[ROW, COLUMN]
    each = (1 - np.exp(power * logp)) / power if power else -logp
    assert _loss(power).item() == pytest.approx((each[:2].mean() + 3 * each[2]) / 4, rel=1e-5)


def test_a_hopeless_target_pulls_less() -> None:
    def pull(power: float) -> torch.Tensor:
        logits = LOGITS.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_loss(power, logits), logits)
        size: torch.Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return size

    near, far = pull(0.2) / pull(0.0)
    assert far < 0.2
    assert near > 0.6
