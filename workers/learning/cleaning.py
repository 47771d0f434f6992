"""Interactions without what cannot have happened, and a count of everything that was changed or left out.

What is left is what SQL serves by: what it counts twice, and however long ago it was, is here as well.
"""

from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np

from dynrec_store.models import Unusable
from workers.learning.data import Integers, Times, repeated
from workers.learning.names import Names

Row = tuple[str, str, str | None, float | None, float]  # user, item, kind, value, seconds since 1970

LARGEST = 1e30  # a number beyond counts as none: its square has to fit into what training computes with
SPREADS = 10.0  # between the median and a bound; a spread is what lies between the 5th and the 95th percentile
EARLIEST = datetime.min.replace(tzinfo=UTC).timestamp()  # what is before counts as then: Python has no such times
ANY_KIND = "*"
ALL_USABLE = Unusable()


@dataclass(frozen=True)
class Interactions:
    """Interactions in the order of their times; five arrays of the same length."""

    user: Names
    item: Names
    kind: Names  # "*": none was given
    value: Times  # NaN: none, or not a finite number
    occurred_at: Times  # seconds since 1970 in UTC, ascending


@dataclass(frozen=True)
class CleaningReport:
    """What became of the interactions in the table; read = incomplete + impossible_times + kept."""

    read: int
    incomplete: int  # left out: without user or item
    impossible_times: int  # left out: none, infinite or after the cut-off
    duplicates: int  # kept, but foreseen once: user, item, kind, value and time are those of another
    not_finite: int  # kept without their value
    clipped: int  # kept, the value moved to a bound
    kept: int

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def clean(rows: Iterable[Row], until: datetime, unusable: Unusable = ALL_USABLE) -> tuple[Interactions, CleaningReport]:
    """Return what can be learned from, and what was done to it. Ties in time keep the order they came in.

    Values are clipped within each kind, at the bounds of `robust_bounds`. `until` is the data cut-off; `unusable` what
    of the table is not among the rows, or without its value there.
    """
    kept = _read(rows)  # of what is left out nothing is held on to
    read = len(kept.user)
    possible = np.flatnonzero(np.isfinite(kept.occurred_at) & (kept.occurred_at <= until.timestamp()))
    kept = _taken(kept, possible[np.argsort(kept.occurred_at[possible], kind="stable")])
    value, not_finite, clipped = _bounded(kept)
    report = CleaningReport(
        read=read + unusable.incomplete + unusable.impossible_times,
        incomplete=unusable.incomplete,
        impossible_times=read - len(kept.user) + unusable.impossible_times,
        duplicates=_duplicates(kept),
        not_finite=not_finite + unusable.not_finite,
        clipped=clipped,
        kept=len(kept.user),
    )
    return Interactions(kept.user, kept.item, kept.kind, value, np.maximum(kept.occurred_at, EARLIEST)), report


def robust_bounds(values: Times) -> tuple[float, float]:
    """Return what a number of this column hardly lies beyond: the median and ten spreads to either side.

    `values`: finite numbers, at least one. Where half a spread cannot be told (nearly all are the same), the bounds
    are the extremes, and nothing lies beyond.
    """
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    reach = SPREADS * float(high - low)
    if reach == 0.0:
        return float(values.min()), float(values.max())
    return float(middle) - reach, float(middle) + reach


def finite(values: Times) -> Times:
    """Return the numbers with NaN in place of what is infinite or beyond 1e30."""
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


def _read(rows: Iterable[Row]) -> Interactions:
    """Return the rows as they are: infinity marks a value that was not a number, so that it can be counted."""
    users, items, kinds = array("i"), array("i"), array("i")
    values, times = array("d"), array("d")
    of_user: dict[str, int] = {}
    of_item: dict[str, int] = {}
    of_kind: dict[str, int] = {}
    for user, item, kind, value, occurred_at in rows:
        users.append(of_user.setdefault(user, len(of_user)))
        items.append(of_item.setdefault(item, len(of_item)))
        kinds.append(of_kind.setdefault(ANY_KIND if kind is None else kind, len(of_kind)))
        values.append(np.nan if value is None else value if value == value else np.inf)  # noqa: PLR0124  NaN
        times.append(occurred_at)
    return Interactions(
        _names(users, of_user),
        _names(items, of_item),
        _names(kinds, of_kind),
        np.frombuffer(values, dtype=np.float64),
        np.frombuffer(times, dtype=np.float64),
    )


def _names(numbers: "array[int]", known: dict[str, int]) -> Names:
    return Names(np.frombuffer(numbers, dtype=np.int32), tuple(known))


def _taken(interactions: Interactions, rows: Integers) -> Interactions:
    return Interactions(
        interactions.user[rows],
        interactions.item[rows],
        interactions.kind[rows],
        interactions.value[rows],
        interactions.occurred_at[rows],
    )


def _duplicates(interactions: Interactions) -> int:
    """Return how many are the same in everything as an earlier one."""
    names = [column.numbers for column in (interactions.user, interactions.item, interactions.kind)]
    return int(repeated([*names, finite(interactions.value), interactions.occurred_at]).sum())


def _bounded(interactions: Interactions) -> tuple[Times, int, int]:
    """Return the values, finite and clipped, and how many were not finite and how many clipped.

    By bounds of all kinds together: their scale is one as well, which SQL cuts far inside of these.
    """
    value = finite(interactions.value)
    not_finite = int(np.sum(np.isnan(value) & ~np.isnan(interactions.value)))
    known = value[~np.isnan(value)]
    bounded = np.clip(value, *robust_bounds(known)) if len(known) else value
    return bounded, not_finite, int(np.sum(bounded[~np.isnan(value)] != known))
