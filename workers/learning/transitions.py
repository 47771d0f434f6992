"""Which items follow which: pairs that vectors of a few hundred dimensions do not hold one by one.

What comes next: at each of some paces a ridge regression foresees the items of a turn from those of the turns before
it, the older the less:

    B = (S'S + penalty I)^-1 S'Y,   S[turn] = sum of w * decay^(turns between) over the earlier turns within reach,
                                    Y[turn] = its items

This is the transition model of Choi et al. 2021 (SLIT, arXiv 2103.16104) with a Gram matrix that grows part by part.
What goes together, whenever, does not fade: B is EASE's, and each of the items that a user met last counts once.

Only the highest weights of each item are kept. What follows a history is n = sum of w * decay^lag * B[item] over what
is within reach, divided by the root of the sum of |w| * decay^lag, as the heads of the user tower are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from workers.learning.data import Floats, Histories, Integers, TrainingData, repeated
from workers.learning.ease import ease, most_met
from workers.learning.examples import ranges
from workers.learning.settings import Settings
from workers.learning.towers import HistoryBatch, UserTower

SCALE = 10.0  # of what they add to a score: probabilities become numbers like logits
LEAST = 0.1  # turns that count for less than this are out of reach
EARLIER = 64  # interactions before a turn that foresee it, at most
ROWS = 20_000  # interactions that are foreseen at a time


@dataclass(frozen=True)
class Past:
    """What of a history counts, and how fast it fades: by turns, or by items, each as it was met last."""

    decay: float
    reach: int  # so many turns, or items, the last included
    by_item: bool = False


@dataclass(frozen=True)
class Pace:
    """What follows a past."""

    past: Past
    weights: sparse.csr_matrix  # (items, items): from a row to a column


def pasts(settings: Settings) -> tuple[Past, ...]:
    """Return the pasts that are looked at, those that count turns first."""
    by_turn = tuple(Past(decay, reach_of(decay)) for decay in settings.transition_decays)
    return by_turn + ((Past(1.0, settings.companions, by_item=True),) if settings.companions else ())


def reach_of(decay: float) -> int:
    """Return the number of turns whose weight is LEAST or more."""
    return 1 + int(np.log(LEAST) / np.log(decay))


def fit_transitions(data: TrainingData, settings: Settings) -> tuple[Pace, ...]:
    """Return what follows each past of the settings; nothing follows anything where too little was met."""
    histories = Histories.of(data)
    popular = most_met(data, settings.transition_items)
    return tuple(
        Pace(past, _kept(_weights(data, histories, popular, past, settings), popular, len(data.items), settings))
        for past in pasts(settings)
    )


def following(paces: tuple[Pace, ...], users: UserTower, history: HistoryBatch, items: int) -> Floats:
    """Return for each of P paces how much each item follows (P, B, items); `history` is whole, not thinned out."""
    with torch.no_grad():
        weight = users.interaction_weights(history.kind, history.value).numpy() * history.scale.numpy()
    batch = len(history.first)
    found = np.zeros((len(paces), batch, items), dtype=np.float32)
    for number, pace in enumerate(paces):
        row, item, faded = _faded(pace.past, history, weight)
        mass = np.bincount(row, weights=np.abs(faded), minlength=batch)
        past = sparse.csr_matrix((faded / np.sqrt(mass)[row], (row, item)), shape=(batch, items))
        found[number] = (past.astype(np.float32) @ pace.weights).toarray()
    return found


def _faded(past: Past, history: HistoryBatch, weight: Floats) -> tuple[Integers, Integers, Floats]:
    """Return row, item and faded weight of what counts."""
    lag, row, item = history.lag.numpy(), history.row.numpy(), history.item.numpy()
    if past.by_item:
        last = _last_meetings(row, item, lag, weight)
        row, item, weight = row[last], item[last], weight[last]
        lag = np.arange(len(row)) - np.searchsorted(row, row)  # the number of items met later
    near = lag < past.reach
    faded = (weight[near] * past.decay ** lag[near]).astype(np.float32)
    return row[near], item[near], faded


def _last_meetings(row: Integers, item: Integers, lag: Floats, weight: Floats) -> Integers:
    """Return where each row met each of its items last, the latest first; of several at once the weightiest."""
    order = np.lexsort((-weight, lag, item, row))
    another = (np.diff(row[order], prepend=-1) != 0) | (np.diff(item[order], prepend=-1) != 0)
    last = order[another]
    latest: Integers = last[np.lexsort((item[last], lag[last], row[last]))]
    return latest


def _weights(data: TrainingData, histories: Histories, popular: Integers, past: Past, settings: Settings) -> Floats:
    """Return B (popular, popular), zero from an item to itself: that it comes again is another term's to say."""
    if past.by_item:
        return ease(data, popular, settings.ease_penalty)
    return _regression(histories, popular, past, settings)


def _regression(histories: Histories, popular: Integers, past: Past, settings: Settings) -> Floats:
    count = len(popular)
    gram = torch.eye(count) * settings.transition_penalty
    moment = torch.zeros(count, count)
    for before, next_ in _parts(histories, popular, past, settings.transition_examples):
        gram += torch.from_numpy((before.T @ before).toarray())
        moment += torch.from_numpy((before.T @ next_).toarray())
    weights: Floats = torch.cholesky_solve(moment, torch.linalg.cholesky(gram)).numpy()
    np.fill_diagonal(weights, 0.0)
    return weights


def _parts(
    histories: Histories, popular: Integers, past: Past, examples: int
) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix]]:
    """Yield S and Y (interactions, popular) of the latest interactions, part by part."""
    column = np.full(int(max(histories.item.max(initial=0), popular.max(initial=0))) + 2, -1)
    column[popular] = np.arange(len(popular))
    item = column[histories.item]  # that of an item -1 is the last of `column`
    foreseen = np.flatnonzero((item >= 0) & histories.wanted)
    foreseen = np.sort(foreseen[np.argsort(-histories.occurred_at[foreseen], kind="stable")[:examples]])
    user = np.repeat(np.arange(len(histories.start) - 1), np.diff(histories.start))
    same = (histories.value, histories.kind, histories.item, histories.occurred_at)
    foreseen = foreseen[~repeated([column[foreseen] for column in (*same, user)])]  # a duplicate is no second target
    for begin in range(0, len(foreseen), ROWS):
        place = foreseen[begin : begin + ROWS]
        first = np.maximum(histories.start[user[place]], place - EARLIER)
        earlier = ranges(first, place - first)
        row = np.repeat(np.arange(len(place)), place - first)
        lag = histories.turn[place[row]] - histories.turn[earlier]
        counts = (lag > 0) & (lag <= past.reach) & (item[earlier] >= 0) & histories.wanted[earlier]
        row, lag, earlier = row[counts], lag[counts], earlier[counts]
        shape = (len(place), len(popular))
        yield (
            sparse.csr_matrix(((past.decay ** (lag - 1.0)).astype(np.float32), (row, item[earlier])), shape=shape),
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
