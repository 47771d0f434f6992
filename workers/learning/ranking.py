"""The score of candidates: gated inner products, momentary popularity, cold items and repeats, with learned weights.

score = sum_h gate_h[x] <n_h, v> + sum_c gate_c[x] <n_c, p> + bias_weight[x] b
        + sum_p transition_p[x] * f_p                      what follows the last interactions, at each pace
        + popularity_weight[x] * ln(sum_k mixture_k[x] r_k) + sum_k power_k[x] ln r_k
                                                   or, for an item nobody has met, cold[x]
        + repeat_base[x] + repeat_count ln(1 + m) + repeat_recency ln(1 + days)   for an item that the user met

Everything but the inner products is fitted here, on what came after the period that the towers had learned from.
Shapes: B examples, K candidates, H heads (learned and content), P paces, X contexts.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from workers.learning.examples import CONTEXTS, COUNT_EDGES
from workers.learning.objective import NEVER, softmax_loss
from workers.learning.popularity import HALF_LIVES

STEPS = 60  # of L-BFGS
POWER = 0.2  # of the loss: what is far from any list need not be explained
CAUTION = 1e-3  # penalty that keeps contexts alike unless the examples say otherwise
FAITH = 1e-4  # penalty that keeps gates as they were trained: light, so that heads that foresee nothing fall silent
COUNTS = len(COUNT_EDGES) + 1


@dataclass(frozen=True)
class Candidates:
    """What is known of K candidates for each of B calls."""

    context: Tensor  # (B,)
    products: Tensor  # (B, K, H + 1): inner products with heads and bias, gated as trained
    following: Tensor  # (B, K, P): how much it follows the last interactions
    rates: Tensor  # (B, K, half-lives): relative popularity
    cold: Tensor  # (B, K): whether nobody has met it
    times_met: Tensor  # (B, K): by the user
    days_since: Tensor  # (B, K): since the user last met it
    allowed: Tensor  # (B, K): False for padding and what is not to be recommended
    target_row: Tensor
    target_column: Tensor
    weight: Tensor  # (B,)

    @cached_property
    def present(self) -> Tensor:
        """Return the rates (B, K, half-lives), above 0 also where padding has none."""
        return self.rates.clamp(min=1e-9)

    @cached_property
    def log_rates(self) -> Tensor:
        """Return their logarithms (B, K, half-lives)."""
        return self.present.log()

    @cached_property
    def met(self) -> Tensor | None:
        """Return which of them the user has met (B, K); None if there is none, in any of the calls."""
        met = self.times_met > 0
        return met if met.any() else None


class ByContext(nn.Module):
    """Numbers (n, X), one for all contexts plus one for the gap and one for the count."""

    def __init__(self, initial: list[float]) -> None:
        super().__init__()
        n = len(initial)
        self.base = nn.Parameter(torch.tensor(initial))
        self.gap = nn.Parameter(torch.zeros(n, CONTEXTS // COUNTS))
        self.count = nn.Parameter(torch.zeros(n, COUNTS))

    def forward(self) -> Tensor:
        """Return the table (n, X)."""
        return (self.base[:, None, None] + self.gap[:, :, None] + self.count[:, None, :]).flatten(1)

    def departure(self) -> Tensor:
        """Return how much contexts differ."""
        return self.gap.square().sum() + self.count.square().sum()


class Ranking(nn.Module):
    """The learned weights of the score; where it is not `personal`, neither heads nor transitions have a part in it."""

    personal: Tensor  # 1 or 0

    def __init__(self, heads: int, paces: int, *, personal: bool = True) -> None:
        super().__init__()
        self.register_buffer("personal", torch.tensor(float(personal)))
        self.gate = ByContext([0.0] * (heads + 1))  # logarithms of factors on the gates of the towers
        self.transition = ByContext([0.0] * paces)  # logarithms
        self.popularity = ByContext([0.3])
        self.mixture = ByContext([0.0] * len(HALF_LIVES))  # before softmax
        self.power = ByContext([0.0] * len(HALF_LIVES))  # of one sign and the other: what rises, what falls
        self.cold = ByContext([-1.0])
        self.repeat = ByContext([0.0])
        self.repeat_count = nn.Parameter(torch.zeros(()))
        self.repeat_recency = nn.Parameter(torch.zeros(()))

    def gates(self) -> Tensor:
        """Return factors (H + 1, X) on the gates of the towers, that of the bias last."""
        factors: Tensor = self.gate().exp()
        return torch.cat([factors[:-1] * self.personal, factors[-1:]])

    def transitions(self) -> Tensor:
        """Return the weights (P, X) of what follows the last interactions."""
        weights: Tensor = self.transition().exp()
        return weights * self.personal

    def forward(self, candidates: Candidates) -> Tensor:
        """Return scores (B, K)."""
        x = candidates.context
        gate = self.gates()[:, x].T  # (B, H + 1)
        score = torch.einsum("bkh,bh->bk", candidates.products, gate)
        score = score + torch.einsum("bkp,bp->bk", candidates.following, self.transitions()[:, x].T)
        mixture = self.mixture().softmax(dim=0)[:, x].T  # (B, half-lives)
        popularity = torch.einsum("bkr,br->bk", candidates.present, mixture).log() * self.popularity()[0, x][:, None]
        popularity = popularity + torch.einsum("bkr,br->bk", candidates.log_rates, self.power()[:, x].T)
        score = score + torch.where(candidates.cold, self.cold()[0, x][:, None], popularity)
        if candidates.met is not None:
            repeat = (
                self.repeat()[0, x][:, None]
                + self.repeat_count * candidates.times_met.log1p()
                + self.repeat_recency * candidates.days_since.log1p()
            )
            score = score + torch.where(candidates.met, repeat, 0.0)
        return score.masked_fill(~candidates.allowed, NEVER)

    def departure(self) -> Tensor:
        """Return the penalty for how much contexts differ, all weights together, and for how far they went."""
        tables = (self.gate, self.transition, self.popularity, self.mixture, self.power, self.cold, self.repeat)
        differing = torch.stack([table.departure() for table in tables]).sum() + self.power.base.square().sum()
        return CAUTION * differing + FAITH * (self.gate.base.square().sum() + self.transition.base.square().sum())


def fit_ranking(ranking: Ranking, candidates: Candidates) -> None:
    """Fit the weights to the candidates' targets.

    Where nothing tells how far a weight should go, such as that of items that nobody has met if none is a target, the
    search for a step can leave what a float holds: the weights are then those of the least loss that was seen.
    """
    weights = list(ranking.parameters())
    optimizer = torch.optim.LBFGS(weights, max_iter=STEPS, line_search_fn="strong_wolfe")
    least, kept = math.inf, parameters_to_vector(weights).detach().clone()

    def closure() -> Tensor:
        nonlocal least, kept
        optimizer.zero_grad()
        scores = ranking(candidates)
        target = candidates.target_row, candidates.target_column
        loss = softmax_loss(scores, scores, *target, candidates.weight, power=POWER) + ranking.departure()
        loss.backward()  # type: ignore[no-untyped-call]
        if loss.item() < least:
            least, kept = loss.item(), parameters_to_vector(weights).detach().clone()
        return loss

    try:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        vector_to_parameters(kept, weights)
    if not parameters_to_vector(weights).isfinite().all():
        vector_to_parameters(kept, weights)
