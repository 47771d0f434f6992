"""Ours, through the real system: rows in tables, workers in this process, and `dynrec.recommend`.

What is inserted has the times of the data set; the setting dynrec.clock tells readers and workers what time it is.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from psycopg import sql
from psycopg.types.json import Jsonb

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench.place import bench_database, url_of
from workers.bench.quality.dataset import DAY, Dataset, Flags
from workers.bench.quality.progress import Progress
from workers.bench.quality.protocols import Split
from workers.bench.quality.tables import COLD, Tables, at
from workers.inprocess import running
from workers.learning.run import train

RECOMMENDER = "bench"
PATIENCE = timedelta(hours=2)  # for workers to finish what waits
LOOK_SECONDS = 0.2  # between looks at a model's state
SETTLE = DAY // 24 // 6  # of the walk's time: after so long workers have caught up, as they would have in life
REFRESHES = 12  # at most so often in a period are the features that move with time read anew, at most once a day

_DECLARE = """
    select model_version from dynrec.create_recommender(
      name => %(name)s, items => 'public.items', text_columns => %(text)s, numeric_columns => %(numeric)s,
      categorical_columns => %(categorical)s, interactions => 'public.events', kind_column => %(kind)s,
      value_column => %(value)s, encoder => %(encoder)s, options => %(options)s)
"""

_ASK = """
    select item_id from dynrec.recommend(%(name)s, %(user)s, filter => %(filter)s, by_model => %(model)s) order by rank
"""

_INDEXED = "select indexed from dynrec.model_versions where model_version = %s"
_TRAININGS = """
    select count(*) from dynrec.model_versions
    where recommender = %s and kind = 'learned' and state not in ('staged', 'training', 'failed')"""
_STATE = "select state, error from dynrec.model_versions where model_version = %s"


class System:
    """A recommender at work; make it by `system`."""

    def __init__(self, settings: Settings, connection: Connection, dataset: Dataset, when: Split) -> None:
        self._settings, self._connection = settings, connection
        self._dataset, self._when = dataset, when
        self._tables = Tables(connection, dataset)
        self._workers = ExitStack()
        self._position = when.start
        self._changes = int(dataset.history.valid_from.searchsorted(when.moment, side="right"))
        self._settled = self._refreshed = when.moment
        span = int(dataset.log.time[when.end - 1]) - when.moment
        self._refresh_every = max(DAY, span // REFRESHES)
        self.content_model = 0

    def declare(self, cold: Flags, encoder: str, *, repeat: bool) -> None:
        """Make the tables, as they are at the split, and the recommender; wait for the content space."""
        self._tables.create(self._when.start, self._when.moment, cold)
        self._start_workers(self._when.moment)
        roles, optional = self._dataset.roles, self._tables.optional
        arguments = {
            "name": RECOMMENDER,
            "text": list(roles.text),
            "numeric": list(roles.numeric),
            "categorical": list(roles.categorical),
            "kind": "kind" if "kind" in optional else None,
            "value": "value" if "value" in optional else None,
            "encoder": encoder,
            "options": Jsonb({"exclude_seen": not repeat}),
        }
        with translated_errors():
            row = self._connection.execute(_DECLARE, arguments).fetchone()
        assert row is not None  # noqa: S101 - the function returns one row or raises
        assert isinstance(row[0], int)  # noqa: S101
        self.content_model = row[0]
        self.settle()
        self._until_indexed(self.content_model)

    def train(self, options: Mapping[str, object], progress: Progress, *, continue_active: bool = False) -> float:
        """Train on what has happened so far and let the model answer; returns the seconds that training took."""
        taken = train_and_promote(
            self._settings, self._connection, options, progress=progress, continue_active=continue_active
        )
        self.settle()
        return taken

    def move(self, position: int, now: int) -> None:
        """Go on in time: insert the events before `position`, and apply the changes of items until `now`."""
        changes = int(self._dataset.history.valid_from.searchsorted(now, side="right"))
        if changes > self._changes:
            self._tables.change(self._changes, changes)
            self._changes = changes
        if position > self._position:
            self._tables.insert(self._position, position)
            self._position = position
        if now - self._refreshed >= self._refresh_every:
            self._refresh(now)
        elif now - self._settled >= SETTLE:
            self.settle()
        else:
            return
        self._settled = now

    def ask(self, user: int, now: int, model: int | None, *, only_cold: bool) -> list[str]:
        """The keys of ten items for a user; `model`: another one than the active."""
        arguments = {
            "name": RECOMMENDER,
            "user": self._dataset.users[user],
            "filter": COLD if only_cold else None,
            "model": model,
        }
        with translated_errors():
            self._connection.execute("select set_config('dynrec.clock', %s, false)", [at(now).isoformat()])
            return [str(key) for (key,) in self._connection.execute(_ASK, arguments).fetchall()]

    def trainings(self) -> int:
        """How many models were trained."""
        with translated_errors():
            row = self._connection.execute(_TRAININGS, [RECOMMENDER]).fetchone()
        assert row is not None  # noqa: S101 - a count has one row
        assert isinstance(row[0], int)  # noqa: S101
        return row[0]

    def settle(self) -> None:
        """Wait until the workers have nothing left to do."""
        with translated_errors():
            row = self._connection.execute("select dynrec.wait_until_fresh(%s, %s)", [RECOMMENDER, PATIENCE]).fetchone()
        if row != (True,):
            raise DynrecError(f"workers did not finish in {PATIENCE}")

    def tell_time(self, now: int) -> None:
        """Start workers anew, for whom it is `now`."""
        self._workers.close()
        self._start_workers(now)

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def _refresh(self, now: int) -> None:
        """What maintenance does once a day: derive all items again, with the features of today."""
        self._refreshed = now
        self.tell_time(now)
        with translated_errors():
            self._connection.execute("select dynrec._derive_again(id) from dynrec._recommender(%s)", [RECOMMENDER])
        self.settle()

    def _start_workers(self, now: int) -> None:
        with translated_errors():
            row = self._connection.execute("select current_database()").fetchone()
            assert row is not None  # noqa: S101 - a select without from has one row
            self._connection.execute(
                sql.SQL("alter database {} set dynrec.clock = {}").format(
                    sql.Identifier(str(row[0])), sql.Literal(at(now).isoformat())
                )
            )
        self._workers = ExitStack()
        self._workers.enter_context(running(self._settings, url_of(self._settings)))

    def _until_indexed(self, model: int) -> None:
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while self._connection.execute(_INDEXED, [model]).fetchone() != (True,):
            if time.monotonic() > deadline:
                raise DynrecError(f"model version {model} had no index in {PATIENCE}")
            time.sleep(LOOK_SECONDS)


def train_and_promote(
    settings: Settings,
    connection: Connection,
    options: Mapping[str, object],
    *,
    progress: Progress,
    continue_active: bool = False,
) -> float:
    """Train, wait for the backfill, and let the model answer unless it loses; returns the seconds of training."""
    started = time.perf_counter()
    model = train(
        settings,
        url_of(settings),
        RECOMMENDER,
        options={**options, "promote": True},
        continue_active=continue_active,
        progress=progress,
    )
    taken = time.perf_counter() - started
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while True:
        with translated_errors():
            row = connection.execute(_STATE, [model]).fetchone()
        assert row is not None  # noqa: S101 - training has returned it
        if row[0] == "failed":
            raise DynrecError(f"model version {model} could not be trained: {row[1]}")
        if row[0] in ("active", "shadow"):
            return taken
        if time.monotonic() > deadline:
            raise DynrecError(f"the backfill of model version {model} did not end in {PATIENCE}")
        time.sleep(LOOK_SECONDS)


@contextmanager
def system(settings: Settings, dataset: Dataset, when: Split) -> Iterator[System]:
    """A system in a database of its own; the workers end and the database goes at the end of the block."""
    with bench_database(settings) as own, queue.connect(url_of(own), application_name="dynrec bench") as connection:
        made = System(own, connection, dataset, when)
        try:
            yield made
        finally:
            made.close()
