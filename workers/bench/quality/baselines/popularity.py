"""What everybody takes: of all time, of the last days, or decayed. What has happened by a case's position counts."""

import math
from collections.abc import Sequence

import numpy as np

from workers.bench.quality.baselines.base import Data, Params
from workers.bench.quality.dataset import DAY, Floats
from workers.bench.quality.protocols import Cases, Split


class Decayed:
    """Each event counts 2^(-age / half_life), in days."""

    def __init__(self, data: Data, half_life: float) -> None:
        self._log, self._items, self._half_life = data.log, data.items, half_life * DAY
        self._position, self._now = 0, 0
        self._counts = np.zeros(data.items)

    def scores(self, cases: Cases) -> Floats:
        """Counts (cases, items)."""
        counts = np.empty((len(cases), self._items), np.float32)
        for row, (position, now) in enumerate(zip(cases.position, cases.now, strict=True)):
            self._move(int(position), int(now))
            counts[row] = self._counts
        return counts

    def _move(self, position: int, now: int) -> None:
        if position < self._position or now < self._now:
            self._position, self._now = 0, 0
            self._counts[:] = 0
        if now > self._now:
            self._counts *= 2.0 ** (-(now - self._now) / self._half_life)
            self._now = now
        new = slice(self._position, position)
        if position > self._position:
            weights = np.exp2(-(now - self._log.time[new]) / self._half_life)
            self._counts += np.bincount(self._log.item[new], weights, self._items)
            self._position = position


class Recent:
    """Events of the last days count 1, older ones nothing."""

    def __init__(self, data: Data, days: float) -> None:
        self._log, self._items, self._length = data.log, data.items, int(days * DAY)
        self._first, self._position = 0, 0
        self._counts = np.zeros(data.items, np.int64)

    def scores(self, cases: Cases) -> Floats:
        """Counts (cases, items)."""
        counts = np.empty((len(cases), self._items), np.float32)
        for row, (position, now) in enumerate(zip(cases.position, cases.now, strict=True)):
            self._move(int(np.searchsorted(self._log.time, now - self._length)), int(position))
            counts[row] = self._counts
        return counts

    def _move(self, first: int, position: int) -> None:
        first = min(first, position)
        if first < self._first or position < self._position:
            self._first, self._position = 0, 0
            self._counts[:] = 0
        self._counts += np.bincount(self._log.item[self._position : position], minlength=self._items)
        self._counts -= np.bincount(self._log.item[self._first : first], minlength=self._items)
        self._first, self._position = first, position


class AllTime:
    """Most popular."""

    name = "most popular"

    def __init__(self, data: Data) -> None:
        self._data = data

    def grid(self) -> Sequence[Params]:
        """Nothing to choose."""
        return ({},)

    def fit(self, when: Split, params: Params) -> Decayed:  # noqa: ARG002 - nothing is learned: counts are live
        """Counts without decay."""
        return Decayed(self._data, math.inf)


class LastDays:
    """Popularity of the last days."""

    name = "recent popularity"

    def __init__(self, data: Data) -> None:
        self._data = data

    def grid(self) -> Sequence[Params]:
        """How many days."""
        return [{"days": days} for days in (1.0, 3.0, 7.0, 14.0, 30.0)]

    def fit(self, when: Split, params: Params) -> Recent:  # noqa: ARG002
        """Counts in a window."""
        return Recent(self._data, params["days"])


class DecayedPopularity:
    """Decayed popularity."""

    name = "decayed popularity"

    def __init__(self, data: Data) -> None:
        self._data = data

    def grid(self) -> Sequence[Params]:
        """Half-lives in days."""
        return [{"half_life": days} for days in (0.25, 1.0, 3.0, 7.0, 14.0, 30.0, 90.0)]

    def fit(self, when: Split, params: Params) -> Decayed:  # noqa: ARG002
        """Decayed counts."""
        return Decayed(self._data, params["half_life"])
