"""Which items are met by the same users: EASE (Steck 2019, arXiv 1905.03375).

B = I - P / diag(P), P = (X'X + penalty I)^-1, for users x items X.
"""

import numpy as np
import torch
from scipy import sparse

from workers.learning.data import Floats, Integers, TrainingData


def most_met(data: TrainingData, count: int) -> Integers:
    """Return up to so many items, ascending: those that were met most."""
    met, times = np.unique(data.item[data.wanted()], return_counts=True)
    return np.sort(met[np.argsort(-times, kind="stable")[:count]])


def ease(data: TrainingData, items: Integers, penalty: float) -> Floats:
    """Return the weights (items, items) of the given items; the score of j for a user is the sum of B[i, j]."""
    column = np.full(len(data.items) + 1, -1)
    column[items] = np.arange(len(items))
    wanted = data.wanted() & (column[data.item] >= 0)
    pairs = np.unique(np.stack([data.user[wanted], column[data.item[wanted]]]), axis=1)
    shape = (len(data.users), len(items))
    met = sparse.csr_matrix((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=shape)
    gram = (met.T @ met).toarray().astype(np.float32)
    gram[np.diag_indices(len(items))] += penalty
    inverse: Floats = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram))).numpy()
    weights: Floats = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0.0)
    return weights
