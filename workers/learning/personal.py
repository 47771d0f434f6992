"""Which ranking a model gets: one fitted to the validation period, one of popularity alone, or the one it had.

Towers find something in any data, and a ranking that is fitted to the period it is measured on listens to it. So the
users of the validation period are halved, and what each half took is foreseen by weights that are fitted to the other
(cross-validation; Stone 1974, JRSS B 36), once with heads and transitions and once by popularity, bias and repeats
alone, which are taken where they are better by more than a standard error. Training on keeps the ranking it came with
unless a new one is better by as much: what came since may be little to fit one to.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from workers.learning.candidates import together
from workers.learning.data import Flags, Floats
from workers.learning.ranking import Ranking, fit_ranking
from workers.learning.settings import Settings
from workers.learning.transitions import pasts
from workers.learning.validation import LEAST, Sort, fitted_ranking, gains, trust


def settled(
    ranking: Ranking, settings: Settings, sorts: Sequence[Sort], known: Ranking | None = None
) -> tuple[Ranking, list[Floats]]:
    """Return the ranking to serve by, and nDCG@10 (examples,) of each sort that speaks for it.

    `ranking` is fitted to the sorts, and what speaks for it is what it does for users that it was not fitted to, unless
    halves of them would be too few to fit to. `known`: of the model that is trained on.
    """
    halves = [sort.examples.user % 2 == 1 for sort in sorts]
    half = np.concatenate(halves)
    enough = min(half.sum(), (~half).sum()) >= settings.fewest_examples
    if enough:
        ranking, gained = _personal_or_not(ranking, settings, sorts, halves)
    else:
        gained = [gains(ranking, sort) for sort in sorts]
    if known is None:
        return ranking, gained
    by_known = [gains(known, sort) for sort in sorts]
    return (ranking, gained) if enough and _is_better(sorts, gained, by_known) else (known, by_known)


def _personal_or_not(
    ranking: Ranking, settings: Settings, sorts: Sequence[Sort], halves: Sequence[Flags]
) -> tuple[Ranking, list[Floats]]:
    """Return the better one of the two, and what such a ranking foresaw of those it was not fitted to."""
    by_all, by_popularity = (_foreseen(settings, sorts, halves, personal=personal) for personal in (True, False))
    if _is_better(sorts, by_popularity, by_all):
        return fitted_ranking(settings, sorts, personal=False), by_popularity
    return ranking, by_all


def _is_better(sorts: Sequence[Sort], new: Sequence[Floats], old: Sequence[Floats]) -> bool:
    """Return whether nDCG is higher by more than a standard error, relative to the old, over all sorts together.

    The examples of one user are no independent witnesses: the error is that of sums by user.
    """
    weights = np.array([trust(len(sort.examples)) for sort in sorts])
    rises, errors = [], []
    for sort, more, less in zip(sorts, new, old, strict=True):
        rise, scale = (more - less).mean(), less.mean() + LEAST
        by_user = np.bincount(sort.examples.user, more - less - rise)
        rises.append(rise / scale)
        errors.append(np.sqrt(np.square(by_user).sum()) / len(more) / scale)
    return bool(weights @ rises > np.sqrt(np.square(weights * errors).sum()))


def _foreseen(settings: Settings, sorts: Sequence[Sort], halves: Sequence[Flags], *, personal: bool) -> list[Floats]:
    """Return nDCG@10 of the examples of each sort, each half foreseen by a ranking that is fitted to the other."""
    candidates = together([part for sort in sorts for part, _ in sort.batches])
    half = np.concatenate(halves)
    foreseen = []
    for inside in (half, ~half):
        ranking = Ranking(len(settings.head_decays), len(pasts(settings)), personal=personal)
        fit_ranking(ranking, replace(candidates, weight=candidates.weight * torch.from_numpy(inside)))
        foreseen.append([gains(ranking, sort) for sort in sorts])
    return [
        np.where(half, by_the_other, by_the_one)
        for half, by_the_one, by_the_other in zip(halves, *foreseen, strict=True)
    ]
