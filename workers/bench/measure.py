"""Measuring one thing against another in the same run: in turn, several times, and never one time alone."""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """What was measured, beside its reference; `measured[i]` and `reference[i]` were taken one after the other."""

    name: str
    about: str  # what against what
    measured: tuple[float, ...]  # one value a run, in `unit`
    reference: tuple[float, ...]  # the same
    unit: str
    higher_is_better: bool
    target: float | None  # bound of the ratio; None: nothing is promised

    @property
    def ratios(self) -> list[float]:
        """measured / reference of each run."""
        return [ours / theirs for ours, theirs in zip(self.measured, self.reference, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the median is on the target's right side; None without a target."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target

    def as_json(self) -> dict[str, object]:
        """One line of the output of --json."""
        return {
            "name": self.name,
            "ratio": round(self.ratio, 4),
            "target": self.target,
            "met": self.met,
            "higher_is_better": self.higher_is_better,
            "measured": round(statistics.median(self.measured), 4),
            "reference": round(statistics.median(self.reference), 4),
            "unit": self.unit,
            "runs": len(self.measured),
            "spread": [round(min(self.ratios), 4), round(max(self.ratios), 4)],
            "about": self.about,
            "machine": machine(),
        }


@dataclass(frozen=True)
class Measure:
    """One number of one catalogue."""

    items: int
    dimension: int
    name: str
    value: float
    unit: str
    processor: float | None = (
        None  # of a time: the seconds that the server's process computed; None: not on this machine
    )


@dataclass(frozen=True)
class Point:
    """A step at one size of what grows."""

    what: str  # what grows
    step: str
    size: int
    milliseconds: float  # median
    pages: int  # of 8 kB that were looked at in the buffer cache or read, median


@dataclass(frozen=True)
class Growth:
    """A step at all sizes."""

    points: tuple[Point, ...]  # by ascending size; two at least

    @property
    def of_pages(self) -> float:
        """The power of the size that the pages grow with, from the second largest to the largest: 1 is linear."""
        return self._exponent(lambda point: point.pages)

    @property
    def of_time(self) -> float:
        """The same of the time, which others on the machine move."""
        return self._exponent(lambda point: point.milliseconds)

    def _exponent(self, cost: Callable[[Point], float]) -> float:
        before, last = self.points[-2:]
        return math.log(cost(last) / cost(before)) / math.log(last.size / before.size)


Values = tuple[tuple[float, ...], tuple[float, ...]]  # measured, reference


def in_turn(
    runs: int, measured: Callable[[], T], reference: Callable[[], T], advance: Callable[[], object]
) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Run both `runs` times, as A B, B A, A B …, so that a machine that slows down slows both."""
    ours: list[T] = []
    theirs: list[T] = []
    for run in range(runs):
        first, second = (measured, reference) if run % 2 == 0 else (reference, measured)
        values = (first(), second())
        ours.append(values[run % 2])
        theirs.append(values[1 - run % 2])
        advance()
    return tuple(ours), tuple(theirs)


def medians_in_turn(
    runs: int, calls: Sequence[Sequence[Callable[[], object]]], advance: Callable[[], object]
) -> tuple[tuple[float, ...], ...]:
    """p50 in ms of short calls, each taken right beside its references; every run makes all calls.

    One tuple for the things that come first in `calls`, one for their first references and so on, with a value a run.
    """
    return timed_in_turn(runs, [[partial(seconds, thing) for thing in things] for things in calls], advance)


def pairs_in_turn(
    runs: int, calls: Sequence[tuple[Callable[[], object], Callable[[], object]]], advance: Callable[[], object]
) -> Values:
    """The same with one reference."""
    measured, reference = medians_in_turn(runs, calls, advance)
    return measured, reference


def timed_in_turn(
    runs: int, calls: Sequence[Sequence[Callable[[], float]]], advance: Callable[[], object]
) -> tuple[tuple[float, ...], ...]:
    """As medians_in_turn, of calls that return the seconds they took, as those of another process do."""
    medians = []
    for _ in range(runs):
        times = [_beside(things, number) for number, things in enumerate(calls)]
        medians.append([1000 * p50(column) for column in zip(*times, strict=True)])
        advance()
    return tuple(zip(*medians, strict=True))


def _beside(things: Sequence[Callable[[], float]], first: int) -> list[float]:
    """Seconds of each, beginning with another one each time."""
    times = [0.0] * len(things)
    for place in range(first, first + len(things)):
        times[place % len(things)] = things[place % len(things)]()
    return times


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """The value that one in a hundred exceeds; the largest among fewer than a hundred."""
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def machine() -> str:
    """The machine in words: processor, usable cores, load before the run."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {usable} cores, load {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
