"""nDCG of ranked candidates.

nDCG@k = sum over the first k of [relevant] / log2(1 + rank), divided by the same sum for the best possible list;
0 where nothing relevant is found. Examples without targets do not exist.
"""

import numpy as np

from workers.learning.data import Floats, Integers
from workers.learning.examples import Examples

K = 10


def ndcg(items: Integers, scores: Floats, examples: Examples, k: int = K) -> Floats:
    """Return nDCG@k of each example (B,); `items` (B, K) below 0 are padding, equal scores keep their order."""
    scores = np.where(items < 0, -np.inf, scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    first = np.where(np.take_along_axis(scores, order, axis=1) > -np.inf, np.take_along_axis(items, order, axis=1), -1)
    found = np.zeros(first.shape, dtype=np.bool_)
    count = np.diff(examples.first)
    for row, top in enumerate(first):
        found[row] = np.isin(top, examples.target[examples.first[row] : examples.first[row + 1]])
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discount)[np.minimum(count, k) - 1]
    gain: Floats = ((found * discount[: first.shape[1]]).sum(axis=1) / best).astype(np.float32)
    return gain
