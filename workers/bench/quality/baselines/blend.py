"""The hard one: EASE, momentary popularity and content, blended by weights that were tuned on the validation period."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workers.bench.quality.baselines.base import Data, Params, Remembering
from workers.bench.quality.baselines.popularity import Decayed
from workers.bench.quality.dataset import Floats
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Scorer


@dataclass(frozen=True)
class Blended:
    """A weighted sum of parts that were brought to one scale."""

    ease: Scorer
    popularity: Scorer
    content: Scorer
    popularity_weight: float
    content_weight: float

    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items)."""
        scores = _by_largest(self.ease.scores(cases))
        if self.popularity_weight:
            scores += np.float32(self.popularity_weight) * self.popularity.scores(cases)
        if self.content_weight:
            scores += np.float32(self.content_weight) * self.content.scores(cases)
        return scores


@dataclass(frozen=True)
class Popularity:
    """Decayed counts against the largest: 1 at the top, lower elsewhere."""

    counts: Decayed

    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items)."""
        return _by_largest(self.counts.scores(cases))


class Blend:
    """Made of models that were tuned before it."""

    name = "blend"

    def __init__(self, data: Data, ease: Callable[[Split], Scorer], content: Callable[[Split], Scorer]) -> None:
        self._data, self._ease, self._content = data, ease, content
        self._parts: tuple[Split, Scorer, Scorer, dict[float, Scorer]] | None = None

    def grid(self) -> Sequence[Params]:
        """Half-life of popularity, and the weights: larger ones fit one window and fail on the next."""
        return [
            {"half_life": days, "popularity": p, "content": c}
            for days in (1.0, 7.0, 30.0)
            for p in (0.0, 0.1, 0.3, 1.0)
            for c in (0.0, 0.3, 1.0)
            if p or days == 1.0
        ]

    def fit(self, when: Split, params: Params) -> Scorer:
        """Put the parts together."""
        if self._parts is None or self._parts[0] != when:
            self._parts = when, Remembering(self._ease(when)), Remembering(self._content(when)), {}
        _, ease, content, popularity = self._parts
        days = params["half_life"]
        if days not in popularity:
            popularity[days] = Remembering(Popularity(Decayed(self._data, days)))
        return Blended(ease, popularity[days], content, params["popularity"], params["content"])


def _by_largest(scores: Floats) -> Floats:
    largest = np.abs(scores).max(axis=1, keepdims=True)
    scaled: Floats = np.divide(scores, largest, out=np.zeros_like(scores), where=largest > 0)
    return scaled
