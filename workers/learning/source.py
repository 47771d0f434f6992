"""From a recommender's tables to arrays: what a staged model learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from dynrec_store import models
from dynrec_store.models import Training
from dynrec_store.queue import Connection
from workers.learning.cleaning import ANY_KIND, CleaningReport, Interactions, clean
from workers.learning.data import Earlier, Floats, Times, TrainingData
from workers.learning.features import FeatureMaker, Names, Snapshot, arranged

FEATURES = "features.skops"
SNAPSHOTS = 8  # moments at which the features that move with time are read


@dataclass(frozen=True)
class Sources:
    """What was read for a model, what cleaning did, and how features are made."""

    data: TrainingData
    features: FeatureMaker
    report: CleaningReport


def read_sources(
    connection: Connection, model: int, training: Training, options: object, known: FeatureMaker | None
) -> Sources:
    """Read interactions, items and features of a staged model; `known`: features as another model makes them."""
    kinds = models.training_kinds(connection, model)
    rows, unusable = models.training_interactions(connection, model), models.training_unusable(connection, model)
    interactions, report = clean(rows, training.data_until, unusable)
    items = models.training_items(connection, model)
    names = known.names if known else models.feature_names(connection, training.recommender_id)
    moments = _moments(interactions.occurred_at, training)
    snapshots = [_snapshot(connection, training, moment, names) for moment in moments]
    features = known.remembering(snapshots) if known else FeatureMaker.fitted(names, snapshots, options)
    data = replace(
        _arrays(interactions, kinds, [name for name, _ in items], exclude_seen=training.exclude_seen),
        content=_matrix([vector.to_numpy() for _, vector in items]),
    )
    data = replace(
        data,
        codes=features.codes(snapshots[-1], data.items),
        numerics=features.numerics(snapshots, data.items),
    )
    first = [_snapshot(connection, training, moment, names) for moment in _first(interactions.occurred_at)]
    seen = first + snapshots[:-1]
    earlier = [_earlier(connection, model, data, snapshot, features) for snapshot in seen]
    nothing = Earlier(snapshots[-1].moment, np.zeros(0, np.int64), data.content[:0], data.codes[:0])
    return Sources(replace(data, earlier=(*earlier, nothing)), features, report)


def _earlier(
    connection: Connection, model: int, data: TrainingData, snapshot: Snapshot, features: FeatureMaker
) -> Earlier:
    """Return contents and labels of that moment, where they differ from those of the cut-off."""
    places = {name: row for row, name in enumerate(data.items)}
    moment = datetime.fromtimestamp(snapshot.moment, UTC)
    then = models.training_items_then(connection, model, moment)
    vectors = {places[name]: vector.to_numpy() for name, vector in then if name in places}  # others are newer
    codes = features.codes(snapshot, data.items)
    relabelled = np.flatnonzero((codes != data.codes).any(axis=1))
    rows = np.union1d(np.array(sorted(vectors), dtype=np.int64), relabelled)
    content = data.content[rows]
    for place, row in enumerate(rows.tolist()):
        content[place] = vectors.get(row, content[place])
    return Earlier(snapshot.moment, rows, content, codes[rows])


def _arrays(
    interactions: Interactions, kinds: list[tuple[str, float]], items: list[str], *, exclude_seen: bool
) -> TrainingData:
    users = interactions.user.occurring()
    kind_names = [name for name, _ in kinds]
    return TrainingData(
        user=interactions.user.places_in(users),
        item=interactions.item.places_in(items),
        kind=interactions.kind.places_in(kind_names, otherwise=kind_names.index(ANY_KIND)),
        value=interactions.value.astype(np.float32),
        occurred_at=interactions.occurred_at,
        users=users,
        items=tuple(items),
        kinds=tuple(kind_names),
        kind_weights=np.array([weight for _, weight in kinds], dtype=np.float32),
        content=np.zeros((0, 0), dtype=np.float32),
        exclude_seen=exclude_seen,
    )


def _moments(occurred_at: Times, training: Training) -> list[datetime]:
    """Moments between which equally many interactions lie, the last at the data cut-off."""
    inner: Sequence[float] = (
        np.quantile(occurred_at, np.linspace(0, 1, SNAPSHOTS)[1:-1]).tolist() if len(occurred_at) else []
    )
    return [*(datetime.fromtimestamp(moment, UTC) for moment in inner), training.data_until]


def _first(occurred_at: Times) -> list[datetime]:
    """Return the moment of the first interaction: before the first snapshot items were what they were then."""
    return [datetime.fromtimestamp(moment, UTC) for moment in occurred_at[:1].tolist()]


def _snapshot(connection: Connection, training: Training, moment: datetime, names: Names) -> Snapshot:
    """Return the features of those names, also where the columns were altered since they were read."""
    rows = models.item_features(connection, training.recommender_id, moment)
    declared = next((row[3] for row in rows if row[3] is not None), [])
    numbers, labels = arranged(names, declared, [row[1] for row in rows], [row[2] for row in rows])
    return Snapshot(moment.timestamp(), [row[0] for row in rows], numbers, labels)


def _matrix(vectors: list[Floats]) -> Floats:
    return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), dtype=np.float32)
