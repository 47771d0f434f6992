"""Clocks that are wrong, of some processes."""

from pathlib import Path

import pytest

HOUR = 3600  # seconds


def library() -> str:
    """What gives a process a clock of its own, loaded before everything else."""
    found = next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
    if found is None:
        pytest.skip("libfaketime is not installed: no clock was set")
    return str(found)


def behind(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is so far behind from its start on.

    Never ahead: a signal handler that interrupts a wait is shown the true time, and a server whose timers are due
    long after that never looks for deadlocks.
    """
    return {"LD_PRELOAD": library(), "FAKETIME": f"-{seconds}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class Clock:
    """A clock that can be set while processes go by it: not for those whose signal handlers ask for the time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Set it so far ahead of the true time, at once for everybody who goes by it."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self._file)
