"""Promotion: what a reader notices while model versions are promoted and rolled back under its reads."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import LiteralString

from dynrec_store import database
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import versions
from workers.bench.measure import Figure, p50, p99
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

USERS = 200
LENGTH = 10  # items of a list
SWITCHES = 5.0  # a second, in busy rounds
WARM_SECONDS = 1.0  # of reads of each model version before anything is measured
_READ: LiteralString = "select item_id, score, model_version from dynrec.recommend('bench', %s, %s)"
_PROMOTE: LiteralString = "select dynrec.promote_model('bench', %s)"
_ROLL_BACK: LiteralString = "select dynrec.rollback_model('bench')"

Latencies = dict[int, list[float]]  # of each model version that answered: ms a read


@dataclass(frozen=True)
class _Scene:
    """Who reads, who promotes, and between which model versions."""

    readers: Sequence[Connection]  # each is one thread's
    promoter: Connection
    content: int  # model version with the adopted vectors
    learned: int  # the trained one


@dataclass(frozen=True)
class _Run:
    """Reads of one run: while nothing is promoted, and while versions alternate."""

    quiet: Latencies
    busy: Latencies
    switches: int  # promotions and rollbacks of the busy round


def promotion(settings: Settings, *, items: int, readers: int, seconds: float, runs: int) -> list[Figure]:
    """p50 and p99 of dynrec.recommend while versions are promoted and rolled back, against reads left alone.

    A run has a quiet round of `seconds` for the content version and one for the learned version, and a busy round
    twice as long in which the two alternate five times a second. Reads are compared with those that the same
    version answered. Raises DynrecError if a read fails, is short, or mixes model versions.
    """
    steps = versions.steps(items) + 1 + 3 * runs
    with (
        bench_database(settings) as own,
        progress(f"promotion, {items:,} items", steps) as advance,
        ExitStack() as stack,
    ):
        content, learned = versions.two_versions(own, items, _users(), advance)
        reading = [
            stack.enter_context(database.connect(url_of(own), application_name="dynrec bench")) for _ in range(readers)
        ]
        promoter = stack.enter_context(database.connect(url_of(own), application_name="dynrec bench"))
        scene = _Scene(reading, promoter, content, learned)
        for version in (content, learned):
            _quiet(scene, version, WARM_SECONDS)
        advance()
        taken = [_run(scene, seconds, busy_first=run % 2 == 1, advance=advance) for run in range(runs)]
    return [
        *_figures("content", content, taken),
        *_figures("learned", learned, taken),
    ]


def _run(scene: _Scene, seconds: float, *, busy_first: bool, advance: Advance) -> _Run:
    """One busy round beside a quiet round of each version, in the order that the run asks for."""

    def quiet() -> Latencies:
        reads: Latencies = {}
        for version in (scene.content, scene.learned):
            reads |= _quiet(scene, version, seconds)
            advance()
        return reads

    def busy() -> tuple[Latencies, int]:
        reads = _busy(scene, 2 * seconds)
        advance()
        return reads

    if busy_first:
        reads, switches = busy()
        return _Run(quiet(), reads, switches)
    alone = quiet()
    reads, switches = busy()
    return _Run(alone, reads, switches)


def _quiet(scene: _Scene, version: int, seconds: float) -> Latencies:
    """Reads of a round in which one version answers all along."""
    with translated_errors():
        scene.promoter.execute(_PROMOTE, [version])
    with _reading(scene, seconds) as finish:
        pass
    return _complete(finish(), {version}, seconds)


def _busy(scene: _Scene, seconds: float) -> tuple[Latencies, int]:
    """Reads of a round in which the learned version is promoted and rolled back, and how often it was either."""
    with translated_errors():
        scene.promoter.execute(_PROMOTE, [scene.content])
    with _reading(scene, seconds) as finish:
        switches = _switch(scene, time.monotonic() + seconds)
    return _complete(finish(), {scene.content, scene.learned}, seconds), switches


def _switch(scene: _Scene, until: float) -> int:
    """Promote and roll back in turn, SWITCHES times a second, until a moment of the monotonic clock."""
    count = 0
    with translated_errors():
        while time.monotonic() + 1 / SWITCHES < until:
            time.sleep(1 / SWITCHES)
            if count % 2 == 0:
                scene.promoter.execute(_PROMOTE, [scene.learned])
            else:
                scene.promoter.execute(_ROLL_BACK)
            count += 1
    return count


@contextmanager
def _reading(scene: _Scene, seconds: float) -> Iterator[Callable[[], Latencies]]:
    """Readers at work for `seconds`; what this yields gives their reads once the block has ended."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(len(scene.readers)) as pool:
        rounds = [pool.submit(_read, reader, until, number) for number, reader in enumerate(scene.readers)]
        yield lambda: _joined([each.result() for each in rounds])


def _read(reader: Connection, until: float, seed: int) -> Latencies:
    """Lists of random users, one after the other, until a moment of the monotonic clock."""
    draw, users, reads = random.Random(seed), _users(), Latencies()  # noqa: S311 - which user is no secret
    with translated_errors():
        while time.monotonic() < until:
            ask = partial(reader.execute, _READ, [draw.choice(users), LENGTH], prepare=True)
            started = time.perf_counter()
            rows = ask().fetchall()
            taken = 1000 * (time.perf_counter() - started)
            reads.setdefault(answered_by(rows), []).append(taken)
    return reads


def answered_by(rows: Sequence[tuple[object, ...]]) -> int:
    """The model version, last of each row, that made a whole list; DynrecError for a short list or a mixed one."""
    if len(rows) != LENGTH:
        raise DynrecError(f"a list of {len(rows)} items was read where {LENGTH} were asked for")
    versions = {int(str(row[-1])) for row in rows}
    if len(versions) > 1:
        raise DynrecError(f"a list mixes model versions {sorted(versions)}")
    return versions.pop()


def _joined(parts: Sequence[Latencies]) -> Latencies:
    versions = sorted({version for part in parts for version in part})
    return {version: [taken for part in parts for taken in part.get(version, [])] for version in versions}


def _complete(reads: Latencies, versions: set[int], seconds: float) -> Latencies:
    if set(reads) != versions:
        raise DynrecError(
            f"in {seconds:g} s model versions {sorted(reads)} answered where {sorted(versions)} should have: "
            "take longer rounds"
        )
    return reads


def _figures(kind: str, version: int, runs: Sequence[_Run]) -> Iterator[Figure]:
    reads = sum(len(run.busy[version]) for run in runs)
    switches = sum(run.switches for run in runs)
    measures: Mapping[str, tuple[Callable[[Sequence[float]], float], float]] = {"p50": (p50, 1.1), "p99": (p99, 2.0)}
    for name, (measure, target) in measures.items():
        yield Figure(
            f"promotion, {kind}, {name}",
            f"{reads:,} reads of the {kind} version while {switches:,} promotions and rollbacks were made, against "
            "reads left alone; none failed, none mixed versions",
            tuple(measure(run.busy[version]) for run in runs),
            tuple(measure(run.quiet[version]) for run in runs),
            unit="ms",
            higher_is_better=False,
            target=target,
        )


def _users() -> list[str]:
    return [f"user {number}" for number in range(USERS)]
