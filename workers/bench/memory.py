"""Memory: what the processes need at most for each step, by the size of the tables. No step holds a whole table."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import LiteralString

import psutil

from dynrec_store import models, queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import ConfigurationError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import DIMENSION, LEASE
from workers.bench.measure import Measure
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

NAME = "memory"
BATCH = 256  # entities in a claim, as workers have them by default
MEGABYTE = 2**20
LOOK = 0.01  # seconds between two looks at a process

_EVENTS: LiteralString = """
    insert into memory.events (user_id, item_id, occurred_at)
    select 'user ' || g %% (%(events)s / 100), (g::bigint * 7919) %% %(items)s, now() - make_interval(secs => g)
    from generate_series(1, %(events)s) g
"""
_QUIET: LiteralString = "alter table memory.events disable trigger user"
_LOUD: LiteralString = "alter table memory.events enable trigger user"
_REFRESH: LiteralString = "select dynrec.refresh('memory')"

Row = tuple[str, float, str]


def memory(settings: Settings, *, items: Sequence[int]) -> Iterator[Measure]:
    """Megabytes of its own that a process took beyond those before the step, at most, for each catalogue."""
    for size in items:
        steps = catalogue.steps(size) + 3
        with (
            bench_database(settings) as own,
            progress(f"memory, {size:,} items", steps) as advance,
            queue.connect(url_of(own), application_name="dynrec bench") as connection,
            translated_errors(),
        ):
            for name, value, unit in _measure(connection, size, advance):
                yield Measure(size, DIMENSION, name, value, unit)


def _measure(connection: Connection, items: int, advance: Advance) -> Iterator[Row]:
    server = _server(connection)
    where = catalogue.declare(connection, NAME, items, DIMENSION, advance)
    yield "queue every item, server", _peak(server, lambda: queue.run_task(connection)), "MB"
    yield f"publish {BATCH} items, server", _peak(server, lambda: _publish_items(connection)), "MB"
    catalogue.work_off(connection, where, advance)
    events = 10 * items  # of users with a hundred each, in a table that was there before dynrec
    connection.execute(_QUIET)
    connection.execute(_EVENTS, {"events": events, "items": items})
    connection.execute(_LOUD)
    connection.execute(_REFRESH)
    while (found := _peak_of_task(connection, server)) is not None or _items_wait(connection):
        if found is not None:
            yield found
    yield f"publish {BATCH} users, server", _peak(server, lambda: _publish_users(connection)), "MB"
    yield from _training(connection, server, events)
    advance()


def _peak_of_task(connection: Connection, server: psutil.Process) -> Row | None:
    done: list[str | None] = []
    peak = _peak(server, lambda: done.append(queue.run_task(connection)))
    return None if done[0] is None else (f"{done[0].partition(' ')[0]}, server", peak, "MB")


def _items_wait(connection: Connection) -> bool:
    """Whether items waited; a batch of them is published."""
    token = queue.claim(connection, NAME, "item", catalogue.BATCH, LEASE)
    if token is None:
        return False
    queue.publish_adopted(connection, token)
    return True


def _publish_items(connection: Connection) -> None:
    token = queue.claim(connection, NAME, "item", BATCH, LEASE)
    assert token is not None  # noqa: S101 - all of them wait
    queue.publish_adopted(connection, token)


def _publish_users(connection: Connection) -> None:
    token = queue.claim(connection, NAME, "user", BATCH, LEASE)
    assert token is not None  # noqa: S101 - the same
    queue.publish_users(connection, token)


def _training(connection: Connection, server: psutil.Process, events: int) -> Iterator[Row]:
    """What it takes to read the interactions that a model learns from, and to hold them."""
    from workers.learning.cleaning import clean  # noqa: PLC0415  the other steps need no extra

    model = models.stage_model(connection, NAME, {})
    until = models.begin_training(connection, model).data_until

    def read() -> int:
        return sum(1 for _ in models.training_interactions(connection, model))

    yield "training reads, server", _peak(server, read), "MB"
    # what Python and numpy ask for: the process itself takes back what it had before, and looks as if nothing were held
    tracemalloc.start()
    kept = clean(models.training_interactions(connection, model), until)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    yield "training reads, an interaction at most", peak / events, "bytes"
    yield "training holds, an interaction", held / events, "bytes"


def _server(connection: Connection) -> psutil.Process:
    process = psutil.Process(connection.info.backend_pid)
    if "postgres" not in process.name():
        raise ConfigurationError("the server is not on this machine: its memory cannot be measured")
    return process


def _own(process: psutil.Process) -> float:
    memory = process.memory_info()
    return float(memory.rss - memory.shared) / MEGABYTE


def _peak(process: psutil.Process, call: Callable[[], object]) -> float:
    """Megabytes of its own that a process takes during a call, beyond those before, at most."""
    before, most, over = _own(process), [0.0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            most.append(_own(process) - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        call()
    finally:
        over.set()
        thread.join()
    return max(most)
