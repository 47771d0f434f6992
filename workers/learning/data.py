"""What a model learns from, as plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Earlier:
    """What items were from a moment on, until the next one: those of them that were not what they are at the last.

    All of these moments but the first are those of the numbers: batches of examples are cut there.
    """

    moment: float
    rows: Integers  # (n,): of items
    content: Floats  # (n, dimension of the encoder)
    codes: Integers  # (n, labels)


@dataclass(frozen=True)
class TrainingData:
    """Interactions in the order of their times, and every item of the catalogue, met or not.

    The four arrays of interactions have one entry each, as have `users`, `items` and the rows of `content`.
    """

    user: Integers  # index into users
    item: Integers  # index into items; -1: an item that is no longer in the catalogue
    kind: Integers  # index into kinds
    value: Floats  # NaN where there is none
    occurred_at: Times  # seconds since any fixed moment, ascending
    users: tuple[str, ...]
    items: tuple[str, ...]
    kinds: tuple[str, ...]
    kind_weights: Floats  # (kinds,), as declared; interactions of kinds above 0 are popularity and targets
    content: Floats  # (items, dimension of the encoder); zero where unknown; as they are
    codes: Integers = field(
        default_factory=lambda: np.zeros((0, 0), dtype=np.int64)
    )  # (items, labels), 0: unknown; as they are
    earlier: tuple[Earlier, ...] = ()  # ascending; the last is of the moment that content and codes are of
    numerics: tuple[tuple[float, Floats], ...] = ()  # (moment, (items, numbers)), ascending; scaled, no NaN
    exclude_seen: bool = True  # recommend() leaves out what the user met

    def before(self, moment: float) -> "TrainingData":
        """Return what had happened before `moment`; the catalogue stays."""
        end = int(np.searchsorted(self.occurred_at, moment, side="left"))
        return replace(
            self,
            user=self.user[:end],
            item=self.item[:end],
            kind=self.kind[:end],
            value=self.value[:end],
            occurred_at=self.occurred_at[:end],
            numerics=tuple(snapshot for snapshot in self.numerics if snapshot[0] < moment),
        )

    def wanted(self) -> Flags:
        """Return for each interaction whether it counts as popularity and as something to foresee."""
        return (self.item >= 0) & (self.kind_weights[self.kind] > 0)

    def first_met(self) -> Times:
        """Return when each item was first met, infinity where never."""
        first = np.full(len(self.items), np.inf)
        known = self.item >= 0
        np.minimum.at(first, self.item[known], self.occurred_at[known])
        return first

    def numbers_at(self, moment: float) -> Floats | None:
        """Return the numbers of the items (items, numbers) as of `moment`, None if there are none at all.

        Before the first snapshot nothing is known: every number is 0, the middle of its scale.
        """
        if not self.numerics:
            return None
        known = [numbers for taken_at, numbers in self.numerics if taken_at <= moment]
        return known[-1] if known else np.zeros_like(self.numerics[0][1])

    def snapshot_of(self, moment: Times) -> Integers:
        """Return for each moment (n,) the number of the snapshot that it sees, 0 before the first."""
        taken_at = np.array([moment for moment, _ in self.numerics])
        return np.searchsorted(taken_at, moment, side="right")


@dataclass(frozen=True)
class Histories:
    """The same interactions user by user; a history is a slice start[u] .. end, in the order of time."""

    start: Integers  # (users + 1,): where each user's begin
    item: Integers
    kind: Integers
    value: Floats
    occurred_at: Times
    turn: Integers  # number of the interaction's time among the user's distinct times, from 0
    wanted: Flags

    @classmethod
    def of(cls, data: TrainingData) -> "Histories":
        """Group the interactions by user."""
        order = np.lexsort((data.occurred_at, data.user))
        user, occurred_at = data.user[order], data.occurred_at[order]
        start = np.searchsorted(user, np.arange(len(data.users) + 1))
        later = np.ones(len(order), dtype=np.int64)
        later[1:] = (np.diff(occurred_at) > 0) | (np.diff(user) > 0)
        turn = np.cumsum(later)
        first = turn[np.minimum(start[user], len(order) - 1)] if len(order) else turn
        return cls(
            start=start,
            item=data.item[order],
            kind=data.kind[order],
            value=data.value[order],
            occurred_at=occurred_at,
            turn=turn - first,
            wanted=data.wanted()[order],
        )

    def ends_at(self, moment: float) -> Integers:
        """Return for each user the end of the history before `moment`."""
        user = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))
        earlier = np.bincount(user, weights=self.occurred_at < moment, minlength=len(self.start) - 1)
        return self.start[:-1] + earlier.astype(np.int64)


def repeated(columns: Sequence[NDArray[Any]]) -> Flags:
    """Return for each row (n,) whether an earlier one is the same in all columns; NaN is the same as NaN."""
    order = np.lexsort(columns)  # stable: the first of the same stays first
    flags = np.zeros(len(order), dtype=np.bool_)
    flags[order[1:]] = np.logical_and.reduce([_same(column[order[1:]], column[order[:-1]]) for column in columns])
    return flags


def _same(one: NDArray[Any], other: NDArray[Any]) -> Flags:
    same: Flags = (one == other) | ((one != one) & (other != other))  # noqa: PLR0124  NaN
    return same
