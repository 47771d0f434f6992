"""The validation period: the last part of the data, foreseen from what came before it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from workers.learning.candidates import BATCH, gather, together
from workers.learning.data import Floats, Histories, TrainingData
from workers.learning.examples import Examples, next_turns, snapshots
from workers.learning.measures import ndcg
from workers.learning.ranking import Ranking, fit_ranking
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Towers
from workers.learning.transitions import fit_transitions

ENOUGH = 200  # examples of a sort that count half as much as any number of them


@dataclass(frozen=True)
class Validation:
    """What is known before the period, and what is to be foreseen in it."""

    before: TrainingData
    everything: TrainingData
    horizon: float  # seconds
    turns: Examples  # each next turn, asked for at its own moment
    lists: Examples  # all that came, asked for when the period begins

    @property
    def examples(self) -> tuple[Examples, Examples]:
        """Return both sorts of examples."""
        return self.lists, self.turns

    def known(self, towers: Towers, settings: Settings) -> Arrays:
        """Return what there is to rank in the period: identities and transitions from before it, growing histories."""
        learned = Arrays.of(self.before, towers)
        paces = fit_transitions(self.before, settings)
        return replace(learned, data=self.everything, histories=Histories.of(self.everything), paces=paces)


def split(data: TrainingData, settings: Settings, not_before: float = -np.inf) -> Validation | None:
    """Split off the last part of the interactions, or what of it came after `not_before`.

    Returns None where either part would hold too little to learn from.
    """
    if len(data.occurred_at) < settings.fewest_interactions:
        return None
    begins_at = float(data.occurred_at[int(len(data.occurred_at) * (1 - settings.validation))])
    begins_at = max(begins_at, not_before)
    ends_at = float(data.occurred_at[-1]) + 1e-6
    histories = Histories.of(data)
    turns = next_turns(histories, begins_at, ends_at, exclude_seen=data.exclude_seen)
    horizon = ends_at - begins_at
    lists = snapshots(histories, np.array([begins_at]), horizon, exclude_seen=data.exclude_seen)
    before = data.before(begins_at)
    if len(turns) < settings.fewest_examples or not before.wanted().any():
        return None
    return Validation(before, data, horizon, *(_some(part, settings) for part in (turns, lists)))


def fitted_ranking(towers: Towers, known: Arrays, examples: Sequence[Examples]) -> Ranking:
    """Return a ranking fitted so that each sort of examples counts the same, but for one of few examples."""
    ranking = Ranking(len(towers.users.turning), len(known.paces))
    even = [replace(part, weight=part.weight / part.weight.sum() * _trust(len(part))) for part in examples if len(part)]
    fit_ranking(ranking, together([batch for part in even for batch, _ in gather(towers, known, part)]))
    return ranking


def measure(towers: Towers, ranking: Ranking, known: Arrays, examples: Sequence[Examples]) -> dict[str, dict[str, Any]]:
    """Return nDCG@10 of the model and of decayed popularity (of the best half-life), for lists and for next turns."""
    named = zip(("lists", "turns"), examples, strict=True)
    return {name: _measure(towers, ranking, known, part) for name, part in named if len(part)}


def quality(measured: dict[str, dict[str, Any]]) -> float:
    """Return the mean over lists and turns of the logarithm of nDCG; a sort of few examples has little to say."""
    logarithms = [np.log(each["ndcg_at_10"] + 1e-3) for each in measured.values()]
    return float(np.average(logarithms, weights=[_trust(each["examples"]) for each in measured.values()]))


def _trust(examples: int) -> float:
    """Return what a sort of examples counts beside the other, below 1."""
    return examples / (examples + ENOUGH)


class Best:
    """The best epoch so far, and when to stop looking."""

    def __init__(self, towers: Towers, patience: int) -> None:
        self.epoch, self._towers, self._patience = 0, towers, patience
        self._quality, self._tensors = -np.inf, towers.state_dict()

    def goes_on(self, epoch: int, value: float) -> bool:
        """Take note of an epoch; return whether there is hope for the next."""
        if value > self._quality:
            self.epoch, self._quality = epoch, value
            self._tensors = {name: tensor.clone() for name, tensor in self._towers.state_dict().items()}
        return epoch - self.epoch < self._patience

    def restore(self) -> None:
        """Set the towers back to the best epoch."""
        self._towers.load_state_dict(self._tensors)


@torch.no_grad()
def _measure(towers: Towers, ranking: Ranking, known: Arrays, examples: Examples) -> dict[str, Any]:
    gains: list[list[Floats]] = []
    for (candidates, items), batch in zip(gather(towers, known, examples), examples.batches(BATCH), strict=True):
        popularity = [ndcg(items, rate.numpy(), batch) for rate in candidates.rates.unbind(dim=2)]
        gains.append([ndcg(items, ranking(candidates).numpy(), batch), *popularity])
    model, *decayed = (float(np.concatenate(part).mean()) for part in zip(*gains, strict=True))
    return {"ndcg_at_10": model, "popularity": max(decayed), "examples": len(examples)}


def _some(examples: Examples, settings: Settings) -> Examples:
    """Return up to as many examples as validation looks at, in the order of time."""
    count = settings.validated
    if len(examples) > count:
        examples = examples.take(np.random.default_rng(settings.seed).choice(len(examples), count, replace=False))
    return examples.take(np.argsort(examples.moment, kind="stable"))
