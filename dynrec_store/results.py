"""What the functions of schema dynrec return: a frozen dataclass for each kind of row, fields named as its columns."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A row of a list."""

    item_id: str  # the item's key as text
    rank: int  # 1, 2, … in the order of the list
    score: float  # higher is better; comparable within one list only
    source: str  # the path that made the row: personal, session, similar, search, repeat, trending or fallback
    model_version: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """One past interaction's share in an item's score for a user."""

    because_item_id: str | None  # the item of that interaction
    kind: str | None  # of that interaction
    occurred_at: datetime | None
    weight: float | None  # after decay
    similarity: float | None  # cosine of the two items, -1 to 1
    contribution: float | None  # share of the score
    reason: str  # the same as a sentence


@dataclass(frozen=True, slots=True)
class Declared:
    """A new recommender; the counts are estimates of what the backfill will read."""

    recommender: str
    model_version: int
    item_rows: int
    interaction_rows: int


@dataclass(frozen=True, slots=True)
class Alteration:
    """What an alteration makes outdated."""

    items_to_recompute: int
    users_to_recompute: int


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model that turns an item's text into a vector: a row of dynrec.encoders."""

    encoder: str  # its name
    family: str  # sentence-transformers or hashing
    model: str  # name or path of the model; empty for hashing
    dimension: int
    created_at: datetime
    recommenders: int  # that use it


@dataclass(frozen=True, slots=True, eq=False)
class ItemVersion:
    """A version of an item: what its source row said, and its vector. Without `eq`, as arrays have no single truth."""

    version: int  # 1 is the oldest
    valid_from: datetime  # when true in the world …
    valid_to: datetime | None  # … and until when; None: still
    created_at: datetime  # when stored …
    replaced_at: datetime | None  # … and when replaced; None: not yet
    embedding: Float32 | None  # (dimension,)
    content_hash: str | None  # sha256 of the text that the encoder saw, in hexadecimal
    features: dict[str, Any] | None  # numeric and categorical columns
    is_current: bool

    @classmethod
    def of_row(cls, embedding: object, **columns: Any) -> Self:  # noqa: ANN401 - as the fields say
        """The version that a row of dynrec.item_history holds."""
        return cls(embedding=as_array(embedding), **columns)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far an item's vector moved from the version before."""

    version: int
    valid_from: datetime
    cosine_distance: float | None  # 0 to 2; None for the first version


@dataclass(frozen=True, slots=True)
class Status:
    """How a recommender stands: a row of dynrec.status."""

    recommender: str
    items: str  # the table
    interactions: str | None  # the table
    paused: bool
    model_version: int
    encoder: str  # or 'adopted', where the item table holds the vectors
    queued: int  # entities with a change that waits
    leased: int  # entities that a worker has
    tasks: int  # set-based work that waits, such as a backfill's scan
    dead_letters: int  # entities that were given up
    dispatchers: int  # processes alive, of all recommenders
    workers: int  # processes alive, of all recommenders


@dataclass(frozen=True, slots=True)
class QueueLine:
    """Changes that wait, of one kind and lane: a row of dynrec.queue."""

    recommender: str
    kind: str  # item or user
    lane: str  # live, backfill, alone (suspects tried singly) or parked (backing off)
    changes: int
    entities: int
    oldest: datetime
    waiting: timedelta


@dataclass(frozen=True, slots=True)
class Failure:
    """An entity that could not be recomputed: a row of dynrec.failures."""

    recommender: str
    kind: str  # item or user
    entity: str
    state: str  # retrying or dead letter
    attempts: int
    error: str
    at: datetime | None  # when it is tried again, or was given up; None: when a worker gets to it


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far vectors are behind their sources: a row of dynrec.freshness."""

    recommender: str
    kind: str  # item or user
    entities: int
    stale: int  # entities with a change that waits
    oldest: datetime | None  # the oldest such change
    lag_p50: timedelta | None  # from change to stored vector, over the last hour; None: nothing was stored in it
    lag_p99: timedelta | None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One vector space of a recommender: a row of dynrec.model_versions."""

    recommender: str
    model_version: int
    kind: str  # content: the encoder's vectors, or learned
    state: str  # staged, training, failed, backfilling, shadow, active, standby or retired
    is_active: bool
    encoder: str  # or 'adopted'
    dimension: int
    base_model: int | None  # learned: whose content vectors its towers read
    parent_model: int | None  # learned: the model that training went on from
    created_at: datetime
    data_from: datetime | None
    data_until: datetime | None  # data cut-off
    items: int
    users: int
    progress: float | None  # of the backfill, 0 to 1
    eta: timedelta | None  # time left of the backfill
    bytes: int  # on disk
    indexed: bool  # whether its HNSW index stands
    metrics: dict[str, Any]  # on the validation period
    report: dict[str, Any]  # what cleaning dropped and clipped
    error: str | None  # why training failed


@dataclass(frozen=True, slots=True)
class EvaluatedList:
    """The list of a user at a moment of the past, and what the user did after it."""

    user_id: str
    recommended: list[str]  # item keys, best first
    scores: list[float]  # of recommended
    sources: list[str]  # of recommended
    relevant: list[str]  # item keys: what the list should have found
    is_new: bool  # nothing was known of the user
    model_version: int


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of many lists: a row of dynrec.evaluate."""

    metric: str  # such as ndcg_at_k
    at_k: int
    slice: str  # all, new users, known users, cold items, or 'column: value'
    value: float  # the mean over n users, or of all lists together
    standard_error: float | None  # None where one user, or only all lists together, have a value
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
class IndexRecall:
    """The vector index beside exact search: the row of dynrec.index_recall."""

    model_version: int
    recall: float | None  # mean share of the k nearest that the index finds, 0 to 1; None without vectors
    standard_error: float | None
    queries: int


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


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `doctor` found."""

    subject: str  # what it is about, such as a recommender
    severity: str  # error (something is lost or does not move), warning or info
    finding: str
    remedy: str | None


def as_array(value: object) -> Float32 | None:
    """The vector that a driver returned, with or without pgvector's adapters registered on the connection."""
    if value is None:
        return None
    vector = Vector.from_text(value) if isinstance(value, str) else value
    to_numpy: Callable[[], Any] = getattr(vector, "to_numpy", lambda: vector)
    return np.array(to_numpy(), dtype=np.float32)


def as_text(vector: object) -> str:
    """pgvector's input text for a vector: any one-dimensional sequence of numbers."""
    array = np.asarray(vector, dtype=np.float32)
    if array.ndim != 1:
        raise ValueError(f"a vector has one dimension, this array has the shape {array.shape}")
    return str(Vector(array).to_text())
