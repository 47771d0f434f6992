"""Fitting a model: validation on the last part, the ranking fitted there, then everything again on all data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from workers.learning.artefact import Model
from workers.learning.candidates import BATCH, gather, together
from workers.learning.config import config_of
from workers.learning.data import Floats, Histories, TrainingData
from workers.learning.examples import Examples, next_turns, snapshots
from workers.learning.initial import initialise
from workers.learning.measures import ndcg
from workers.learning.ranking import Ranking, fit_ranking
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Towers, shape_of, train

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0 to 1)


@dataclass(frozen=True)
class Validation:
    """The last part of the data, to be foreseen from what came before."""

    before: TrainingData
    everything: TrainingData
    horizon: float  # seconds
    turns: Examples  # each next turn, asked for at its own moment
    lists: Examples  # all that came, asked for when the period begins


def fit(
    data: TrainingData,
    settings: Settings | None = None,
    *,
    progress: Progress = lambda _stage, _done: None,
) -> Model:
    """Return a model of the data; two calls with equal arguments return equal models.

    Too little data for a validation period (see split) gives a model of content, with the ranking's defaults.
    """
    settings = settings or Settings()
    ranking = Ranking(len(settings.decays))
    period = split(data, settings)
    epochs, horizon = 0, 0.0
    metrics: dict[str, Any] = {}
    if period is not None:
        towers, epochs = _validated(period, settings, progress)
        examples = [_some(part, settings) for part in (period.lists, period.turns)]
        arrays = replace(Arrays.of(period.before, towers), data=data, histories=Histories.of(data))
        _fit_ranking(ranking, towers, arrays, examples)
        metrics = {"epochs": epochs, **measure(towers, ranking, arrays, *examples)}
        horizon = period.horizon
    towers = new_towers(data, settings)
    arrays = Arrays.of(data, towers)
    if epochs:
        train(towers, arrays, settings, epochs, horizon, _reporting(progress, "training on all data", epochs))
    return Model(
        tensors=towers.state_dict(),
        shape=shape_of(data),
        settings=settings,
        values=arrays.values,
        items=data.items,
        met=tuple(bool(met) for met in arrays.met),
        kinds=data.kinds,
        trained_until=float(data.occurred_at[-1]) if len(data.occurred_at) else float("-inf"),
        config=config_of(towers.users, ranking, settings, arrays.values, data.kinds),
        metrics=metrics,
    )


def split(data: TrainingData, settings: Settings) -> Validation | None:
    """Split off the last part of the interactions, None if either part would hold too few examples to learn from."""
    if len(data.occurred_at) < settings.fewest_interactions:
        return None
    begins_at = float(data.occurred_at[int(len(data.occurred_at) * (1 - settings.validation))])
    ends_at = float(data.occurred_at[-1]) + 1e-6
    histories = Histories.of(data)
    turns = next_turns(histories, begins_at, ends_at, exclude_seen=data.exclude_seen)
    horizon = ends_at - begins_at
    lists = snapshots(histories, np.array([begins_at]), horizon, exclude_seen=data.exclude_seen)
    before = data.before(begins_at)
    if not len(turns) or not len(before.occurred_at):
        return None
    return Validation(before, data, horizon, turns, lists)


def new_towers(data: TrainingData, settings: Settings) -> Towers:
    """Return towers at the start of training."""
    torch.manual_seed(settings.seed)
    towers = Towers(shape_of(data), settings)
    initialise(towers.items, data, settings)
    return towers.eval()


def measure(
    towers: Towers, ranking: Ranking, arrays: Arrays, lists: Examples, turns: Examples
) -> dict[str, dict[str, Any]]:
    """Return nDCG@10 of the model and of decayed popularity, for lists and for next turns."""
    return {
        name: _measure(towers, ranking, arrays, examples)
        for name, examples in (("lists", lists), ("turns", turns))
        if len(examples)
    }


@torch.no_grad()
def _measure(towers: Towers, ranking: Ranking, arrays: Arrays, examples: Examples) -> dict[str, Any]:
    gains: list[list[Floats]] = []
    for (candidates, items), batch in zip(
        gather(towers, arrays, examples, targets=False), examples.batches(BATCH), strict=True
    ):
        popularity = [ndcg(items, rate.numpy(), batch) for rate in candidates.rates.unbind(dim=2)]
        gains.append([ndcg(items, ranking(candidates).numpy(), batch), *popularity])
    model, *decayed = (float(np.concatenate(part).mean()) for part in zip(*gains, strict=True))
    return {"ndcg_at_10": model, "popularity": max(decayed), "examples": len(examples)}


def _validated(period: Validation, settings: Settings, progress: Progress) -> tuple[Towers, int]:
    """Train on what came before the period; return the towers of the best epoch and its number."""
    towers = new_towers(period.before, settings)
    learned = Arrays.of(period.before, towers)
    known = replace(learned, data=period.everything, histories=Histories.of(period.everything))
    examples = [_some(part, settings) for part in (period.lists, period.turns)]
    report = _reporting(progress, "training before the validation period", settings.epochs)
    best = _Best(towers, settings.patience)

    def after_epoch(epoch: int) -> bool:
        report(epoch)
        return best.goes_on(epoch, _quality(towers, known, examples, settings))

    train(towers, learned, settings, settings.epochs, period.horizon, after_epoch)
    towers.load_state_dict(best.tensors)
    return towers, best.epoch


class _Best:
    """The best epoch so far, and when to stop looking."""

    def __init__(self, towers: Towers, patience: int) -> None:
        self.epoch, self.tensors = 0, towers.state_dict()
        self._quality, self._towers, self._patience = -np.inf, towers, patience

    def goes_on(self, epoch: int, quality: float) -> bool:
        """Take note of an epoch; return whether there is hope for the next."""
        if quality > self._quality:
            self.epoch, self._quality = epoch, quality
            self.tensors = {name: tensor.clone() for name, tensor in self._towers.state_dict().items()}
        return epoch - self.epoch < self._patience


def _quality(towers: Towers, known: Arrays, examples: Sequence[Examples], settings: Settings) -> float:
    """Return the mean over lists and turns of the logarithm of nDCG, under a ranking fitted to these towers."""
    ranking = Ranking(len(settings.decays))
    _fit_ranking(ranking, towers, known, examples)
    measured = measure(towers, ranking, known, *examples).values()
    return float(np.mean([np.log(each["ndcg_at_10"] + 1e-3) for each in measured]))


def _fit_ranking(ranking: Ranking, towers: Towers, known: Arrays, examples: Sequence[Examples]) -> None:
    """Fit the ranking so that each sort of examples counts the same."""
    even = [replace(part, weight=part.weight / part.weight.sum()) for part in examples if len(part)]
    fit_ranking(ranking, together([batch for part in even for batch, _ in gather(towers, known, part, targets=False)]))


def _some(examples: Examples, settings: Settings) -> Examples:
    """Return up to as many examples as validation looks at, in the order of time."""
    count = settings.validated
    if len(examples) > count:
        examples = examples.take(np.random.default_rng(settings.seed).choice(len(examples), count, replace=False))
    return examples.take(np.argsort(examples.moment, kind="stable"))


def _reporting(progress: Progress, stage: str, epochs: int) -> Callable[[int], bool]:
    def after_epoch(epoch: int) -> bool:
        progress(stage, epoch / epochs)
        return True

    return after_epoch
