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
) -> Tensor:
    """Return the mean over examples, weighted, of the mean over targets of -log softmax."""
    count = torch.zeros_like(weight).index_add(0, row, torch.ones_like(row, dtype=weight.dtype))
    loss = rivals.logsumexp(dim=1)[row] - logits[row, column]
    return (loss * (weight / count.clamp(min=1))[row]).sum() / weight.sum()
