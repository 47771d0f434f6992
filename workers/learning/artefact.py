"""A fitted model, and its form at rest: safetensors and JSON, nothing that runs when it is read."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from scipy import sparse
from torch import Tensor

from workers.learning.history import ValueScale
from workers.learning.ranking import Ranking
from workers.learning.settings import Settings
from workers.learning.towers import Shape
from workers.learning.training import Towers
from workers.learning.transitions import Pace, Past, pasts

TOWERS = "towers.safetensors"
RANKING = "ranking.safetensors"
TRANSITIONS = "transitions.safetensors"
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class Model:
    """Towers as fitted, with all that serving and training on need to know."""

    tensors: dict[str, Tensor]  # of the towers
    ranking_tensors: dict[str, Tensor]
    paces: tuple[Pace, ...]
    shape: Shape
    settings: Settings
    values: ValueScale
    items: tuple[str, ...]  # whose identity is in which row
    met: tuple[bool, ...]  # whether training met the item; others are served by content alone
    kinds: tuple[str, ...]
    trained_until: float  # seconds, as in TrainingData.occurred_at
    config: dict[str, Any]  # the literals of the SQL that serves it
    metrics: dict[str, Any]  # of the validation period

    def towers(self) -> Towers:
        """Return the towers, ready to be asked."""
        towers = Towers(self.shape, self.settings)
        towers.load_state_dict(self.tensors)
        return towers.eval()

    def ranking(self) -> Ranking:
        """Return the ranking."""
        ranking = Ranking(len(self.settings.head_decays), len(self.paces))
        # over those of the start, where all is as if a weight that came later did not exist
        ranking.load_state_dict({**ranking.state_dict(), **self.ranking_tensors})
        return ranking


def to_artefacts(model: Model) -> dict[str, bytes]:
    """Return the model's files by name."""
    description = {
        "shape": asdict(model.shape),
        "settings": asdict(model.settings),
        "values": asdict(model.values),
        "items": model.items,
        "met": model.met,
        "kinds": model.kinds,
        "trained_until": model.trained_until,
        "config": model.config,
        "metrics": model.metrics,
    }
    return {
        TOWERS: _packed(model.tensors),
        RANKING: _packed(model.ranking_tensors),
        TRANSITIONS: _packed(_sparse_tensors(model.paces)),
        DESCRIPTION: json.dumps(description, allow_nan=False).encode(),
    }


def from_artefacts(artefacts: dict[str, bytes]) -> Model:
    """Return the model that `to_artefacts` took apart; tensors are equal bit by bit."""
    description = json.loads(artefacts[DESCRIPTION])
    shape = description["shape"]
    settings = description["settings"]
    if "content_decay" in settings:  # of a model of before, which has one content head
        settings["content_decays"] = [settings.pop("content_decay")]
    settings.setdefault("companions", 0)  # nor does it know what goes together
    decays = {name: tuple(settings[name]) for name in ("decays", "content_decays", "transition_decays")}
    known = Settings(**{**settings, **decays})
    return Model(
        tensors=load(artefacts[TOWERS]),
        ranking_tensors=load(artefacts[RANKING]),
        paces=_paces(load(artefacts[TRANSITIONS]), pasts(known), len(description["items"])),
        shape=Shape(**{**shape, "code_sizes": tuple(shape["code_sizes"])}),
        settings=known,
        values=ValueScale(**description["values"]),
        items=tuple(description["items"]),
        met=tuple(description["met"]),
        kinds=tuple(description["kinds"]),
        trained_until=description["trained_until"],
        config=description["config"],
        metrics=description["metrics"],
    )


def _packed(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _sparse_tensors(paces: tuple[Pace, ...]) -> dict[str, Tensor]:
    return {
        f"{number}.{part}": torch.from_numpy(getattr(pace.weights, part).copy())
        for number, pace in enumerate(paces)
        for part in ("data", "indices", "indptr")
    }


def _paces(tensors: dict[str, Tensor], past: tuple[Past, ...], items: int) -> tuple[Pace, ...]:
    def weights(number: int) -> sparse.csr_matrix:
        parts = tuple(tensors[f"{number}.{part}"].numpy() for part in ("data", "indices", "indptr"))
        return sparse.csr_matrix(parts, shape=(items, items))

    return tuple(Pace(each, weights(number)) for number, each in enumerate(past))
