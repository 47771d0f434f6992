"""A clock of its own for some processes, which can be set while they run."""

from pathlib import Path

import pytest

HOUR = 3600  # seconds


class Clock:
    """The environment of the processes that go by it; `set` says how many seconds it is ahead of the true one."""

    def __init__(self, folder: Path) -> None:
        library = next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
        if library is None:
            pytest.skip("libfaketime is not installed: clocks were not set")
        self._file = folder / "clock"
        self.set(0)
        self._file.chmod(0o644)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # that one is never set
        }

    def set(self, seconds: int) -> None:
        """Set it, at once for everybody who goes by it."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.chmod(0o644)
        fresh.rename(self._file)
