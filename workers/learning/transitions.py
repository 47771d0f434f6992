"""Which items come right after which: pairs that vectors of a few hundred dimensions do not hold one by one.

For each pace a ridge regression foresees the items of a turn from those of the turns before it, the older the less:

    B = (S'S + penalty I)^-1 S'Y,   S[turn] = sum of w * decay^(turns between) over the earlier turns within reach,
                                    Y[turn] = its items

This is the transition model of Choi et al. 2021 (SLIT, arXiv 2103.16104) with a Gram matrix that grows part by part.
Only the highest weights of each item are kept. What follows a history is n = sum of w * decay^lag * B[item] over the
turns within reach, divided by the root of the sum of |w| * decay^lag, as the heads of the user tower are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from workers.learning.data import Floats, Histories, Integers, TrainingData
from workers.learning.examples import ranges
from workers.learning.settings import Settings
from workers.learning.towers import HistoryBatch, UserTower

SCALE = 10.0  # of what they add to a score: probabilities become numbers like logits
LEAST = 0.1  # turns that count for less than this are out of reach
EARLIER = 64  # interactions before a turn that foresee it, at most
ROWS = 20_000  # interactions that are foreseen at a time


@dataclass(frozen=True)
class Pace:
    """How fast the past fades, and what follows what at that pace."""

    decay: float
    weights: sparse.csr_matrix  # (items, items): from a row to a column

    @property
    def reach(self) -> int:
        """How many turns count, the last included."""
        return reach_of(self.decay)


def reach_of(decay: float) -> int:
    """Return the number of turns whose weight is LEAST or more."""
    return 1 + int(np.log(LEAST) / np.log(decay))


def fit_transitions(data: TrainingData, settings: Settings) -> tuple[Pace, ...]:
    """Return what follows what at each pace of the settings; nothing follows anything where too little was met."""
    histories = Histories.of(data)
    popular = _popular(data, settings.transition_items)
    return tuple(
        Pace(decay, _kept(_regression(histories, popular, decay, settings), popular, len(data.items), settings))
        for decay in settings.transition_decays
    )


def following(paces: tuple[Pace, ...], users: UserTower, history: HistoryBatch, items: int) -> Floats:
    """Return for each of P paces how much each item follows (P, B, items); `history` is whole, not thinned out."""
    with torch.no_grad():
        weight = users.interaction_weights(history.kind, history.value).numpy() * history.scale.numpy()
    lag, row, item = history.lag.numpy(), history.row.numpy(), history.item.numpy()
    batch = len(history.first)
    found = np.zeros((len(paces), batch, items), dtype=np.float32)
    for number, pace in enumerate(paces):
        near = lag < pace.reach
        faded = weight[near] * pace.decay ** lag[near]
        mass = np.bincount(row[near], weights=np.abs(faded), minlength=batch)
        past = sparse.csr_matrix((faded / np.sqrt(mass)[row[near]], (row[near], item[near])), shape=(batch, items))
        found[number] = (past.astype(np.float32) @ pace.weights).toarray()
    return found


def _popular(data: TrainingData, count: int) -> Integers:
    met, times = np.unique(data.item[data.wanted()], return_counts=True)
    return np.sort(met[np.argsort(-times, kind="stable")[:count]])


def _regression(histories: Histories, popular: Integers, decay: float, settings: Settings) -> Floats:
    """Return B (popular, popular), zero from an item to itself: that it comes again is another term's to say."""
    count = len(popular)
    gram = torch.eye(count) * settings.transition_penalty
    moment = torch.zeros(count, count)
    for past, next_ in _parts(histories, popular, decay, settings.transition_examples):
        gram += torch.from_numpy((past.T @ past).toarray())
        moment += torch.from_numpy((past.T @ next_).toarray())
    weights: Floats = torch.cholesky_solve(moment, torch.linalg.cholesky(gram)).numpy()
    np.fill_diagonal(weights, 0.0)
    return weights


def _parts(
    histories: Histories, popular: Integers, decay: float, examples: int
) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix]]:
    """Yield S and Y (interactions, popular) of the latest interactions, part by part."""
    column = np.full(int(max(histories.item.max(initial=0), popular.max(initial=0))) + 2, -1)
    column[popular] = np.arange(len(popular))
    item = column[histories.item]  # that of an item -1 is the last of `column`
    foreseen = np.flatnonzero((item >= 0) & histories.wanted)
    foreseen = np.sort(foreseen[np.argsort(-histories.occurred_at[foreseen], kind="stable")[:examples]])
    user = np.repeat(np.arange(len(histories.start) - 1), np.diff(histories.start))
    for begin in range(0, len(foreseen), ROWS):
        place = foreseen[begin : begin + ROWS]
        first = np.maximum(histories.start[user[place]], place - EARLIER)
        earlier = ranges(first, place - first)
        row = np.repeat(np.arange(len(place)), place - first)
        lag = histories.turn[place[row]] - histories.turn[earlier]
        counts = (lag > 0) & (lag <= reach_of(decay)) & (item[earlier] >= 0) & histories.wanted[earlier]
        row, lag, earlier = row[counts], lag[counts], earlier[counts]
        shape = (len(place), len(popular))
        yield (
            sparse.csr_matrix(((decay ** (lag - 1.0)).astype(np.float32), (row, item[earlier])), shape=shape),
            sparse.csr_matrix((np.ones(len(place), np.float32), (np.arange(len(place)), item[place])), shape=shape),
        )


def _kept(weights: Floats, popular: Integers, items: int, settings: Settings) -> sparse.csr_matrix:
    """Return the highest weights above zero of each row, among all items."""
    count = min(settings.transition_neighbours, len(popular))
    highest = np.argpartition(-weights, count - 1, axis=1)[:, :count] if count else np.zeros((0, 0), np.int64)
    values = np.take_along_axis(weights, highest, axis=1)
    row, place = np.nonzero(values > 0)
    pairs = (popular[row], popular[highest[row, place]])
    return sparse.csr_matrix((SCALE * values[row, place], pairs), shape=(items, items), dtype=np.float32)
