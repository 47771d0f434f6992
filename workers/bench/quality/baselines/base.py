"""What all baselines share: the data they see, and the form in which they are tuned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from workers.bench.quality.dataset import DAY, Dataset, Floats, Ints, Log
from workers.bench.quality.protocols import Cases, Histories, Split
from workers.bench.quality.ranking import Scorer

Params = Mapping[str, float]


@dataclass(frozen=True)
class Data:
    """A data set, and its users' histories."""

    dataset: Dataset
    histories: Histories

    @property
    def log(self) -> Log:
        """The events."""
        return self.dataset.log

    @property
    def items(self) -> int:
        """How many items there are."""
        return self.dataset.items


class Family(Protocol):
    """A sort of model with parameters to choose."""

    name: str

    def grid(self) -> Sequence[Params]:
        """What to try on the validation period."""
        ...

    def fit(self, when: Split, params: Params) -> Scorer:
        """Learn from the events before the split."""
        ...


def met(data: Data, when: Split) -> sparse.csr_matrix:
    """Users x items: 1 where a user met an item before the split; sparse."""
    user, item = data.log.user[: when.start], data.log.item[: when.start]
    matrix = sparse.csr_matrix(
        (np.ones(len(user), np.float32), (user, item)), shape=(len(data.dataset.users), data.items)
    )
    matrix.data[:] = 1.0
    return matrix


@dataclass(frozen=True)
class Recency:
    """How much of a history's items is left: half after so many days, and half after so many later items."""

    days: float = math.inf
    items: float = math.inf


def recency(params: Params) -> Recency:
    """What the parameters `days` and `items` say; neither: nothing is forgotten."""
    return Recency(params.get("days", math.inf), params.get("items", math.inf))


def histories(data: Data, cases: Cases, recency: Recency) -> sparse.csr_matrix:
    """Cases x items: how much is left of each item that the user met, by the last time it was; sparse."""
    rows, items, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for row, (user, position, now) in enumerate(zip(cases.user, cases.position, cases.now, strict=True)):
        past = data.histories.before(user, position)
        past = past[_last_of_each(data.log.item[past])]
        halvings = (now - data.log.time[past]) / (recency.days * DAY) + np.arange(len(past))[::-1] / recency.items
        rows.append(np.full(len(past), row))
        items.append(data.log.item[past])
        weights.append(np.exp2(-halvings).astype(np.float32))
    weight, place = np.concatenate(weights), (np.concatenate(rows), np.concatenate(items))
    return sparse.csr_matrix((weight, place), shape=(len(cases), data.items))


def _last_of_each(items: Ints) -> Ints:
    """Where in `items` each distinct one is for the last time."""
    _, first = np.unique(items[::-1], return_index=True)
    return np.sort(len(items) - 1 - first)


class WithFallback:
    """A model whose row of zeros (it knows nothing of the user) is filled with another's scores."""

    def __init__(self, model: Scorer, fallback: Scorer) -> None:
        self._model, self._fallback = model, fallback

    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items)."""
        scores = self._model.scores(cases)
        unknown = np.flatnonzero(~scores.any(axis=1))
        if len(unknown):
            scores[unknown] = self._fallback.scores(cases.part(unknown))
        return scores


class Remembering:
    """A model that is asked for the same cases again and again, as a blend's parts are while it is tuned."""

    def __init__(self, model: Scorer) -> None:
        self._model = model
        self._last: tuple[Cases, Floats] | None = None

    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items)."""
        if self._last is None or self._last[0] is not cases:
            self._last = cases, self._model.scores(cases)
        return self._last[1]
