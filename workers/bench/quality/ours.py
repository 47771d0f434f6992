"""The answers of the real system to the cases of both protocols."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynrec_store.settings import Settings
from workers.bench.quality.dataset import DAY, Dataset, Flags, Ints
from workers.bench.quality.metrics import K, Lists, cold_rows
from workers.bench.quality.progress import Progress, silent
from workers.bench.quality.protocols import Cases, Split
from workers.bench.quality.system import System, system

OURS = "dynrec"  # the learned model, with the defaults of training
CONTENT = "dynrec content"  # what the same recommender answers before it has one
ENCODER = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Answers:
    """What one of our models answered under one protocol."""

    model: str
    protocol: str
    lists: Lists
    fit_seconds: float  # training; for the content space encoding and indexing
    trainings: int  # models that were trained by the end of the protocol


@dataclass(frozen=True)
class Plan:
    """How the system is run."""

    retrain_days: float | None = None  # train on after so many days of the walk
    encoder: str = ENCODER
    training: Mapping[str, object] | None = None  # hyper-parameters other than the defaults
    models: Sequence[str] = (OURS, CONTENT)


def answers(
    settings: Settings,
    dataset: Dataset,
    when: Split,
    protocols: Mapping[str, Cases],
    cold: Flags,
    plan: Plan,
    progress: Progress = silent,
) -> list[Answers]:
    """Fill a database, train at the split, then walk through the cases of one protocol after the other.

    `protocols` in the order in which they go on in time: the fixed one first; all with or all without repeats, as the
    recommender is declared, and learns, for one of the two. Nothing after the split is in the database before its turn.
    """
    with system(settings, dataset, when) as running:
        progress("vectors of all items", 0.0)
        started = time.perf_counter()
        running.declare(cold, plan.encoder, repeat=any(cases.repeat for cases in protocols.values()))
        seconds = {CONTENT: time.perf_counter() - started}
        if OURS in plan.models:
            seconds[OURS] = running.train(plan.training or {}, progress)
        found = []
        for protocol, cases in protocols.items():
            lists = _Walk(running, dataset, cases, cold, plan, progress).lists(f"{protocol}, dynrec")
            trainings = running.trainings()
            found += [Answers(model, protocol, lists[model], seconds[model], trainings) for model in plan.models]
        return found


class _Walk:
    """Through the cases in the order of time."""

    def __init__(
        self, running: System, dataset: Dataset, cases: Cases, cold: Flags, plan: Plan, progress: Progress
    ) -> None:
        self._running, self._cases, self._plan, self._progress = running, cases, plan, progress
        self._items = dataset.attributes.index
        self._cold_rows = set(cold_rows(cases, cold).tolist())
        self._trained = int(cases.now[0]) if len(cases) else 0

    def lists(self, what: str) -> dict[str, Lists]:
        """What the models of the plan answer."""
        tops: dict[str, list[Ints]] = {model: [] for model in self._plan.models}
        colds: dict[str, list[Ints]] = {model: [] for model in self._plan.models}
        for row, (user, position, now) in enumerate(
            zip(self._cases.user.tolist(), self._cases.position.tolist(), self._cases.now.tolist(), strict=True)
        ):
            self._running.move(position, now)
            self._retrain(now)
            for model in self._plan.models:
                tops[model].append(self._ask(model, user, now, only_cold=False))
                if row in self._cold_rows:
                    colds[model].append(self._ask(model, user, now, only_cold=True))
            self._progress(what, (row + 1) / len(self._cases))
        return {model: Lists(_stacked(tops[model]), _stacked(colds[model])) for model in self._plan.models}

    def _ask(self, model: str, user: int, now: int, *, only_cold: bool) -> Ints:
        version = self._running.content_model if model == CONTENT else None
        rows = self._items.get_indexer(self._running.ask(user, now, version, only_cold=only_cold))
        return np.pad(rows[:K], (0, K - len(rows[:K])), constant_values=-1).astype(np.int64)

    def _retrain(self, now: int) -> None:
        days = self._plan.retrain_days
        if days is None or now - self._trained < days * DAY or OURS not in self._plan.models:
            return
        self._trained = now
        self._running.tell_time(now)
        self._running.train(self._plan.training or {}, self._progress, continue_active=True)


def _stacked(rows: Sequence[Ints]) -> Ints:
    return np.array(rows, np.int64).reshape(-1, K)
