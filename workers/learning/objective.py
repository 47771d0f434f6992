"""What training minimises."""

import torch
from torch import Tensor

NEVER = -1e4  # logit of what cannot be recommended


def softmax_loss(
    logits: Tensor,  # (B, N)
    rivals: Tensor,  # (B, N): the same, corrected: NEVER for what is no rival, higher for those who stand for others
    row: Tensor,  # (targets,): example of each target
    column: Tensor,  # (targets,): its item
    weight: Tensor,  # (B,)
    *,
    power: float = 0.0,
) -> Tensor:
    """Return the mean over examples, weighted, of the mean over targets of -ln p, p being the softmax.

    With a `power` between 0 and 1 of (1 - p^power) / power instead, which is less the more of -ln p the higher the
    power: targets that are far from any list count for less (Zhang & Sabuncu, NeurIPS 2018; -ln p is its limit at 0),
    and the p that minimises it is the true one to the power of 1 / (1 - power).
    """
    count = torch.zeros_like(weight).index_add(0, row, torch.ones_like(row, dtype=weight.dtype))
    loss = rivals.logsumexp(dim=1)[row] - logits[row, column]
    if power:
        loss = -torch.expm1(-power * loss) / power
    return (loss * (weight / count.clamp(min=1))[row]).sum() / weight.sum()
