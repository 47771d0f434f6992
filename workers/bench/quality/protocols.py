"""The two protocols: what is asked, when, and what came.

Both stand on a global split by time: no model learns from anything after the split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workers.bench.quality.dataset import Dataset, Flags, Ints, Log

TRAINING, VALIDATION = 0.8, 0.1  # shares of the events; the rest is the test period


@dataclass(frozen=True)
class Split:
    """Where a log is divided: events before `start` may be learned from, those in [start, end) are to be foreseen."""

    start: int  # a position in the log
    end: int
    moment: int  # the time at which models are fitted


@dataclass(frozen=True)
class Cases:
    """Lists that are asked for, in the order of `position`; arrays of the same length."""

    user: Ints
    position: Ints  # events before this position of the log have happened
    now: Ints
    truth: Sequence[Ints]  # the items that came, at least one each
    repeat: bool = False  # what the user has met may be recommended again

    def __len__(self) -> int:
        return len(self.user)

    def part(self, rows: slice | Ints) -> "Cases":
        """Some of them."""
        chosen = np.arange(len(self))[rows]
        truth = [self.truth[row] for row in chosen]
        return Cases(self.user[rows], self.position[rows], self.now[rows], truth, self.repeat)


def split(log: Log) -> tuple[Split, Split]:
    """Return the validation split and the test split. What happened at the very time of a split comes after it."""
    bounds = [
        int(np.searchsorted(log.time, log.time[int(share * len(log))], side="left"))
        for share in (TRAINING, TRAINING + VALIDATION)
    ]
    first, second = (_at_whole_instant(log, bound) for bound in bounds)
    return Split(first, second, int(log.time[first])), Split(second, len(log), int(log.time[second]))


def _at_whole_instant(log: Log, position: int) -> int:
    """The position before it at which no user is amidst events that were a microsecond apart, such as an invoice."""
    while position > 0 and log.time[position] - log.time[position - 1] <= 1:
        position -= 1
    return position


class Histories:
    """Each user's events."""

    def __init__(self, log: Log) -> None:
        self._order = np.argsort(log.user, kind="stable")
        self._first = np.searchsorted(log.user[self._order], np.arange(log.user.max(initial=0) + 2))

    def before(self, user: int, position: int) -> Ints:
        """The positions of the user's events before `position`, ascending."""
        own = self._order[self._first[user] : self._first[user + 1]]
        return own[: np.searchsorted(own, position)]


def fixed(log: Log, histories: Histories, when: Split, users: int | None, seed: int) -> Cases:
    """Once per user at the split: users with an event before it and a new item after it; at most `users` of them."""
    chosen, truths = [], []
    for user in np.unique(log.user[when.start : when.end]):
        past = histories.before(user, when.start)
        future = histories.before(user, when.end)[len(past) :]
        new = np.setdiff1d(log.item[future], log.item[past])
        if len(past) and len(new):
            chosen.append(int(user))
            truths.append(new)
    cases = Cases(
        np.array(chosen, np.int64),
        np.full(len(chosen), when.start),
        np.full(len(chosen), when.moment),
        truths,
    )
    return _sample(cases, users, seed)


def live(log: Log, when: Split, events: int | None, seed: int, *, repeat: bool) -> Cases:
    """Before every event of the period: which item comes? Unless `repeat`, of events of an item new to the user."""
    positions = np.arange(when.start, when.end)
    if not repeat:
        pairs = pd.DataFrame({"user": log.user[: when.end], "item": log.item[: when.end]})
        positions = positions[~pairs.duplicated().to_numpy()[when.start :]]
    truth = [log.item[p : p + 1] for p in positions]
    return _sample(Cases(log.user[positions], positions, log.time[positions], truth, repeat), events, seed)


def cold_items(dataset: Dataset, when: Split) -> Flags:
    """Flag the items nobody has met before the split."""
    cold = np.ones(dataset.items, dtype=np.bool_)
    cold[dataset.log.item[: when.start]] = False
    return cold


def _sample(cases: Cases, wanted: int | None, seed: int) -> Cases:
    if wanted is None or wanted >= len(cases):
        return cases
    return cases.part(np.sort(np.random.default_rng(seed).choice(len(cases), wanted, replace=False)))
