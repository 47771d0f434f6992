"""What the database stores of an item: its embedding, what it adds to each head of a user, and what follows it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dynrec_store.models import Transition
from workers.learning.artefact import Model
from workers.learning.data import Floats, Integers


@dataclass(frozen=True)
class Derived:
    """Vectors of n items."""

    embeddings: Floats  # (n, learned + content + 1)
    contexts: tuple[Floats, ...]  # each learned head's (n, learned), then the content head's (n, content)


class ItemServer:
    """Computes the vectors of any items, known to training or not. An item's do not depend on others in the batch."""

    def __init__(self, model: Model) -> None:
        self._towers = model.towers()
        self._rows = {item: row for row, (item, met) in enumerate(zip(model.items, model.met, strict=True)) if met}

    @torch.no_grad()
    def derive(self, items: Sequence[str], content: Floats, codes: Integers, numbers: Floats | None) -> Derived:
        """Return the vectors of `items` from encoder vectors (n, encoder), codes (n, labels), numbers (n, F) or None.

        Unknown content is a zero row, an unknown label code 0; numbers are scaled as in training.
        """
        rows = torch.tensor([self._rows.get(item, -1) for item in items], dtype=torch.int64)
        towers = self._towers
        vectors = towers.items(
            towers.items.project(torch.from_numpy(np.asarray(content, dtype=np.float32))),
            torch.from_numpy(np.asarray(codes, dtype=np.int64)),
            None if numbers is None else torch.from_numpy(np.asarray(numbers, dtype=np.float32)),
            rows.clamp(min=0),
            (rows >= 0).float(),
        )
        embeddings = torch.cat([vectors.item, vectors.content, vectors.bias[:, None]], dim=1)
        contexts = towers.users.head_contexts(vectors)
        return Derived(embeddings.numpy(), tuple(context.numpy() for context in contexts))


def transitions_of(model: Model) -> list[Transition]:
    """Return what follows each item that something follows, at each pace."""
    found = []
    for pace, weights in enumerate((pace.weights for pace in model.paces), start=1):
        for row in np.flatnonzero(np.diff(weights.indptr)):
            part = slice(weights.indptr[row], weights.indptr[row + 1])
            following = [model.items[item] for item in weights.indices[part]]
            found.append(Transition(model.items[row], pace, following, weights.data[part].tolist()))
    return found
