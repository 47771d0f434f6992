"""What a worker process has done since its start, by name and labels, for the metrics.

Every number only grows. The heartbeat carries all of them, and the database adds what is new to its totals, so that a
beat that is sent twice, or lost, changes nothing.
"""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)  # seconds from commit to fresh

Key: TypeAlias = tuple[str | None, str, tuple[tuple[str, str], ...]]  # recommender, name, labels


class Meters:
    """Counters; safe to share between threads."""

    def __init__(self) -> None:
        self._counts: defaultdict[Key, float] = defaultdict(float)
        self._counting = threading.Lock()

    def add(self, name: str, amount: float, *, recommender: str | None = None, **labels: str) -> None:
        """Add to a counter."""
        with self._counting:
            self._counts[recommender, name, tuple(labels.items())] += amount

    def fresh(self, ages: Sequence[float], *, recommender: str, kind: str, lane: str) -> None:
        """Note how old changes were, in seconds, when what was made of them was published."""
        if not ages:
            return
        within = [0] * (len(BUCKETS) + 1)
        for age in ages:
            within[bisect_left(BUCKETS, age)] += 1
        below = 0
        for limit, count in zip([*map(str, BUCKETS), "+Inf"], within, strict=True):
            below += count
            name = "commit_to_fresh_seconds_bucket"
            self.add(name, below, recommender=recommender, kind=kind, lane=lane, le=limit)
        self.add("commit_to_fresh_seconds_sum", sum(ages), recommender=recommender, kind=kind, lane=lane)
        self.add("commit_to_fresh_seconds_count", len(ages), recommender=recommender, kind=kind, lane=lane)

    def report(self) -> list[dict[str, object]]:
        """Every counter as the heartbeat carries it."""
        with self._counting:
            counts = list(self._counts.items())
        return [
            {"recommender": recommender, "name": name, "labels": dict(labels), "value": value}
            for (recommender, name, labels), value in counts
        ]
