"""The validation period: the last part of the data, foreseen from what came before it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.learning.candidates import BATCH, gather, together
from workers.learning.data import Flags, Floats, Histories, Integers, TrainingData
from workers.learning.examples import Examples, next_turns, snapshots
from workers.learning.measures import ndcg
from workers.learning.popularity import HALF_LIVES
from workers.learning.ranking import Candidates, Ranking, fit_ranking
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Towers
from workers.learning.transitions import Pace, pasts

ENOUGH = 200  # examples of a sort that count half as much as any number of them
LEAST = 1e-3  # nDCG beside which less makes no difference


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

    def known(self, towers: Towers, paces: tuple[Pace, ...]) -> Arrays:
        """Return what there is to rank in the period: what was learned before it, and growing histories."""
        learned = Arrays.of(self.before, towers)
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


@dataclass(frozen=True)
class Sort:
    """What one sort of examples could be answered with by some towers."""

    name: str  # lists or turns
    examples: Examples
    batches: list[tuple[Candidates, Integers]]
    unmet: Flags  # (items,): nobody met them before the period

    def batched(self) -> Iterator[Examples]:
        """Yield the examples of each of the batches."""
        return self.examples.batches(BATCH)


def gather_sorts(towers: Towers, known: Arrays, examples: Sequence[Examples]) -> list[Sort]:
    """Return the candidates of both sorts of examples, lists and next turns; a sort without examples is left out.

    Each example of a sort weighs the same, and together as much as the sort counts.
    """
    sorts = []
    for name, part in zip(("lists", "turns"), examples, strict=True):
        if len(part):
            even = replace(part, weight=part.weight / part.weight.sum() * trust(len(part)))
            sorts.append(Sort(name, even, list(gather(towers, known, even)), ~np.isfinite(known.first_met)))
    return sorts


def fitted_ranking(settings: Settings, sorts: Sequence[Sort], *, personal: bool = True) -> Ranking:
    """Return a ranking fitted to the sorts."""
    ranking = Ranking(len(settings.head_decays), len(pasts(settings)), personal=personal)
    fit_ranking(ranking, together([candidates for sort in sorts for candidates, _ in sort.batches]))
    return ranking


def measure(ranking: Ranking, sorts: Sequence[Sort]) -> dict[str, dict[str, Any]]:
    """Return nDCG@10 of the model and of decayed popularity (of the best half-life), for lists and for next turns."""
    return figures(sorts, [gains(ranking, sort) for sort in sorts])


def figures(sorts: Sequence[Sort], gained: Sequence[Floats]) -> dict[str, dict[str, Any]]:
    """Return the same for nDCG@10 (examples,) of each sort."""
    return {sort.name: _figures(sort, each) for sort, each in zip(sorts, gained, strict=True)}


def quality(measured: dict[str, dict[str, Any]]) -> float:
    """Return the mean over lists and turns of the logarithm of nDCG; a sort of few examples has little to say."""
    logarithms = [np.log(each["ndcg_at_10"] + LEAST) for each in measured.values()]
    return float(np.average(logarithms, weights=[trust(each["examples"]) for each in measured.values()]))


def trust(examples: int) -> float:
    """Return what a sort of examples counts beside the other, below 1."""
    return examples / (examples + ENOUGH)


class Best:
    """The best epoch so far, and when to stop looking."""

    def __init__(self, patience: int) -> None:
        self.epoch = 0
        self.ranking: Ranking | None = None
        self.sorts: list[Sort] = []
        self._patience = patience
        self._quality = -np.inf

    def goes_on(self, epoch: int, ranking: Ranking, sorts: list[Sort]) -> bool:
        """Take note of an epoch; return whether there is hope for the next."""
        foreseen = quality(measure(ranking, sorts))
        if foreseen > self._quality:
            self.epoch, self._quality = epoch, foreseen
            self.ranking, self.sorts = ranking, sorts
        return epoch - self.epoch < self._patience


def gains(score: Callable[[Candidates], Tensor], sort: Sort) -> Floats:
    """Return nDCG@10 of each example of a sort, its candidates ranked by `score`, which gives (B, K)."""
    batches = zip(sort.batches, sort.batched(), strict=True)
    with torch.no_grad():
        return np.concatenate([ndcg(items, score(candidates).numpy(), batch) for (candidates, items), batch in batches])


def _popularity(half_life: int, candidates: Candidates) -> Tensor:
    return candidates.rates[:, :, half_life]


def _figures(sort: Sort, gained: Floats) -> dict[str, Any]:
    decayed = [gains(partial(_popularity, number), sort) for number in range(len(HALF_LIVES))]
    return {
        "ndcg_at_10": float(gained.mean()),
        "popularity": max(float(each.mean()) for each in decayed),
        "examples": len(sort.examples),
    }


def _some(examples: Examples, settings: Settings) -> Examples:
    """Return up to as many examples as validation looks at, in the order of time."""
    count = settings.validated
    if len(examples) > count:
        examples = examples.take(np.random.default_rng(settings.seed).choice(len(examples), count, replace=False))
    return examples.take(np.argsort(examples.moment, kind="stable"))
