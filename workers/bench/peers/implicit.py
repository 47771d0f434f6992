"""implicit in the memory of this process beside dynrec.recommend through Postgres, for the same users and items."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import LiteralString, Protocol

import numpy as np
import numpy.typing as npt
from implicit import __version__ as version
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from psycopg import sql
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from dynrec_store import FeatureStore, queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.measure import Figure, in_turn, pairs_in_turn, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

K = 10
USERS = 2000  # with 50 events each
STEPS = 5  # figures

_EVENT: LiteralString = "insert into {} values (%s, %s, now())"


class Model(Protocol):
    """What is used of implicit's models; `user_items` has a row for each user asked for."""

    def fit(self, user_items: csr_matrix, *, show_progress: bool) -> None:
        """Learn from all rows."""

    def recommend(self, userid: int, user_items: csr_matrix, N: int, *, recalculate_user: bool) -> object:  # noqa: N803
        """The best N items for one user, without those of the row."""


@dataclass(frozen=True)
class _Place:
    """Both systems with the same events."""

    connection: Connection
    store: FeatureStore
    made: catalogue.Catalogue
    user_items: csr_matrix  # (users, items), one a cell
    asked: Sequence[int]  # users

    @property
    def calls(self) -> list[Callable[[], object]]:
        """A call of dynrec for each user who is asked for."""
        return [partial(_recommend, self, user) for user in self.asked]


def implicit(settings: Settings, *, items: int, calls: int, runs: int) -> list[Figure]:
    """p50 of a list of 10 for one user, and of an event and the list that counts it.

    dynrec through FeatureStore and its server, in transactions, with every item looked up in the application's table;
    no worker runs, so that it folds new events in at every read. implicit in this process: no server, nothing is
    stored, and nobody else sees the event. dynrec's vectors are given, implicit's learned of the events: the lists
    differ.
    """
    with (
        bench_database(settings) as own,
        progress(f"implicit, {items:,} items", catalogue.steps(items) + STEPS * runs) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        FeatureStore.connect(url_of(own)) as store,
        threadpool_limits(1, "blas"),  # as implicit asks for: it has threads of its own
    ):
        made = catalogue.make(connection, "bench", items, [_name(user) for user in range(USERS)], advance)
        asked = np.random.default_rng(1).choice(USERS, min(calls, USERS), replace=False)
        place = _Place(connection, store, made, _user_items(connection, made), [int(user) for user in asked])
        als = AlternatingLeastSquares(factors=catalogue.DIMENSION, random_state=0)
        cosine = CosineRecommender()
        for model in (als, cosine):
            _fit(model, place.user_items)
        return [
            _reading(place, als, "ALS", runs, advance),
            _reading(place, cosine, "cosine", runs, advance),
            _counting(place, als, "ALS", "recalculate_user", runs, advance),
            _counting(place, cosine, "cosine", "the user's new row", runs, advance),
            _fitting(place, als, runs, advance),
        ]


def _reading(place: _Place, model: Model, name: str, runs: int, advance: Advance) -> Figure:
    theirs = [partial(_told, model, user, place.user_items[user], anew=False) for user in place.asked]
    return Figure(
        f"recommend, implicit {name}",
        f"p50 over {place.made.items:,} items through Postgres against implicit {version} in memory, nothing stored",
        *pairs_in_turn(runs, list(zip(place.calls, theirs, strict=True)), advance),
        unit="ms",
        higher_is_better=False,
        target=None,
    )


def _counting(place: _Place, model: Model, name: str, how: str, runs: int, advance: Advance) -> Figure:
    """An event of a user and the user's list; the event is committed here, and a cell of an array there."""
    draw = np.random.default_rng(2)
    pairs = []
    for user in place.asked:
        item = int(draw.integers(place.made.items))
        theirs = partial(_told_with, model, user, place.user_items[user], item, anew=name == "ALS")
        pairs.append((partial(_insert_and_recommend, place, user, item), theirs))
    return Figure(
        f"an event counts, implicit {name}",
        f"p50 of an event, committed, and the list that counts it, against implicit {version} in memory with {how}",
        *pairs_in_turn(runs, pairs, advance),
        unit="ms",
        higher_is_better=False,
        target=None,
    )


def _fitting(place: _Place, model: Model, runs: int, advance: Advance) -> Figure:
    user = place.asked[0]
    ours = partial(_insert_and_recommend, place, user, 0)

    def fit_and_recommend() -> None:
        _fit(model, place.user_items)
        _told(model, user, place.user_items[user], anew=False)

    return Figure(
        "an event counts, implicit ALS fitted anew",
        "an event, committed, and the list that counts it, against fitting ALS and one list; implicit needs that for "
        "new items and for what the event says of items, dynrec a training if a learned model answers",
        *in_turn(runs, lambda: 1000 * seconds(ours), lambda: 1000 * seconds(fit_and_recommend), advance),
        unit="ms",
        higher_is_better=False,
        target=None,
    )


def _fit(model: Model, user_items: csr_matrix) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParameterWarning)  # of a matrix that implicit has weighted itself
        model.fit(user_items, show_progress=False)


def _recommend(place: _Place, user: int) -> object:
    return place.store.recommend(place.made.name, _name(user), k=K)


def _insert_and_recommend(place: _Place, user: int, item: int) -> object:
    statement = sql.SQL(_EVENT).format(place.made.events)
    with translated_errors():
        place.connection.execute(statement, [_name(user), item], prepare=True)
    return _recommend(place, user)


def _told(model: Model, user: int, row: csr_matrix, *, anew: bool) -> object:
    return model.recommend(user, row, N=K, recalculate_user=anew)


def _told_with(model: Model, user: int, row: csr_matrix, item: int, *, anew: bool) -> object:
    return _told(model, user, with_event(row, item), anew=anew)


def with_event(row: csr_matrix, item: int) -> csr_matrix:
    """A user's row with one more event; an item that was there counts twice."""
    items = np.append(row.indices, item)
    return csr_matrix((np.append(row.data, np.float32(1)), items, [0, len(items)]), shape=row.shape)


def _user_items(connection: Connection, made: catalogue.Catalogue) -> csr_matrix:
    statement = sql.SQL("select split_part(user_id, ' ', 2)::int, item_id::int from {}").format(made.events)
    with translated_errors():
        cells: npt.NDArray[np.int64] = np.array(connection.execute(statement).fetchall(), np.int64)
    ones = np.ones(len(cells), np.float32)
    return csr_matrix((ones, (cells[:, 0], cells[:, 1])), shape=(USERS, made.items))


def _name(user: int) -> str:
    return f"user {user}"
