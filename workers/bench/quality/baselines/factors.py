"""iALS (Hu, Koren and Volinsky, ICDM 2008; package implicit): user and item factors of what was met."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from workers.bench.quality.baselines.base import Data, Params, Recency, histories, met
from workers.bench.quality.dataset import Floats
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Scorer

ITERATIONS = 15
CONFIDENCE = ((1.0, 1.0), (2.0, 10.0), (10.0, 100.0))  # alpha, penalty


@dataclass(frozen=True)
class Factors:
    """Item factors; a user's are solved from the history as it is."""

    data: Data
    model: AlternatingLeastSquares

    def scores(self, cases: Cases) -> Floats:
        """Scores (cases, items)."""
        past = histories(self.data, cases, Recency())
        with threadpool_limits(1, "blas"):
            users = self.model.recalculate_user(np.arange(len(cases)), past)
        scores: Floats = users @ self.model.item_factors.T
        return scores


class IALS:
    """iALS."""

    name = "iALS"

    def __init__(self, data: Data, seed: int) -> None:
        self._data, self._seed = data, seed

    def grid(self) -> Sequence[Params]:
        """Factors, confidence in what was met, penalty."""
        return [{"factors": f, "alpha": a, "penalty": p} for f in (64.0, 128.0) for a, p in CONFIDENCE]

    def fit(self, when: Split, params: Params) -> Scorer:
        """Alternate."""
        # implicit warns of a BLAS with threads of its own already when a model is made
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=int(params["factors"]),
                alpha=params["alpha"],
                regularization=params["penalty"],
                iterations=ITERATIONS,
                num_threads=1,
                random_state=self._seed,
            )
            model.fit(met(self._data, when), show_progress=False)
        return Factors(self._data, model)
