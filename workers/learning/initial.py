"""Where training starts: vectors whose inner products are EASE's weights, and the map of content that comes nearest.

EASE (Steck 2019, arXiv 1905.03375): B = I - P / diag(P), P = (X'X + penalty I)^-1, for users x items X.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from workers.learning.data import Floats, Integers, TrainingData
from workers.learning.settings import Settings
from workers.learning.towers import ItemTower

SCALE = 4.0  # of the factors: inner products start 16 times as far apart as EASE's scores, as logits need to be
RIDGE = 10.0  # penalty of the map from content


def initialise(tower: ItemTower, data: TrainingData, settings: Settings) -> None:
    """Set the tower's parameters."""
    components(tower, data.content)
    met, count = np.unique(data.item[data.wanted()], return_counts=True)
    popular = met[np.argsort(-count, kind="stable")[: settings.ease_items]]
    if len(popular) < 2:
        return
    context, item = factors(ease(data, popular, settings.ease_penalty), settings.learned, settings.seed)
    with torch.no_grad():
        content = tower.project(torch.from_numpy(data.content)).numpy()
        for vectors, mapping, identity in (
            (item, tower.content_item, tower.identity_item),
            (context, tower.content_context, tower.identity_context),
        ):
            weights = ridge(content[popular], vectors)
            mapping.copy_(torch.from_numpy(weights))
            identity[torch.from_numpy(popular)] = torch.from_numpy(vectors - content[popular] @ weights)


def components(tower: ItemTower, content: Floats) -> None:
    """Set the projection on the principal components of the known encoder vectors."""
    known = content[np.abs(content).sum(axis=1) > 0].astype(np.float64)
    if not len(known):
        return
    mean = known.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((known - mean).T, bias=True))
    count = min(tower.components.shape[1], axes.shape[1])
    axes = axes[:, ::-1][:, :count]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(count)])  # the sign is free: make it certain
    tower.mean.copy_(torch.from_numpy(mean))
    tower.components[:, :count] = torch.from_numpy(axes.copy())


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


def factors(weights: Floats, rank: int, seed: int) -> tuple[Floats, Floats]:
    """Return left and right factors (items, rank) of the best approximation of that rank."""
    torch.manual_seed(seed)
    count = min(rank, len(weights))
    u, s, v = torch.svd_lowrank(torch.from_numpy(weights), q=min(count + 32, len(weights)), niter=4)
    root = s[:count].sqrt()
    padding = (0, rank - count)
    left, right = (torch.nn.functional.pad(side[:, :count] * root, padding) for side in (u, v))
    return (SCALE * left).numpy(), (SCALE * right).numpy()


def ridge(inputs: Floats, outputs: Floats) -> NDArray[np.float32]:
    """Return the linear map (inputs, outputs) of least squares with a penalty."""
    gram = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1], dtype=np.float32)
    mapping: NDArray[np.float32] = np.linalg.solve(gram, inputs.T @ outputs).astype(np.float32)
    return mapping
