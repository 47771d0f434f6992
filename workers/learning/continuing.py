"""Training on: the weights of the previous model in towers for the catalogue of today."""

import torch

from workers.learning.artefact import Model
from workers.learning.data import TrainingData
from workers.learning.training import Towers

IDENTITIES = ("items.identity_item", "items.identity_context", "items.identity_bias")  # a row for each item


@torch.no_grad()
def carry_over(previous: Model, towers: Towers, data: TrainingData) -> None:
    """Set the towers' parameters to the previous model's.

    Identities follow the items' names and kinds theirs; new ones start as in fresh towers. Labels keep their codes, of
    which there may be more than before.
    """
    rows = {name: row for row, (name, met) in enumerate(zip(previous.items, previous.met, strict=True)) if met}
    kinds = {name: row for row, name in enumerate(previous.kinds)}
    for name, tensor in towers.state_dict().items():
        old = previous.tensors[name]
        if name in IDENTITIES:
            _copy_rows(old, tensor, rows, data.items)
        elif name == "users.kind_weight":
            _copy_rows(old, tensor, kinds, data.kinds)
        else:
            both = tuple(slice(min(sizes)) for sizes in zip(old.shape, tensor.shape, strict=True))
            tensor[both] = old[both]


def _copy_rows(old: torch.Tensor, new: torch.Tensor, rows: dict[str, int], names: tuple[str, ...]) -> None:
    found = [(row, rows[name]) for row, name in enumerate(names) if name in rows]
    if found:
        to, origin = torch.tensor(found).T
        new[to] = old[origin]
