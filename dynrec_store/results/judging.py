"""What judging returns: metrics, comparisons, live traffic, experiments."""

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class EvaluatedList:
    """The list of a user at a moment of the past, and what the user did after it."""

    user_id: str
    recommended: list[str]  # item keys, best first
    scores: list[float]  # of recommended
    sources: list[str]  # of recommended
    relevant: list[str]  # item keys: what the list should have found
    gains: list[float]  # of relevant: how much each is worth, 0 and up
    is_new: bool  # nothing was known of the user
    model_version: int


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of many lists: a row of dynrec.evaluate."""

    metric: str  # such as ndcg_at_k
    at_k: int
    slice: str  # all, new users, known users, cold items, or 'column: value'
    value: float  # the mean over n users, or of all lists together
    standard_error: float | None  # None for one user, or for very few where only all lists together have a value
    low: float | None  # of the 95 per cent interval
    high: float | None
    n: int  # users


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two model versions by one metric on the same users: a row of dynrec.compare_models."""

    metric: str
    at_k: int
    slice: str
    value: float  # mean of the one
    baseline_value: float  # mean of the other
    difference: float  # mean of the pairs' differences
    standard_error: float | None
    low: float | None  # of the difference's 95 per cent interval
    high: float | None
    p_value: float | None  # of no difference, two-sided; None where all pairs differ alike
    wins: int  # users for whom the one was better
    losses: int
    ties: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Items of like scores in many lists: a row of dynrec.score_calibration."""

    model_version: int
    bin: int  # 1 has the lowest scores
    low_score: float
    high_score: float
    expected: float | None  # learned models: share of a list's hits that the scores promise; None in a content space
    observed: float  # learned models: the share they had; in a content space the share of the items that were hits
    standard_error: float | None  # of observed
    items: int
    hits: int


@dataclass(frozen=True, slots=True)
class OnlineMetrics:
    """How users took to what they were shown: a row of dynrec.online_metrics; None: not told apart by it."""

    model_version: int | None
    surface: str | None
    experiment: str | None
    arm: str | None
    position: int | None  # 1 is the first
    day: date | None  # in UTC
    lists: int
    users: int
    impressions: int  # items shown
    click_through: float  # share of impressions, 0 to 1
    click_through_error: float | None  # standard error; None for one user
    conversion: float | None  # share of impressions; None unless conversion_kinds were given
    conversion_error: float | None
    value_per_impression: float
    satisfaction: float  # sum of weights, by list
    mean_value: float | None  # of the interactions that have a value, such as a rating


@dataclass(frozen=True, slots=True)
class ExperimentVerdict:
    """An experiment and what is known of it by now: a row of dynrec.experiments."""

    recommender: str
    experiment: str
    state: str  # running or ended
    started_at: datetime
    ended_at: datetime | None
    traffic: float  # share of the users that take part, 0 to 1
    metric: str  # that the verdict is about
    arms: list[str]  # the baseline first
    exposed: list[int]  # users who met each arm
    sample_ratio_p: float  # below 0.01: users of the arms are not in the ratio that they were assigned in
    best_arm: str | None  # beside the baseline
    difference: float | None  # of it from the baseline
    low: float | None  # of the sequential 95 per cent interval
    high: float | None
    verdict: str  # begins with invalid, too early, better, worse, undecided or unknown


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """An arm by one metric: a row of dynrec.experiment_results; None: the baseline, or not known yet."""

    arm: str
    metric: str
    is_primary: bool  # the verdict is about this metric
    users: int  # whose time after the first exposure is over
    value: float | None
    standard_error: float | None
    difference: float | None  # from the baseline
    relative_difference: float | None  # as a share of the baseline
    low: float | None  # of the sequential 95 per cent interval of the difference
    high: float | None
    p_value: float | None  # of no difference, at any number of looks
