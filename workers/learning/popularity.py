"""Decayed popularity at any moment of the past, by the formula that SQL applies to the present."""

from collections.abc import Iterator

import numpy as np

from workers.learning.data import Floats, Integers, Times, TrainingData

DAY = 86_400.0  # seconds
HALF_LIVES = np.array([0.25, 1.0, 7.0, 30.0, 36_500.0]) * DAY  # seconds; the last is as good as never
TOP = 50  # items whose mean rate is the unit


def rates_at(data: TrainingData, moments: Times) -> Iterator[Floats]:
    """Yield the decayed counts (half-lives, items) before each of the ascending `moments`.

    rate_k,i = sum of 2^-((moment - t) / half_life_k) over the wanted interactions with item i at t < moment
    """
    wanted = data.wanted()
    item, occurred_at = data.item[wanted], data.occurred_at[wanted]
    rates = np.zeros((len(HALF_LIVES), len(data.items)))
    now, done = float(occurred_at[0]) if len(occurred_at) else 0.0, 0
    for moment in moments:
        rates *= np.exp2(-max(moment - now, 0.0) / HALF_LIVES)[:, None]
        end = max(done, int(np.searchsorted(occurred_at, moment, side="left")))
        if end > done:
            _count(rates, item[done:end], moment - occurred_at[done:end])
        now, done = float(max(moment, now)), end
        yield rates.astype(np.float32)


def relative(rates: Floats) -> Floats:
    """Return r = (rate + .5) / (top + .5) for (half-lives, items), top being the mean of the 50 highest rates."""
    items = rates.shape[1]
    count = min(TOP, items)
    top = np.partition(rates, items - count, axis=1)[:, items - count :].mean(axis=1, keepdims=True)
    ratio: Floats = (rates + np.float32(0.5)) / (top + np.float32(0.5))
    return ratio


def _count(rates: np.ndarray[tuple[int, int], np.dtype[np.float64]], item: Integers, age: Times) -> None:
    few, place = np.unique(item, return_inverse=True)
    for row, half_life in zip(rates, HALF_LIVES, strict=True):
        row[few] += np.bincount(place, weights=np.exp2(-age / half_life), minlength=len(few))
