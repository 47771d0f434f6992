"""Fitting a model: epochs and ranking chosen on the last part of the data, then everything again on all of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import sparse

from workers.learning.artefact import Model
from workers.learning.config import config_of
from workers.learning.continuing import carry_over
from workers.learning.data import TrainingData
from workers.learning.exploration import Exploration, exploration
from workers.learning.initial import initialise
from workers.learning.personal import settled
from workers.learning.ranking import Ranking
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Course, Towers, shape_of, train
from workers.learning.transitions import Pace, fit_transitions, pasts
from workers.learning.validation import Best, Validation, figures, fitted_ranking, gather_sorts, measure, split

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0 to 1)


def fit(
    data: TrainingData,
    settings: Settings | None = None,
    *,
    previous: Model | None = None,
    device: str = "cpu",
    progress: Progress = lambda _stage, _done: None,
) -> Model:
    """Return a model of the data; on a CPU two calls with equal arguments return equal models.

    With `previous`, training starts from its weights and half of the examples are what came since; its own figures
    stand in the metrics. Too little data for a validation period gives a model of content with default weights.
    `device` is a torch device; on CUDA training computes in bfloat16.
    """
    settings = settings or (previous.settings if previous else Settings())
    since = previous.trained_until if previous else -np.inf
    period = split(data, settings, since)
    known = _known_ranking(previous, settings)
    ranking = known or Ranking(len(settings.head_decays), len(pasts(settings)))
    epochs, horizon, explored = 0, 0.0, _explored(previous)
    metrics: dict[str, Any] = {}
    if period is not None:
        best = _validated(period, settings, previous, device, progress)
        epochs, horizon = best.epoch, period.horizon
        ranking, gained = settled(best.ranking or ranking, settings, best.sorts, known)
        metrics = {"epochs": epochs, "personal": bool(ranking.personal), **figures(best.sorts, gained)}
        if previous is not None:
            metrics["previous"] = _of_previous(previous, period)
        explored = exploration(ranking, best.sorts)
    if settings.exploration is not None:
        explored = Exploration(settings.exploration)
    towers = new_towers(data, settings, previous)
    if epochs:
        course = Course(epochs, _planned(settings, previous), horizon, since, device)
        train(towers, Arrays.of(data, towers), settings, course, _reporting(progress, "training on all data", epochs))
    return _model(data, settings, towers, ranking, explored, metrics)


def new_towers(data: TrainingData, settings: Settings, previous: Model | None = None) -> Towers:
    """Return towers at the start of training."""
    torch.manual_seed(settings.seed)
    towers = Towers(shape_of(data), settings)
    if previous is None:
        initialise(towers.items, data, settings)
    else:
        carry_over(previous, towers, data)
    return towers.eval()


def _validated(period: Validation, settings: Settings, previous: Model | None, device: str, progress: Progress) -> Best:
    """Train on what came before the period; return the best epoch."""
    towers = new_towers(period.before, settings, previous)
    known = period.known(towers, fit_transitions(period.before, settings))
    epochs = _planned(settings, previous)
    report = _reporting(progress, "training before the validation period", epochs)
    best = Best(settings.patience)

    def after_epoch(epoch: int) -> bool:
        sorts = gather_sorts(towers, known, period.examples)
        ranking = fitted_ranking(settings, sorts)
        report(epoch)
        return best.goes_on(epoch, ranking, sorts)

    since = previous.trained_until if previous else -np.inf
    course = Course(epochs, epochs, period.horizon, since, device)
    train(towers, Arrays.of(period.before, towers), settings, course, after_epoch)
    return best


def _known_ranking(previous: Model | None, settings: Settings) -> Ranking | None:
    """Return the previous model's ranking, if it weighs what this one's would."""
    if previous is None:
        return None
    before = previous.settings
    same = (before.head_decays, pasts(before)) == (settings.head_decays, pasts(settings))
    return previous.ranking() if same else None


def _explored(previous: Model | None) -> Exploration:
    """Return what the previous model held for unmet items."""
    if previous is None:
        return Exploration()
    return Exploration(previous.config["exploration"], previous.config.get("exploration_gap"))


def _planned(settings: Settings, previous: Model | None) -> int:
    return settings.epochs if previous is None else settings.continued_epochs


def _of_previous(previous: Model, period: Validation) -> dict[str, Any]:
    """Return the figures of the previous model on the same period, by what it learned when it was trained."""
    towers = new_towers(period.before, previous.settings, previous)
    known = replace(period.known(towers, _paces(previous, period.before.items)), values=previous.values)
    return measure(previous.ranking(), gather_sorts(towers, known, period.examples))


def _paces(previous: Model, items: tuple[str, ...]) -> tuple[Pace, ...]:
    """Return the previous model's transitions among these items: there are none from or to one that it did not know."""
    places = {name: place for place, name in enumerate(items)}
    now = np.array([places.get(name, -1) for name in previous.items], dtype=np.int64)

    def among(weights: sparse.csr_matrix) -> sparse.csr_matrix:
        pairs = weights.tocoo()
        row, column = now[pairs.row], now[pairs.col]
        here = (row >= 0) & (column >= 0)
        return sparse.csr_matrix((pairs.data[here], (row[here], column[here])), shape=(len(items), len(items)))

    return tuple(replace(pace, weights=among(pace.weights)) for pace in previous.paces)


def _model(
    data: TrainingData,
    settings: Settings,
    towers: Towers,
    ranking: Ranking,
    explored: Exploration,
    metrics: dict[str, Any],
) -> Model:
    arrays = Arrays.of(data, towers)
    return Model(
        tensors=dict(towers.state_dict()),
        paces=fit_transitions(data, settings),
        ranking_tensors=dict(ranking.state_dict()),
        shape=shape_of(data),
        settings=settings,
        values=arrays.values,
        items=data.items,
        met=tuple(bool(met) for met in arrays.met),
        kinds=data.kinds,
        trained_until=float(data.occurred_at[-1]) if len(data.occurred_at) else 0.0,
        config=config_of(towers.users, ranking, settings, arrays.values, data.kinds)
        | {"exploration": explored.share, "exploration_gap": explored.gap},
        metrics=metrics,
    )


def _reporting(progress: Progress, stage: str, epochs: int) -> Callable[[int], bool]:
    def after_epoch(epoch: int) -> bool:
        progress(stage, epoch / epochs)
        return True

    return after_epoch
