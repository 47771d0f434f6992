"""What declaring and operating return: recommenders, encoders, model versions, the queue, findings."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


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
    bytes: int  # on disk, of current vectors and their indexes; 0 of a retired version
    indexed: bool  # whether its HNSW index stands
    metrics: dict[str, Any]  # on the validation period
    report: dict[str, Any]  # what cleaning dropped and clipped
    error: str | None  # why training failed
    forgotten_users: int  # that it learned from and who were forgotten since
    vector_index: str  # what the index holds that reads go through: full, half or binary
    vector_storage: str  # how its vectors are stored: full, half, or mixed while that changes


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
class Finding:
    """Something that `doctor` found."""

    subject: str  # what it is about, such as a recommender
    severity: str  # error (something is lost or does not move), warning or info
    finding: str
    remedy: str | None
