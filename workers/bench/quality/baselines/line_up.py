"""All baselines, in the order in which they are tuned: the blend is made of tuned ones."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynrec_store.exceptions import ConfigurationError
from workers.bench.quality.baselines.base import Data, Family, WithFallback
from workers.bench.quality.baselines.blend import Blend
from workers.bench.quality.baselines.content import Content, Encode
from workers.bench.quality.baselines.factors import IALS
from workers.bench.quality.baselines.neighbours import Ease, Inverted, ItemKNN
from workers.bench.quality.baselines.popularity import AllTime, DecayedPopularity, LastDays
from workers.bench.quality.baselines.sequence import SASRec
from workers.bench.quality.baselines.tuning import Tuned, tune
from workers.bench.quality.progress import Progress, silent
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.ranking import Ranker, Scorer

NAMES = (
    "most popular",
    "recent popularity",
    "decayed popularity",
    "ItemKNN",
    "iALS",
    "EASE",
    "EASE, recency",
    "SASRec",
    "content",
    "blend",
)


@dataclass(frozen=True)
class Validation:
    """Where baselines are tuned."""

    split: Split
    cases: Mapping[str, Cases]  # by protocol
    ranker: Ranker


@dataclass(frozen=True)
class Fitted:
    """A baseline for one protocol, fitted anew on all that lies before the test period."""

    model: Scorer
    tuned: Tuned
    fit_seconds: float


class LineUp:
    """Tunes and fits by name; what a baseline is made of is tuned first."""

    def __init__(self, data: Data, encode: Encode, validation: Validation, seed: int) -> None:
        inverted: Inverted = {}
        families: Sequence[Family] = (
            AllTime(data),
            LastDays(data),
            DecayedPopularity(data),
            ItemKNN(data),
            IALS(data, seed),
            Ease(data, recent=False, known=inverted),
            Ease(data, recent=True, known=inverted),
            SASRec(data, seed),
            Content(data, encode),
        )
        self._data, self._validation = data, validation
        self._families = {family.name: family for family in families}
        self._tuned: dict[str, Tuned] = {}
        self._progress: Progress = silent

    def fit(self, name: str, protocol: str, when: Split, progress: Progress = silent) -> Fitted:
        """Tune the baseline and what it is made of, unless that was done, and fit it at the split."""
        self._progress = progress
        tuned = self._tune(name, protocol)
        progress(f"fitting {name}", 0.0)
        began = time.perf_counter()
        model = self._family(name, protocol).fit(when, tuned.params[protocol])
        if name not in ("most popular", "recent popularity", "decayed popularity"):
            model = WithFallback(model, self._best("decayed popularity", protocol, when))
        return Fitted(model, tuned, time.perf_counter() - began)

    def _best(self, name: str, protocol: str, when: Split) -> Scorer:
        return self._family(name, protocol).fit(when, self._tune(name, protocol).params[protocol])

    def _better_ease(self, protocol: str) -> str:
        return max(("EASE", "EASE, recency"), key=lambda name: self._tune(name, protocol).ndcg[protocol])

    def _tune(self, name: str, protocol: str) -> Tuned:
        key = self._key(name, protocol)
        if key not in self._tuned:
            v = self._validation
            cases = {protocol: v.cases[protocol]} if name == "blend" else v.cases
            self._tuned[key] = tune(self._family(name, protocol), v.split, cases, v.ranker, self._progress)
        return self._tuned[key]

    def _family(self, name: str, protocol: str) -> Family:
        key = self._key(name, protocol)
        if key not in self._families:
            if name != "blend":
                raise ConfigurationError(f"there is no model {name!r}: choose from {', '.join(NAMES)}")
            self._families[key] = Blend(
                self._data,
                lambda when: self._best(self._better_ease(protocol), protocol, when),
                lambda when: self._best("content", protocol, when),
            )
        return self._families[key]

    @staticmethod
    def _key(name: str, protocol: str) -> str:
        return f"{name}, {protocol}" if name == "blend" else name
