"""Models whose score of an item is a sum over the user's history of weights between items: ItemKNN and EASE."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from scipy import sparse
from threadpoolctl import threadpool_limits

from workers.bench.quality.baselines.base import Data, Params, Recency, histories, met, recency
from workers.bench.quality.dataset import Floats, Ints
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Scorer

ITEMS = 8000  # EASE's matrix has that many rows at most, of the items met by most users: inverting it is cubic
RECENT = (
    {"days": 7.0},
    {"days": 30.0},
    {"days": 90.0},
    {"items": 3.0},
    {"items": 10.0},
    {"items": 30.0},
)  # see Recency


Inverted = dict[tuple[Split, float], tuple[Ints, Floats]]  # by split and penalty: what `ease` returns


@dataclass(frozen=True)
class Weights:
    """Weights between some of the items: from a row to a column."""

    data: Data
    items: Ints  # what rows and columns are
    weights: Any  # dense or sparse
    recency: Recency

    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items); 0 for items that are not in the matrix."""
        past = histories(self.data, cases, self.recency)[:, self.items]
        found = past @ self.weights
        scores = np.zeros((len(cases), self.data.items), np.float32)
        scores[:, self.items] = found if isinstance(found, np.ndarray) else found.toarray()
        return scores


class ItemKNN:
    """Cosine of the columns of the matrix users x items, of the nearest neighbours (package implicit)."""

    name = "ItemKNN"

    def __init__(self, data: Data) -> None:
        self._data = data
        self._known: dict[tuple[Split, float], Any] = {}

    def grid(self) -> Sequence[Params]:
        """Neighbours, and what is left of the history."""
        return [{"neighbours": n, **left} for n in (20.0, 100.0, 500.0) for left in ({}, *RECENT)]

    def fit(self, when: Split, params: Params) -> Scorer:
        """Find the neighbours."""
        key = when, params["neighbours"]
        if key not in self._known:
            model = CosineRecommender(K=int(params["neighbours"]), num_threads=1)
            with threadpool_limits(1, "blas"), warnings.catch_warnings():
                warnings.simplefilter("ignore", ParameterWarning)  # it converts its own matrix
                model.fit(met(self._data, when), show_progress=False)
            self._known[key] = model.similarity.astype(np.float32).tocsr()
        return Weights(self._data, np.arange(self._data.items), self._known[key], recency(params))


class Ease:
    """EASE (Steck 2019, arXiv 1905.03375); `recent`: the latest of the history weighs more.

    `known` holds what was inverted, for both sorts.
    """

    def __init__(self, data: Data, *, recent: bool, known: Inverted) -> None:
        self.name = "EASE, recency" if recent else "EASE"
        self._data, self._recent, self._known = data, recent, known

    def grid(self) -> Sequence[Params]:
        """Penalties, and what is left of the history."""
        return [{"penalty": p, **left} for p in (100.0, 300.0, 1000.0) for left in (RECENT if self._recent else ({},))]

    def fit(self, when: Split, params: Params) -> Scorer:
        """Invert the matrix."""
        key = when, params["penalty"]
        if key not in self._known:
            self._known[key] = ease(met(self._data, when), params["penalty"])
        return Weights(self._data, *self._known[key], recency(params))


def ease(met_by: sparse.csr_matrix, penalty: float) -> tuple[Ints, Floats]:
    """Return items and the weights between them: B = I - P / diag(P), P = (X'X + penalty I)^-1."""
    users = np.asarray(met_by.sum(axis=0)).ravel()
    items = np.argsort(-users, kind="stable")[:ITEMS]
    items = np.sort(items[users[items] > 0]).astype(np.int64)
    columns = met_by[:, items]
    gram = (columns.T @ columns).toarray().astype(np.float32)
    gram[np.diag_indices(len(items))] += penalty
    inverse: Floats = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram))).numpy()
    weights: Floats = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0.0)
    return items, weights
