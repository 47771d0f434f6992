"""Popularity beside the towers while they learn, so that they learn what it does not say.

Rates are looked up on a grid of moments, each example's at the last moment of the grid before its own. The weights are
thrown away in the end: those that serve are fitted to exact rates by ranking.py.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from workers.learning.data import Integers, Times, TrainingData
from workers.learning.popularity import HALF_LIVES, rates_at, relative
from workers.learning.ranking import ByContext

NUMBERS = 10_000_000  # in a grid, at most
MOMENTS = 200  # of it, at most


class Trend(nn.Module):
    """What popularity weighs in each context."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = ByContext([0.3])
        self.mixture = ByContext([0.0] * len(HALF_LIVES))  # before softmax

    def forward(self, rates: Tensor, context: Tensor) -> Tensor:
        """Return logits (B, N) of relative rates (B, half-lives, N)."""
        mixture = self.mixture().softmax(dim=0)[:, context].T  # (B, half-lives)
        mixed = torch.einsum("bkn,bk->bn", rates, mixture)
        logits: Tensor = mixed.log() * self.weight()[0, context][:, None]
        return logits


@dataclass(frozen=True)
class Trends:
    """Relative rates of all items on the grid."""

    moments: Times  # (G,)
    rates: Tensor  # (G, half-lives, items)

    @classmethod
    def of(cls, data: TrainingData) -> "Trends":
        """Compute the grid."""
        count = max(1, min(MOMENTS, NUMBERS // (len(HALF_LIVES) * max(len(data.items), 1))))
        end = len(data.occurred_at) - 1
        moments = data.occurred_at[np.linspace(0, end, count).astype(np.int64)] if end >= 0 else np.zeros(1)
        return cls(moments, torch.from_numpy(np.stack([relative(rates) for rates in rates_at(data, moments)])))

    def on(self, device: str) -> "Trends":
        """Return the same on a device."""
        return Trends(self.moments, self.rates.to(device))

    def logits(self, trend: Trend, moment: Times, item: Integers, context: Tensor) -> Tensor:
        """Return what popularity adds to the logits (B, N) of some items."""
        place = torch.from_numpy(np.searchsorted(self.moments, moment, side="right").clip(min=1) - 1)
        columns = torch.from_numpy(item).to(self.rates.device)
        rates = self.rates if len(item) == self.rates.shape[2] else self.rates[:, :, columns]
        logits: Tensor = trend(rates[place.to(self.rates.device)], context)
        return logits
