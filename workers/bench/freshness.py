"""Freshness: from a commit to its new vector, idle and under load, beside encoding one text and one commit."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from typing import LiteralString, cast

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.background import Background
from workers.bench import freshness_steps, texts
from workers.bench.measure import Figure, p50, p99, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress
from workers.bench.versions import TRAINING, wait_for_shadow
from workers.encoders import Encoder
from workers.inprocess import running

ITEMS = 1000
MEASURED = 500  # the items that are measured; the load is on the others
IDLE_SECONDS = 0.3  # between two changes: the dispatcher has gone to sleep again
LOOK_SECONDS = 0.0002  # between looks for the new vector
PATIENCE = 60.0  # seconds until a vector that does not come is an error
LOAD_TIMEOUT = timedelta(minutes=10)
LEARNED = "learned model"
LOADS = {"idle": 0.0, "light load": 0.1, "heavy load": 0.5}  # of what the reference could do by itself

_TABLES: LiteralString = """
    create table items (id bigint primary key, title text not null);
    create table plain (id bigint primary key, title text not null);
"""

# what 500 users did, ten of whom like each item best
_CLICKS: LiteralString = """
    create table clicks (user_id text, item_id bigint, occurred_at timestamptz not null);
    create index on clicks (user_id);
    create index on clicks (item_id);
    insert into clicks
    select 'user ' || u, mod(1 + 20 * (u / 10) + 7 * n, 1000), now() - n * interval '1 hour' - u * interval '1 minute'
    from generate_series(1, 500) u, generate_series(0, 9) n
"""

_DECLARE: LiteralString = """
    select model_version
    from dynrec.create_recommender(
      name => 'bench', items => 'public.items', text_columns => '{title}', interactions => %s)
"""

_CHANGE: LiteralString = "update items set title = %s where id = %s"
_PLAIN: LiteralString = "update plain set title = %s where id = %s"


@dataclass(frozen=True)
class _System:
    """What a sample needs."""

    settings: Settings
    connection: Connection
    made_at: sql.Composed  # the statement that says when an item's vector was made
    encoder: Encoder


Pairs = list[tuple[float, float]]  # (measured, reference) in ms of each sample of a run


def freshness(settings: Settings, *, samples: int, runs: int, learned: bool = False) -> list[Figure]:
    """The time from a commit until another statement sees the new vector: p50 of each run, p99 of all samples.

    The reference encodes one such text, and commits one update of a table that nothing watches. Idle, the changes
    come one by one, with pauses in which everything falls asleep. Under load others write as well, a tenth and half
    as many as the reference could take one after the other; beside the reference the same number of texts is encoded
    and committed in the same way as it does.

    learned: until the learned model that answers has made its own vector of the new one; idle alone, without targets.
    """
    with (
        bench_database(settings) as own,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        running(own, url_of(own)) as context,
    ):
        model = _set_up(connection, learned=learned)
        if learned:
            model = _promote(own, connection)
        encoder = context.encoder(queue.encoding(connection, "bench"))
        assert encoder is not None  # noqa: S101 - _DECLARE adopts no vectors
        system = _System(own, connection, _vector_of(model), encoder)
        if learned:
            with progress("freshness", samples * runs) as advance:
                return _figures(LEARNED, [_run(system, 0.0, f"learned {run}", samples, advance) for run in range(runs)])
        with progress("freshness", samples * (len(LOADS) * runs + 1)) as advance:
            alone = p50([seconds(partial(_encode_and_commit, system, 1, f"alone {n}")) for n in range(20)])
            figures = []
            for load, share in LOADS.items():
                taken = [_run(system, share / alone, f"{load} {run}", samples, advance) for run in range(runs)]
                figures += _figures(load, taken)
            return [*figures, *_where(system, samples, advance)]


def _figures(load: str, taken: Sequence[Pairs]) -> list[Figure]:
    about = f"commit to new vector visible, {load}, against encoding one text + one commit"
    name = "freshness" if load == "idle" else f"freshness, {load}"
    ours, theirs = ([[sample[side] for sample in run] for run in taken] for side in (0, 1))
    return [
        Figure(
            f"{name}, p50",
            about,
            tuple(map(p50, ours)),
            tuple(map(p50, theirs)),
            unit="ms",
            higher_is_better=False,
            target=1.5 if load in LOADS else None,
        ),
        Figure(
            f"{name}, p99",
            f"p99 of it against the p50 of {about.rpartition(', against ')[2]}",
            (p99([sample for run in ours for sample in run]),),
            (p50([sample for run in theirs for sample in run]),),
            unit="ms",
            higher_is_better=False,
            target=5.0 if load in LOADS else None,
        ),
    ]


def _set_up(connection: Connection, *, learned: bool) -> int:
    """Tables, and a recommender whose vectors are complete; its model version. learned: with interactions."""
    titles = texts.titles(ITEMS)
    with translated_errors():
        connection.execute(_TABLES)
        for table in ("items", "plain"):
            connection.execute(
                sql.SQL("insert into {} select n, t from unnest(%s::text[]) with ordinality u (t, n)").format(
                    sql.Identifier(table)
                ),
                [titles],
            )
        if learned:
            connection.execute(_CLICKS)
        row = connection.execute(_DECLARE, ["public.clicks" if learned else None]).fetchone()
        assert row is not None  # noqa: S101 - the function returns one row or raises
        fresh = connection.execute("select dynrec.wait_until_fresh('bench', %s)", [LOAD_TIMEOUT]).fetchone()
    if fresh != (True,):
        raise DynrecError(f"{ITEMS} items were not encoded in {LOAD_TIMEOUT}")
    time.sleep(5)  # the index is built after the backfill: an idle system has it
    return cast("int", row[0])


def _promote(settings: Settings, connection: Connection) -> int:
    """A small learned model, which answers; its version."""
    # torch takes seconds to import: the other runs go without
    from workers.learning.run import train  # noqa: PLC0415

    model = train(settings, url_of(settings), "bench", options=TRAINING)
    wait_for_shadow(connection, model)
    connection.execute("select dynrec.promote_model('bench', %s)", [model])
    return model


def _vector_of(model: int) -> sql.Composed:
    """The statement that says when a model version's vector of an item was made."""
    return sql.SQL("select v.created_at from {} v where v.item_id = %s").format(
        sql.Identifier("dynrec_data", f"item_vector_{model}")
    )


def _run(system: _System, rate: float, run: str, samples: int, advance: Advance) -> Pairs:
    """All samples of one side and then all of the other, as each has its own load; both see the same machine."""
    titles = texts.titles(2 * samples, seed=len(run))
    pause = IDLE_SECONDS if rate == 0 else 0.0
    with _beside(system, rate, _CHANGE, encode=False):
        ours = [
            1000 * _paused(pause, partial(_until_visible, system, _item(n), f"{titles[n]} {run}"))
            for n in range(samples)
        ]
    with _beside(system, rate, _PLAIN, encode=True):
        theirs = [
            1000 * _paused(pause, partial(seconds, partial(_encode_and_commit, system, _item(n), f"{title} {run}")))
            for n, title in enumerate(titles[samples:])
        ]
    for _ in range(samples):
        advance()
    return list(zip(ours, theirs, strict=True))


def _paused(pause: float, sample: Callable[[], float]) -> float:
    time.sleep(pause)
    return sample()


def _item(number: int) -> int:
    return number % MEASURED + 1


@contextmanager
def _beside(system: _System, rate: float, statement: LiteralString, *, encode: bool) -> Iterator[None]:
    """Somebody else who changes `rate` titles a second, and encodes each first if `encode`."""
    if rate == 0:
        yield
        return
    ended = threading.Event()

    def write() -> None:
        with queue.connect(url_of(system.settings), application_name="dynrec bench load") as connection:
            due = time.monotonic()
            for number in count():
                due += 1 / rate
                if ended.wait(max(due - time.monotonic(), 0)):
                    return
                title = f"load {time.monotonic_ns()}"
                if encode:
                    system.encoder.encode([title])
                connection.execute(statement, [title, MEASURED + 1 + number % (ITEMS - MEASURED)], prepare=True)

    with Background("load", write, stop=ended.set):
        yield


def _until_visible(system: _System, item: int, title: str) -> float:
    """Seconds from the commit of a new title until its vector is there."""
    before = _made_at(system, item)
    system.connection.execute(_CHANGE, [title, item], prepare=True)
    committed = time.perf_counter()
    while _made_at(system, item) == before:
        if time.perf_counter() - committed > PATIENCE:
            raise DynrecError(f"item {item} got no new vector in {PATIENCE} s")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - committed


def _made_at(system: _System, item: int) -> object:
    return system.connection.execute(system.made_at, [str(item)], prepare=True).fetchone()


def _encode_and_commit(system: _System, item: int, title: str) -> None:
    system.encoder.encode([title])
    system.connection.execute(_PLAIN, [title, item], prepare=True)


def _where(system: _System, samples: int, advance: Advance) -> list[Figure]:
    """The steps of as many further changes on an idle system, and what capture costs the writer before its commit."""
    titles = texts.titles(2 * samples, seed=samples)
    taken, watched, plain = [], [], []
    with freshness_steps.spans() as ended:
        for number in range(samples):
            time.sleep(IDLE_SECONDS)
            ended.clear()
            item = _item(number)
            before, started = _made_at(system, item), time.perf_counter()
            system.connection.execute(_CHANGE, [f"{titles[number]} where", item], prepare=True)
            watched.append(1000 * (time.perf_counter() - started))
            committed = time.time_ns()
            while _made_at(system, item) == before:
                time.sleep(LOOK_SECONDS)
            seen = time.time_ns()
            time.sleep(LOOK_SECONDS * 50)  # the span of the publish has ended
            found = freshness_steps.steps(ended, committed, seen)
            if found is not None:
                taken.append(found)
            plain.append(1000 * seconds(partial(system.connection.execute, _PLAIN, [titles[number], item])))
            advance()
    trigger = Figure(
        "freshness: trigger",
        "one update and its commit with capture, against a table that nothing watches; before the clock starts",
        (p50(watched),),
        (p50(plain),),
        unit="ms",
        higher_is_better=False,
        target=None,
    )
    return [trigger, *(freshness_steps.figures(taken) if taken else [])]
