"""Histories of a batch of examples, whole or thinned out for training."""

from dataclasses import dataclass

import numpy as np
import torch

from workers.learning.data import Floats, Histories, Integers, TrainingData
from workers.learning.examples import Examples, contexts, ranges
from workers.learning.towers import SPREAD, HistoryBatch


@dataclass(frozen=True)
class ValueScale:
    """Mean and spread of the interactions' values."""

    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, data: TrainingData) -> "ValueScale":
        """Measure by median and quartiles, which outliers do not move."""
        known = data.value[np.isfinite(data.value)]
        if not len(known):
            return cls()
        low, middle, high = np.percentile(known, [25, 50, 75])
        return cls(float(middle), float(max(high - low, 1e-6) / 1.349))

    def standard(self, value: Floats) -> Floats:
        """Return standard scores, cut at the spread; NaN stays."""
        scores: Floats = np.clip((value - self.mean) / self.scale, -SPREAD, SPREAD).astype(np.float32)
        return scores


@dataclass(frozen=True)
class Thinning:
    """How training shortens histories: the last `recent`, `older` for those before, some left out at random."""

    recent: int
    older: int
    dropout: float  # up to this share is left out, another for each example
    random: np.random.Generator


def history_batch(
    histories: Histories, examples: Examples, values: ValueScale, thinning: Thinning | None = None
) -> HistoryBatch:
    """Return the histories of the examples; `item` are indexes of the catalogue."""
    start, end = histories.start[examples.user], examples.end
    if thinning is None:
        place = ranges(start, end - start)
        row = np.repeat(np.arange(len(end)), end - start)
        scale = np.ones(len(place), dtype=np.float32)
    else:
        place, row, scale = _thinned(start, end, thinning)
    known = histories.item[place] >= 0
    place, row, scale = place[known], row[known], scale[known]
    return HistoryBatch(
        item=torch.from_numpy(histories.item[place]),
        kind=torch.from_numpy(histories.kind[place]),
        value=torch.from_numpy(values.standard(histories.value[place])),
        lag=torch.from_numpy((histories.turn[end[row] - 1] - histories.turn[place]).astype(np.float32)),
        scale=torch.from_numpy(scale),
        row=torch.from_numpy(row),
        first=torch.from_numpy(np.searchsorted(row, np.arange(len(end)))),
        context=torch.from_numpy(contexts(histories, examples)),
    )


def _thinned(start: Integers, end: Integers, thinning: Thinning) -> tuple[Integers, Integers, Floats]:
    """Return places, rows and what each interaction stands for, in order."""
    length = end - start
    recent = np.minimum(length, thinning.recent)
    old = length - recent
    picked = np.minimum(old, thinning.older)
    row_old = np.repeat(np.arange(len(end)), picked)
    step = (old / np.maximum(picked, 1))[row_old]
    stratum = ranges(np.zeros_like(picked), picked)
    drawn = np.floor((stratum + thinning.random.random(len(row_old))) * step).astype(np.int64)
    place_old = start[row_old] + np.minimum(drawn, old[row_old] - 1)
    row_recent = np.repeat(np.arange(len(end)), recent)
    place = np.concatenate([place_old, ranges(end - recent, recent)])
    row = np.concatenate([row_old, row_recent])
    scale = np.concatenate([step, np.ones(len(row_recent))]).astype(np.float32)
    kept = thinning.random.random(len(place)) >= (thinning.random.random(len(end)) * thinning.dropout)[row]
    order = np.argsort(row[kept], kind="stable")
    return place[kept][order], row[kept][order], scale[kept][order]
