"""Choosing parameters on the validation period, for each protocol its own: a strong opponent is worth more."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from workers.bench.quality.baselines.base import Family, Params
from workers.bench.quality.metrics import by_list
from workers.bench.quality.progress import Progress, silent, steps
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Ranker, batches, number_of_batches, top

LARGEST = 20_000_000  # scores of a validation: with more items fewer cases are looked at
MOST, FEWEST = 2000, 300  # cases


@dataclass(frozen=True)
class Tuned:
    """The best parameters by protocol, with their nDCG@10 on the validation period; the first where it has no case."""

    params: Mapping[str, Params]
    ndcg: Mapping[str, float]
    lists: Mapping[str, int]  # how many of that period were looked at; of nothing where there was nothing to choose
    seconds: float


def tune(family: Family, when: Split, cases: Mapping[str, Cases], ranker: Ranker, progress: Progress = silent) -> Tuned:
    """Fit every point of the grid at the split, and compare what each foresees by protocol."""
    began = time.perf_counter()
    grid = family.grid()
    if len(grid) == 1:
        return Tuned(dict.fromkeys(cases, grid[0]), {}, {}, 0.0)
    advance = steps(progress, f"tuning {family.name}", len(grid) + sum(map(number_of_batches, cases.values())))
    models = []
    for point in grid:
        models.append(family.fit(when, point))
        advance()
    params, best = {}, {}
    for protocol, some in cases.items():
        gains = np.zeros(len(models))
        for part in batches(some):
            gains += [
                by_list(top(ranker.candidates(model.scores(part), part)), part.truth)[0].sum() for model in models
            ]
            advance()
        winner = int(gains.argmax())
        params[protocol], best[protocol] = grid[winner], float(gains[winner] / max(len(some), 1))
    return Tuned(params, best, {protocol: len(some) for protocol, some in cases.items()}, time.perf_counter() - began)


def validation_sample(items: int) -> int:
    """How many cases of each protocol to look at."""
    return min(MOST, max(FEWEST, LARGEST // items))
