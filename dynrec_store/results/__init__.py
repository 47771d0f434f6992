"""What the functions of schema dynrec return: a frozen dataclass for each kind of row, fields named as its columns."""

from dynrec_store.results.judging import (
    CalibrationBin,
    Comparison,
    EvaluatedList,
    ExperimentResult,
    ExperimentVerdict,
    Metric,
    OnlineMetrics,
)
from dynrec_store.results.operating import (
    Alteration,
    Declared,
    Encoder,
    Failure,
    Finding,
    Freshness,
    ModelVersion,
    QueueLine,
    Status,
)
from dynrec_store.results.reading import Drift, Explanation, ItemVersion, Recommendation
from dynrec_store.results.vectors import Float32, as_array, as_text
from dynrec_store.results.watching import Alert, DataDrift, IndexRecall, Measurement

__all__ = [
    "Alert",
    "Alteration",
    "CalibrationBin",
    "Comparison",
    "DataDrift",
    "Declared",
    "Drift",
    "Encoder",
    "EvaluatedList",
    "ExperimentResult",
    "ExperimentVerdict",
    "Explanation",
    "Failure",
    "Finding",
    "Float32",
    "Freshness",
    "IndexRecall",
    "ItemVersion",
    "Measurement",
    "Metric",
    "ModelVersion",
    "OnlineMetrics",
    "QueueLine",
    "Recommendation",
    "Status",
    "as_array",
    "as_text",
]
