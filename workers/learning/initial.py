"""Where training starts: vectors whose inner products are EASE's weights, and the map of content that comes nearest."""

import numpy as np
import torch
from numpy.typing import NDArray

from workers.learning.data import Floats, TrainingData
from workers.learning.ease import ease, most_met
from workers.learning.settings import Settings
from workers.learning.towers import ItemTower

SCALE = 4.0  # of the factors: inner products start 16 times as far apart as EASE's scores, as logits need to be
RIDGE = 10.0  # penalty of the map from content


def initialise(tower: ItemTower, data: TrainingData, settings: Settings) -> None:
    """Set the tower's parameters."""
    components(tower, data.content)
    popular = most_met(data, settings.ease_items)
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
