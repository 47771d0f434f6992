"""What a report is made of, read from the database."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from dynrec_store.exceptions import InvalidArgumentError, UnknownNameError
from dynrec_store.results import (
    Alert,
    CalibrationBin,
    DataDrift,
    ExperimentVerdict,
    Measurement,
    Metric,
    ModelVersion,
    OnlineMetrics,
)
from dynrec_store.store import FeatureStore

USERS = 1000  # whose lists are judged, drawn by a hash
TRAFFIC = timedelta(days=30)  # until the end of the period

T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """A recommender at a moment, and the lists of `begin` judged by what users did until `end`."""

    recommender: str
    made_at: datetime
    begin: datetime
    end: datetime
    k: int
    models: Sequence[ModelVersion]
    active: ModelVersion  # of models, the one that answers now
    alerts: Sequence[Alert]  # of this recommender, and of all
    metrics: Sequence[Metric]  # empty: nothing could be judged, `obstacle` says why
    obstacle: str | None
    calibration: Sequence[CalibrationBin]
    exposure: Sequence[int]  # how often each item of the catalogue was in a list, ascending
    measurements: Sequence[Measurement]
    drift: Sequence[DataDrift]
    traffic: Sequence[OnlineMetrics]  # by model version and day
    experiments: Sequence[ExperimentVerdict]


def gather(
    store: FeatureStore,
    recommender: str,
    begin: datetime,
    end: datetime,
    *,
    k: int = 10,
    users: int = USERS,
    category: str | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Facts:
    """Read everything; UnknownNameError for a recommender that does not exist. `told` hears what is being read.

    A period that cannot be judged, such as one before there were vectors, leaves only what needs none.
    """
    told("model versions and alerts")
    models = [model for model in store.model_versions() if model.recommender == recommender]
    if not models:
        raise UnknownNameError(f"no recommender named {recommender!r}")
    alerts = [alert for alert in store.alerts() if alert.recommender in (recommender, None)]
    told("lists of the period")
    lists, obstacle = _judged(lambda: store.evaluation_lists(recommender, begin, end, k=k, users=users))
    metrics = store.evaluate(recommender, begin, end, k=[k], users=users, category=category) if lists else []
    shown = Counter(item for one in lists for item in one.recommended)
    told("calibration, drift and traffic")
    active = next(model for model in models if model.is_active)
    return Facts(
        recommender=recommender,
        made_at=datetime.now(UTC),
        begin=begin,
        end=end,
        k=k,
        models=models,
        active=active,
        alerts=alerts,
        metrics=metrics,
        obstacle=obstacle,
        calibration=store.score_calibration(recommender, begin, end, k=k, users=users) if lists else [],
        exposure=sorted([0] * max(active.items - len(shown), 0) + list(shown.values())) if shown else [],
        measurements=[one for one in store.measurements() if one.recommender == recommender],
        drift=store.data_drift(recommender),
        traffic=_judged(lambda: store.online_metrics(recommender, end - TRAFFIC, end, by=["model_version", "day"]))[0],
        experiments=store.experiments(recommender),
    )


def _judged(read: Callable[[], list[T]]) -> tuple[list[T], str | None]:
    try:
        return read(), None
    except InvalidArgumentError as error:
        return [], str(error)
