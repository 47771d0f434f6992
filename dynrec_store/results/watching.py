"""What watching returns: measurements, drift, alerts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """The vector index beside exact search: the row of dynrec.index_recall."""

    model_version: int
    recall: float | None  # mean share of the k nearest that the index finds, 0 to 1; None without vectors
    standard_error: float | None
    queries: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value that was measured at some time: a row of dynrec.measurements."""

    recommender: str
    measured_at: datetime
    period_from: datetime | None  # lists are those of this moment, judged by what users did until measured_at
    model_version: int
    metric: str  # of dynrec.evaluate, index_recall_at_k, or psi (population stability index, 0 and up)
    at_k: int | None
    slice: str  # as of dynrec.evaluate; of psi what it is about
    value: float
    standard_error: float | None
    n: int  # users, searches, items or interactions behind it


@dataclass(frozen=True, slots=True)
class DataDrift:
    """How an input of a model version is distributed beside what it was like: a row of dynrec.data_drift."""

    model_version: int
    subject: str
    psi: float  # population stability index beyond chance; up to 0.1 is little, above 0.25 much
    bins: list[str]
    expected: list[float]  # shares of the bins when the model version was made, 0 to 1
    observed: list[float]  # now
    n: int  # items or interactions behind observed


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong: a row of dynrec.alerts."""

    recommender: str | None  # None: it concerns all
    severity: str  # error (something is lost or does not move) or warning
    alert: str  # its kind, such as 'quality fell'
    since: datetime | None
    finding: str
    remedy: str | None
