"""Who works on what in a process: few loops for one recommender, so that it cannot take all threads from the others."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

IN_PAIRS = ("item", "derived")  # while one loop encodes, the other publishes and claims


class Loop(Enum):
    """What a loop has to do, by what the others do already."""

    EVERYTHING = auto()
    LIVE = auto()  # changes only, so that they overtake the backfill which keeps the others busy
    NOTHING = auto()


class Loops:
    """The loops that are running in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[tuple[str, str]] = Counter()  # recommender and sort of work -> how many
        self._backfills: set[tuple[str, str]] = set()  # where the last batch was one of a backfill

    @contextmanager
    def another(self, recommender: str, work: str) -> Iterator[Loop]:
        """The part of one more loop over a sort of work of a recommender, for as long as it runs."""
        key = (recommender, work)
        with self._lock:
            part = self._part(key)
            self._running[key] += 1
        try:
            yield part
        finally:
            with self._lock:
                self._running[key] -= 1

    def claimed(self, recommender: str, work: str, *, backfill: bool) -> None:
        """Note what a loop with everything to do is busy with."""
        change = self._backfills.add if backfill else self._backfills.discard
        with self._lock:
            change((recommender, work))

    def _part(self, key: tuple[str, str]) -> Loop:
        busy = 2 if key[1] in IN_PAIRS else 1
        if self._running[key] < busy:
            return Loop.EVERYTHING
        if self._running[key] == busy and key in self._backfills:
            return Loop.LIVE
        return Loop.NOTHING
