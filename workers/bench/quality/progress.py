"""Telling how far the work is."""

from collections.abc import Callable
from itertools import count

from workers.bench.report import Advance

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0 to 1)


def silent(_what: str, _done: float) -> None:
    """For nobody who watches."""


def steps(progress: Progress, what: str, total: int) -> Advance:
    """Tell that something begins; call what is returned after each of its steps."""
    progress(what, 0.0)
    done = count(1)
    return lambda: progress(what, next(done) / total)
