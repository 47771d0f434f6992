"""SASRec (Kang and McAuley, ICDM 2018, arXiv 1808.09781): self-attention over the last items, next item predicted.

Trained with sampled softmax, which is stronger than the paper's single negative (Klenitskiy and Vasilev, RecSys 2023).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.bench.quality.baselines.base import Data, Params
from workers.bench.quality.dataset import Floats, Ints
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Scorer

LENGTH = 50  # items of a history that are looked at
WIDTH = 64
HEADS, BLOCKS, DROPOUT = 2, 1, 0.2
NEGATIVES = 512  # items that each batch is compared with
BATCH, RATE = 64, 2e-3
EPOCHS = (4.0, 8.0)  # what is tuned


class Network(nn.Module):
    """Item 0 is padding."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.position = nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, WIDTH, DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, BLOCKS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        nn.init.normal_(self.item.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """From histories (B, LENGTH), padded on the left, to states (B, LENGTH, WIDTH)."""
        state = self.item(items) + self.position.weight
        later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        states: Tensor = self.blocks(functional.dropout(state, DROPOUT, self.training), mask=later)
        return states


@dataclass(frozen=True)
class Trained:
    """A network at rest."""

    data: Data
    network: Network

    @torch.inference_mode()
    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items); 0 where there is no history."""
        past = [self.data.histories.before(u, p)[-LENGTH:] for u, p in zip(cases.user, cases.position, strict=True)]
        rows = torch.from_numpy(np.array([_padded(self.data.log.item[events] + 1) for events in past]))
        known = torch.tensor([[len(events) > 0] for events in past])
        found = self.network(rows)[:, -1] @ self.network.item.weight[1:].T
        scores: Floats = torch.where(known, found, 0.0).numpy()
        return scores


class SASRec:
    """SASRec."""

    name = "SASRec"

    def __init__(self, data: Data, seed: int) -> None:
        self._data, self._seed = data, seed
        self._known: dict[tuple[Split, float], Trained] = {}

    def grid(self) -> Sequence[Params]:
        """Epochs: more overfit."""
        return [{"epochs": epochs} for epochs in EPOCHS]

    def fit(self, when: Split, params: Params) -> Scorer:
        """Train, keeping what there is after fewer epochs."""
        if (when, params["epochs"]) not in self._known:
            self._train(when)
        return self._known[when, params["epochs"]]

    def _train(self, when: Split) -> None:
        torch.manual_seed(self._seed)
        rng = np.random.default_rng(self._seed)
        network = Network(self._data.items)
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        sequences = _sequences(self._data, when)
        for epoch in range(1, int(max(EPOCHS)) + 1):
            network.train()
            for rows in _shuffled(sequences, rng):
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(_loss(network, rows))
                optimizer.step()
            if epoch in EPOCHS:
                self._known[when, float(epoch)] = Trained(self._data, _copy(network, self._data.items))


def _loss(network: Network, rows: Tensor) -> Tensor:
    """Cross-entropy of the next item, against items drawn for the batch."""
    inputs, targets = rows[:, :-1], rows[:, 1:]
    there = (targets > 0) & (inputs > 0)
    states, wanted = network(inputs)[there], targets[there]
    others = torch.randint(1, network.item.num_embeddings, (NEGATIVES,))
    own = (states * network.item(wanted)).sum(dim=1, keepdim=True)
    against = states @ network.item(others).T
    against = against.masked_fill(wanted[:, None] == others[None, :], -torch.inf)
    return functional.cross_entropy(torch.cat([own, against], dim=1), torch.zeros(len(wanted), dtype=torch.long))


def _sequences(data: Data, when: Split) -> Tensor:
    """Pieces (pieces, LENGTH + 1) of the histories, which overlap by one item; padded on the left."""
    pieces: list[Ints] = []
    for user in np.unique(data.log.user[: when.start]):
        items = data.log.item[data.histories.before(user, when.start)] + 1
        ends = range(len(items), 1, -LENGTH)
        pieces.extend(_padded(items[max(0, end - LENGTH - 1) : end], LENGTH + 1) for end in ends)
    return torch.from_numpy(np.array(pieces))


def _shuffled(sequences: Tensor, rng: np.random.Generator) -> Iterator[Tensor]:
    if len(sequences):  # split makes one empty piece of nothing
        yield from torch.split(sequences[torch.from_numpy(rng.permutation(len(sequences)))], BATCH)


def _padded(items: Ints, length: int = LENGTH) -> Ints:
    return np.pad(items, (length - len(items), 0))


def _copy(network: Network, items: int) -> Network:
    other = Network(items)
    other.load_state_dict(network.state_dict())
    return other.eval()
