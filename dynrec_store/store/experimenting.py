"""Experiments: beginning and ending them, who is in which arm, and what came of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.rows import class_row, dict_row

from dynrec_store.exceptions import UnknownNameError
from dynrec_store.experiments import Arm, Experiment
from dynrec_store.results import ExperimentResult, ExperimentVerdict
from dynrec_store.store.arguments import adapted, json_text, key, listed
from dynrec_store.store.calls import Calls, Key

_ARMS = sql.SQL(
    "select traffic, ended_at, arm, share, upper_bound, model_version from dynrec.experiment_arms"
    " where recommender = %(recommender)s and experiment = %(experiment)s order by position"
)

_VERDICTS = sql.SQL(
    "select * from dynrec.experiments where %(recommender)s::text is null or recommender = %(recommender)s::text"
)


class Experimenting(Calls):
    """The part of FeatureStore that runs experiments.

    All raise UnknownNameError for a recommender or an experiment that does not exist and InvalidArgumentError for a
    value that will not do.
    """

    def create_experiment(
        self,
        recommender: str,
        name: str,
        arms: Sequence[Mapping[str, Any]],
        *,
        metric: str = "satisfaction_per_user",
        within: timedelta = timedelta(days=7),
        traffic: float = 1.0,
        planned_users: int = 10_000,
        conversion_kinds: Sequence[str] | None = None,
    ) -> None:
        """Divide users among arms from now on, the baseline first.

        `arms`: for example `[{"arm": "control"}, {"arm": "deep", "model_version": 4}]`; one may also have `share` (its
        weight beside the others), `diversity` and `exclude_seen`. `metric`: what the verdict is about, of what a user
        does `within` so long after the first exposure. `traffic`: share of the users that take part. With
        `planned_users` the sequential intervals are tightest.
        """
        self._value(
            "create_experiment",
            recommender=recommender,
            name=name,
            arms=json_text("arms", arms),
            metric=metric,
            within=within,
            traffic=traffic,
            planned_users=planned_users,
            conversion_kinds=None if conversion_kinds is None else listed("conversion_kinds", conversion_kinds),
        )

    def alter_experiment(self, recommender: str, experiment: str, *, traffic: float) -> None:
        """Let more users take part; those who did stay in their arms."""
        self._value("alter_experiment", recommender=recommender, experiment=experiment, traffic=traffic)

    def stop_experiment(self, recommender: str, experiment: str) -> None:
        """Serve everybody as without the experiment from now on."""
        self._value("stop_experiment", recommender=recommender, experiment=experiment)

    def experiment(self, recommender: str, name: str) -> Experiment:
        """The experiment, whose `arm_of` says without another query which arm a user is in."""
        rows = self._fetch(
            dict_row, _ARMS, {"recommender": adapted("recommender", recommender), "experiment": adapted("name", name)}
        )
        if not rows:
            raise UnknownNameError(f"recommender {recommender!r} has no experiment named {name!r}")
        arms = [Arm(row["arm"], row["share"], row["upper_bound"], row["model_version"]) for row in rows]
        return Experiment(recommender, name, rows[0]["traffic"], arms, rows[0]["ended_at"])

    def experiment_arm(self, recommender: str, experiment: str, user_id: Key) -> str | None:
        """The arm that a user is in; None for who does not take part, and after the end."""
        arm: str | None = self._value(
            "experiment_arm", recommender=recommender, experiment=experiment, user_id=key("user_id", user_id)
        )
        return arm

    def log_exposure(self, recommender: str, experiment: str, user_id: Key) -> str | None:
        """Note that a user meets the experiment now, and return the arm; `log_impressions` notes it by itself."""
        arm: str | None = self._value(
            "log_exposure", recommender=recommender, experiment=experiment, user_id=key("user_id", user_id)
        )
        return arm

    def experiments(self, recommender: str | None = None) -> list[ExperimentVerdict]:
        """Every experiment, of one recommender or of all, with its verdict."""
        return self._fetch(
            class_row(ExperimentVerdict), _VERDICTS, {"recommender": adapted("recommender", recommender)}
        )

    def experiment_results(
        self, recommender: str, experiment: str, *, until: datetime | None = None
    ) -> list[ExperimentResult]:
        """What came of each arm in each metric up to a moment (default: now), the primary metric first."""
        return self._rows(
            ExperimentResult, "experiment_results", recommender=recommender, experiment=experiment, until=until
        )
