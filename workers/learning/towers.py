"""The two towers: items to vectors, and histories of interactions to queries that meet them in an inner product.

Shapes: B examples, N items, M interactions in the histories of a batch, H learned heads, C content heads, d learned,
p content, X contexts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.learning.examples import CONTEXTS
from workers.learning.settings import Settings

LEAST_FACTOR = 0.05  # a value, however low, leaves an interaction this much
NUMBERS_SPREAD = 0.1  # of the map from numbers at the start
SPREAD = 2.0  # values further than this many scales from the mean count as that far


@dataclass(frozen=True)
class Shape:
    """What fixes the sizes of the parameters."""

    items: int
    kinds: int
    encoder: int  # dimension of the encoder's vectors
    code_sizes: tuple[int, ...] = ()  # number of codes of each label, 0 (unknown) included
    numbers: int = 0


class ItemVectors(nn.Module):
    """What some items are: the rows of `item` (N, d), `context` (N, d), `content` (N, p) and `bias` (N,)."""

    def __init__(self, item: Tensor, context: Tensor, content: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.item, self.context, self.content, self.bias = item, context, content, bias

    def rows(self, chosen: Tensor) -> "ItemVectors":
        """Return some of them."""
        return ItemVectors(self.item[chosen], self.context[chosen], self.content[chosen], self.bias[chosen])


class ItemTower(nn.Module):
    """Content, labels, numbers and identity of items, added up.

    An item that nobody met has identity zero: the same that training shows in place of some met items.
    """

    mean: Tensor  # (encoder,)
    components: Tensor  # (encoder, p)
    numbers_bias: Tensor  # (F,): zero but in models of before

    def __init__(self, shape: Shape, settings: Settings) -> None:
        super().__init__()
        d, p = settings.learned, settings.content
        self.register_buffer("mean", torch.zeros(shape.encoder))
        self.register_buffer("components", torch.zeros(shape.encoder, p))
        self.content_item = nn.Parameter(torch.zeros(p, d))
        self.content_context = nn.Parameter(torch.zeros(p, d))
        self.content_bias = nn.Parameter(torch.zeros(p))
        self.identity_item = nn.Parameter(torch.zeros(shape.items, d))
        self.identity_context = nn.Parameter(torch.zeros(shape.items, d))
        self.identity_bias = nn.Parameter(torch.zeros(shape.items))
        self.label_item = nn.ParameterList(torch.zeros(size, d) for size in shape.code_sizes)
        self.label_context = nn.ParameterList(torch.zeros(size, d) for size in shape.code_sizes)
        self.label_bias = nn.ParameterList(torch.zeros(size) for size in shape.code_sizes)
        # not zero as the rest: two factors of zero would have no gradient
        self.numbers_in = nn.Parameter(torch.randn(shape.numbers, settings.numbers_rank) * NUMBERS_SPREAD)
        self.numbers_out = nn.Parameter(torch.zeros(settings.numbers_rank, d))
        # Not learned: counts grow and items age beyond what training saw, and a bias would move by that alone. How
        # popular an item is, the ranking is told at each call.
        self.register_buffer("numbers_bias", torch.zeros(shape.numbers))

    def project(self, encoded: Tensor) -> Tensor:
        """Return the content components (N, p) of encoder vectors, of length 1 or zero where the vector is zero."""
        known = encoded.abs().sum(dim=1, keepdim=True) > 0
        return functional.normalize((encoded - self.mean) @ self.components, dim=1) * known

    def forward(
        self,
        content: Tensor,  # (N, p), as project() gives it
        codes: Tensor,  # (N, labels)
        numbers: Tensor | None,  # (N, F)
        rows: Tensor,  # (N,): rows of the identities
        identity: Tensor,  # (N,): 1, or 0 for an item that is to be nobody's
    ) -> ItemVectors:
        """Return the vectors of N items."""
        item = content @ self.content_item + self.identity_item[rows] * identity[:, None]  # (N, d)
        context = content @ self.content_context + self.identity_context[rows] * identity[:, None]  # (N, d)
        bias = content @ self.content_bias + self.identity_bias[rows] * identity  # (N,)
        for column, (of_item, of_context, of_bias) in enumerate(
            zip(self.label_item, self.label_context, self.label_bias, strict=True)
        ):
            code = codes[:, column]
            item, context, bias = item + of_item[code], context + of_context[code], bias + of_bias[code]
        if numbers is not None:
            item = item + numbers @ self.numbers_in @ self.numbers_out
            bias = bias + numbers @ self.numbers_bias
        return ItemVectors(item, context, content, bias)


@dataclass(frozen=True)
class HistoryBatch:
    """The interactions of B users, one user after the other."""

    item: Tensor  # (M,): rows of ItemVectors
    kind: Tensor  # (M,)
    value: Tensor  # (M,): standard scores, clipped; NaN where there is none
    lag: Tensor  # (M,): how many turns the user had after it
    scale: Tensor  # (M,): how many interactions it stands for
    row: Tensor  # (M,): whose it is
    first: Tensor  # (B,): where each user's begin
    context: Tensor  # (B,): number of the call's context

    def to(self, device: torch.device) -> "HistoryBatch":
        """Return the same on a device."""
        return HistoryBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class UserState:
    """All that is kept of a user: weighted sums of contexts, sums of weights, head by head, and the last time."""

    sums: tuple[Tensor, ...]  # H times (d,), then C times (p,)
    weights: Tensor  # (H + C,)
    last_at: float = float("-inf")
    count: int = 0


class UserTower(nn.Module):
    """Heads that each forget at a pace of their own.

    For head h: S_h = sum of w * decay_h^lag * context, W_h = sum of |w| * decay_h^lag over the history;
    n_h = S_h / sqrt(W_h), for a content head S_h / |S_h|; the query is the sum of gate_h[x] * n_h.
    """

    decays: Tensor  # (H + C,)

    def __init__(self, shape: Shape, settings: Settings) -> None:
        super().__init__()
        self.register_buffer("decays", torch.tensor(settings.head_decays))
        heads, d, self.content = len(settings.decays), settings.learned, settings.content
        self.turning = nn.Parameter(torch.zeros(heads, d, d))  # T_h: a head sees contexts through I + T_h
        gates = torch.ones(len(self.decays) + 1)  # heads, bias
        gates[heads + 1 : -1] = 0  # of content a slow head at the start, and faster ones where they turn out to help
        self.gate_base = nn.Parameter(gates)
        self.gate_context = nn.Parameter(torch.zeros(len(self.decays) + 1, CONTEXTS))
        self.kind_weight = nn.Parameter(torch.ones(shape.kinds))
        self.value_slope = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(settings.dropout)

    def gates(self) -> Tensor:
        """Return the gates (H + C + 1, X) of the heads and of bias."""
        return self.gate_base[:, None] + self.gate_context

    def interaction_weights(self, kind: Tensor, value: Tensor) -> Tensor:
        """Return what interactions (M,) weigh when they are new."""
        factor = (1 + self.value_slope * value.nan_to_num(0.0)).clamp(min=LEAST_FACTOR)
        return self.kind_weight[kind] * factor

    def head_contexts(self, items: ItemVectors) -> list[Tensor]:
        """Return what items add to heads: H times (N, d), then (N, p), which is the same for each content head."""
        return [*(items.context + items.context @ turn for turn in self.turning), items.content]

    def full_pass(self, items: ItemVectors, batch: HistoryBatch) -> list[Tensor]:
        """Return each head's normalised sum for B users: H times (B, d), then C times (B, p)."""
        weight = self.interaction_weights(batch.kind, batch.value) * batch.scale  # (M,)
        sums, totals = [], []
        for head, decay in enumerate(self.decays):
            decayed = weight * decay**batch.lag  # (M,)
            table = items.context if head < len(self.turning) else items.content
            sums.append(_bags(table, batch, decayed))
            totals.append(decayed.new_zeros(len(batch.first)).index_add(0, batch.row, decayed.abs()))
        heads = len(self.turning)
        learned = [total + total @ turn for total, turn in zip(sums[:heads], self.turning, strict=True)]
        return normalised(learned, totals, sums[heads:])

    def queries(self, heads: list[Tensor], context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the parts of the queries that meet item (B, d), content (B, p) and bias (B,)."""
        gate = self.gates()[:, context]  # (H + C + 1, B)
        gated = [g[:, None] * head for g, head in zip(gate, heads, strict=False)]
        learned, content = gated[: len(self.turning)], gated[len(self.turning) :]
        return self.dropout(torch.stack(learned).sum(dim=0)), torch.stack(content).sum(dim=0), gate[-1]

    def fresh(self) -> UserState:
        """Return the state of a user without interactions."""
        heads, d, _ = self.turning.shape
        sums = [*torch.zeros(heads, d), *torch.zeros(len(self.decays) - heads, self.content)]
        return UserState(tuple(sums), torch.zeros(len(self.decays)))

    def update(self, state: UserState, contexts: list[Tensor], weight: float, moment: float) -> UserState:
        """Return the state after an interaction at `moment`, not before the last, with an item of these contexts.

        A new time is a new turn and lets everything before it fade; one at the last time joins its turn. The contexts
        are those of head_contexts(), one row each.
        """
        fade = self.decays if moment > state.last_at else torch.ones_like(self.decays)
        added = contexts + contexts[-1:] * (len(state.sums) - len(contexts))
        sums = tuple(f * s + weight * c for f, s, c in zip(fade, state.sums, added, strict=True))
        return UserState(sums, fade * state.weights + abs(weight), moment, state.count + 1)


def normalised(learned: list[Tensor], weights: list[Tensor], content: list[Tensor]) -> list[Tensor]:
    """Divide the sums of learned heads by the root of their weights and those of content heads by their lengths."""
    by_weight = [s / w.clamp(min=1e-12).sqrt()[..., None] for s, w in zip(learned, weights, strict=False)]
    return [*by_weight, *(functional.normalize(s, dim=-1) for s in content)]


def _bags(table: Tensor, batch: HistoryBatch, weight: Tensor) -> Tensor:
    return functional.embedding_bag(batch.item, table, batch.first, mode="sum", per_sample_weights=weight)
