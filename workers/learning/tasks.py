"""Further heads that learn beside the ranking and share its towers: the value of what comes, and its category.

They are off unless their weights in Settings say otherwise, and no part of what serves.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.learning.settings import Settings
from workers.learning.towers import Shape


class Tasks(nn.Module):
    """Linear heads on the user's query and the target's vector."""

    def __init__(self, shape: Shape, settings: Settings) -> None:
        super().__init__()
        categories = shape.code_sizes[0] if shape.code_sizes else 1
        self.weights = settings.value_task, settings.category_task
        self.value = nn.Parameter(torch.zeros(settings.learned))
        self.value_base = nn.Parameter(torch.zeros(()))
        self.category = nn.Parameter(torch.zeros(settings.learned, categories))
        self.category_base = nn.Parameter(torch.zeros(categories))

    def forward(
        self,
        query: Tensor,  # (targets, d): of each target's user
        item: Tensor,  # (targets, d)
        value: Tensor,  # (targets,): standard scores, NaN where there is none
        code: Tensor | None,  # (targets,): of the first label, None where items have no labels; 0: unknown
    ) -> Tensor:
        """Return the weighted losses: squared error of values, cross-entropy of categories, where they are known."""
        loss = query.new_zeros(())
        of_value, of_category = self.weights
        if of_value and (known := value.isfinite()).any():
            guess = (query * item)[known] @ self.value + self.value_base
            loss = loss + of_value * functional.mse_loss(guess, value[known])
        if of_category and code is not None and (known := code > 0).any():
            guess = query[known] @ self.category + self.category_base
            loss = loss + of_category * functional.cross_entropy(guess, code[known])
        return loss
