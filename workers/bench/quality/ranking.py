"""From scores to lists: what a baseline would recommend in each case."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from workers.bench.quality.dataset import Flags, Floats, Ints, Log
from workers.bench.quality.metrics import K, Lists, cold_rows
from workers.bench.quality.protocols import Cases, Histories
from workers.bench.report import Advance

BATCH = 256  # cases


class Scorer(Protocol):
    """A fitted model."""

    def scores(self, cases: Cases) -> Floats:
        """Score all items (cases, items), knowing the events before each case's position and no others."""
        ...


def batches(cases: Cases, size: int = BATCH) -> Iterator[Cases]:
    """The cases one part after the other."""
    for first in range(0, len(cases), size):
        yield cases.part(slice(first, first + size))


def number_of_batches(cases: Cases, size: int = BATCH) -> int:
    """How many parts there are."""
    return -(-len(cases) // size)


class Ranker:
    """Makes lists, without what the user has met by then unless the cases allow repeats."""

    def __init__(self, log: Log, histories: Histories, cold: Flags) -> None:
        self._log, self._histories, self._cold = log, histories, cold

    def lists(self, scorer: Scorer, cases: Cases, advance: Advance = lambda: None) -> Lists:
        """Rank the items in every case."""
        tops, colds = [np.empty((0, K), np.int64)], [np.empty((0, K), np.int64)]
        for part in batches(cases):
            scores = self.candidates(scorer.scores(part), part)
            tops.append(top(scores))
            rows = cold_rows(part, self._cold)
            colds.append(top(np.where(self._cold, scores[rows], -np.inf)))
            advance()
        return Lists(np.concatenate(tops), np.concatenate(colds))

    def candidates(self, scores: Floats, cases: Cases) -> Floats:
        """The scores (cases, items), -inf where an item is left out."""
        scores = scores.copy()
        if not cases.repeat:
            for row, (user, position) in enumerate(zip(cases.user, cases.position, strict=True)):
                scores[row, self._log.item[self._histories.before(user, position)]] = -np.inf
        return scores


def top(scores: Floats) -> Ints:
    """The K best columns of each row, best first; -1 where the score is -inf."""
    count = min(K, scores.shape[1])
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1).astype(np.int64)
    best[np.take_along_axis(scores, best, axis=1) == -np.inf] = -1
    return np.pad(best, ((0, 0), (0, K - count)), constant_values=-1)
