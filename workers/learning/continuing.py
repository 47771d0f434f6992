"""Training on: the weights of the previous model in towers for the catalogue of today."""

import torch

from dynrec_store.exceptions import ConfigurationError
from workers.learning.artefact import Model
from workers.learning.data import TrainingData
from workers.learning.settings import Settings
from workers.learning.training import Towers

IDENTITIES = ("items.identity_item", "items.identity_context", "items.identity_bias")  # a row for each item

DECAYS = "users.decays"  # are of the settings, like the config that serves
# what the weights were made with, and what only a training from the start reads
UNCHANGED = ("learned", "content", "decays", "content_decays", "numbers_rank", "epochs", "ease_items")


def check_unchanged(settings: Settings, previous: Settings, model: int | None) -> None:
    """Raise ConfigurationError for a hyper-parameter that cannot be another than the previous model's."""
    for name in UNCHANGED:
        given, known = (_as_given(getattr(each, name)) for each in (settings, previous))
        if given != known:
            instead = ", say how long it goes on by continued_epochs" if name == "epochs" else ""
            raise ConfigurationError(
                f"training option {name} cannot be {given} where training goes on from model version {model}, which "
                f"was made with {known}: leave it out{instead}, or train anew, without continue_active (--continue)"
            )


def _as_given(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@torch.no_grad()
def carry_over(previous: Model, towers: Towers, data: TrainingData) -> None:
    """Set the towers' parameters to the previous model's.

    Identities follow the items' names and kinds theirs; new ones start as in fresh towers. Labels keep their codes, of
    which there may be more than before.
    """
    rows = {name: row for row, (name, met) in enumerate(zip(previous.items, previous.met, strict=True)) if met}
    kinds = {name: row for row, name in enumerate(previous.kinds)}
    learned = {name: tensor for name, tensor in towers.state_dict().items() if name != DECAYS}
    for name, tensor in learned.items():
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
