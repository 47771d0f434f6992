"""Content alone: the cosine of an item's text and what the user met, which knows items that nobody has met."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workers.bench.quality.baselines.base import Data, Params, Recency, histories, recency
from workers.bench.quality.dataset import Floats
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Scorer

Encode = Callable[[Sequence[str]], Floats]  # (texts, dimension), each of length 1


@dataclass(frozen=True)
class Centroid:
    """Vectors (items, dimension) of length 1, or 0 where there is no text."""

    data: Data
    vectors: Floats
    recency: Recency

    def scores(self, cases: Cases) -> Floats:
        """Cosines (cases, items)."""
        user = np.asarray(histories(self.data, cases, self.recency) @ self.vectors)
        length = np.linalg.norm(user, axis=1, keepdims=True)
        scores: Floats = np.divide(user, length, out=np.zeros_like(user), where=length > 0) @ self.vectors.T
        return scores


class Content:
    """The centroid of the history's encoder vectors."""

    name = "content"

    def __init__(self, data: Data, encode: Encode) -> None:
        self._data, self._encode = data, encode
        self._known: dict[str, Floats] = {}

    def grid(self) -> Sequence[Params]:
        """Whether the mean of all vectors is taken off, and what is left of the history."""
        left: Sequence[Params] = ({}, {"days": 90.0}, {"days": 7.0}, {"items": 3.0}, {"items": 10.0}, {"items": 30.0})
        return [{"centred": centred, **some} for centred in (0.0, 1.0) for some in left]

    def fit(self, when: Split, params: Params) -> Scorer:
        """Encode the texts in force at the split."""
        vectors = self._vectors(self._data.dataset.texts_at(when.moment))
        return Centroid(self._data, _centred(vectors) if params["centred"] else vectors, recency(params))

    def _vectors(self, texts: Sequence[str]) -> Floats:
        new = sorted(set(texts) - self._known.keys() - {""})
        if new:
            self._known.update(zip(new, self._encode(new), strict=True))
        nothing = np.zeros_like(next(iter(self._known.values()))) if self._known else np.zeros(1, np.float32)
        return np.array([self._known.get(text, nothing) for text in texts], np.float32)


def _centred(vectors: Floats) -> Floats:
    """Without what all have in common, of length 1 again."""
    moved = np.where(vectors.any(axis=1, keepdims=True), vectors - vectors.mean(axis=0), np.float32(0))
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    unit: Floats = np.divide(moved, length, out=np.zeros_like(moved), where=length > 0)
    return unit
