"""What the model is asked while it learns: who, when, and what came then."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workers.learning.data import Flags, Floats, Histories, Integers, Times

GAP_EDGES = (3_600.0, 86_400.0, 604_800.0, 2_592_000.0)  # seconds since the user's last interaction
COUNT_EDGES = (1, 3, 10, 50)  # interactions of the user
CONTEXTS = (len(GAP_EDGES) + 1) * (len(COUNT_EDGES) + 1)


@dataclass(frozen=True)
class Examples:
    """Each is one call of recommend() in the past, and the items that its user took next, one at least."""

    user: Integers  # (n,)
    end: Integers  # (n,): the end of the user's history in Histories
    moment: Times  # (n,): when
    first: Integers  # (n + 1,): where each example's targets begin
    target: Integers  # items
    value: Floats  # of the interactions with them, NaN where there is none
    weight: Floats  # (n,)

    def __len__(self) -> int:
        return len(self.user)

    def take(self, chosen: Integers) -> "Examples":
        """Return the chosen examples in that order."""
        length = np.diff(self.first)[chosen]
        place = ranges(self.first[:-1][chosen], length)
        return Examples(
            user=self.user[chosen],
            end=self.end[chosen],
            moment=self.moment[chosen],
            first=np.concatenate([[0], np.cumsum(length)]),
            target=self.target[place],
            value=self.value[place],
            weight=self.weight[chosen],
        )

    def batches(self, size: int) -> Iterator["Examples"]:
        """Yield them in batches, in order."""
        for begin in range(0, len(self), size):
            yield self.take(np.arange(begin, min(begin + size, len(self))))

    def target_row(self) -> Integers:
        """Return for each target the number of its example."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))


def ranges(start: Integers, length: Integers) -> Integers:
    """Return start[0], start[0] + 1, … (length[0] of them), start[1], … in one array."""
    total = int(length.sum())
    begin = np.cumsum(length) - length
    return np.arange(total) - np.repeat(begin - start, length)


def next_turns(histories: Histories, since: float, until: float, *, exclude_seen: bool) -> Examples:
    """Return an example for each turn within [since, until): all before it is known, its items are to be foreseen."""
    count = len(histories.item)
    user = np.repeat(np.arange(len(histories.start) - 1), np.diff(histories.start))
    begins = np.ones(count, dtype=np.bool_)
    begins[1:] = (np.diff(histories.turn) != 0) | (np.diff(user) != 0)
    number = np.cumsum(begins) - 1  # of the turn, over all users
    end = np.flatnonzero(begins)
    within = (histories.occurred_at >= since) & (histories.occurred_at < until) & histories.wanted
    if exclude_seen:
        within &= first_times(histories, user)
    chosen = np.flatnonzero(within)
    return _collect(histories, chosen, number[chosen], user[end], end, histories.occurred_at[end])


def snapshots(histories: Histories, moments: Times, horizon: float, *, exclude_seen: bool) -> Examples:
    """Return an example for each user with a history at each of `moments`: what came within `horizon` seconds."""
    user = np.repeat(np.arange(len(histories.start) - 1), np.diff(histories.start))
    fresh = histories.wanted & (first_times(histories, user) if exclude_seen else True)
    parts = [_snapshot(histories, user, fresh, moment, moment + horizon) for moment in moments]
    return join([part for part in parts if len(part)])


def join(parts: list[Examples]) -> Examples:
    """Return the examples of all parts."""
    length = np.concatenate([np.zeros(1, dtype=np.int64), *(np.diff(part.first) for part in parts)])
    empty = np.zeros(0, dtype=np.int64)
    return Examples(
        user=np.concatenate([empty, *(part.user for part in parts)]),
        end=np.concatenate([empty, *(part.end for part in parts)]),
        moment=np.concatenate([np.zeros(0), *(part.moment for part in parts)]),
        first=np.cumsum(length),
        target=np.concatenate([empty, *(part.target for part in parts)]),
        value=np.concatenate([np.zeros(0, dtype=np.float32), *(part.value for part in parts)]),
        weight=np.concatenate([np.zeros(0, dtype=np.float32), *(part.weight for part in parts)]),
    )


def first_times(histories: Histories, user: Integers) -> Flags:
    """Return whether each interaction is the user's first with its item."""
    order = np.lexsort((np.arange(len(user)), histories.item, user))
    first = np.ones(len(user), dtype=np.bool_)
    same = (np.diff(user[order]) == 0) & (np.diff(histories.item[order]) == 0)
    first[order[1:][same]] = False
    return first


def contexts(histories: Histories, examples: Examples) -> Integers:
    """Return the number of each example's context: gap bucket * 5 + count bucket."""
    count = examples.end - histories.start[examples.user]
    last = histories.occurred_at[np.maximum(examples.end - 1, 0)] if len(histories.item) else np.zeros(len(examples))
    gap = np.where(count > 0, examples.moment - last, np.inf)
    return context_numbers(gap, count)


def context_numbers(gap: Times, count: Integers) -> Integers:
    """Return gap bucket * 5 + count bucket for gaps in seconds (infinity: no interactions) and numbers of them."""
    gap_bucket = np.searchsorted(np.array(GAP_EDGES), gap, side="right")
    count_bucket = np.searchsorted(np.array(COUNT_EDGES), count, side="right")
    return gap_bucket * (len(COUNT_EDGES) + 1) + count_bucket


def _snapshot(histories: Histories, user: Integers, fresh: Flags, moment: float, until: float) -> Examples:
    end = histories.ends_at(moment)
    met = end > histories.start[:-1]
    within = fresh & (histories.occurred_at >= moment) & (histories.occurred_at < until) & met[user]
    chosen = np.flatnonzero(within)
    users = np.arange(len(end))
    return _collect(histories, chosen, user[chosen], users, end, np.full(len(end), moment))


def _collect(
    histories: Histories, place: Integers, group: Integers, user: Integers, end: Integers, moment: Times
) -> Examples:
    """Make an example of each group of interactions (their places); `user`, `end`, `moment` are indexed by group."""
    key = group * (int(histories.item.max(initial=0)) + 1) + histories.item[place]
    _, chosen = np.unique(key, return_index=True)
    groups, first = np.unique(group[chosen], return_index=True)
    return Examples(
        user=user[groups],
        end=end[groups],
        moment=moment[groups],
        first=np.append(first, len(chosen)),
        target=histories.item[place[chosen]],
        value=histories.value[place[chosen]],
        weight=np.ones(len(groups), dtype=np.float32),
    )
