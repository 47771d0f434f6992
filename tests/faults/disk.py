"""A small disk, to be filled."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

PIECE = 4096  # bytes


class SmallDisk:
    """A file system of few megabytes for the length of the block."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        self._size = f"size={megabytes}m,mode=755"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self._size, "tmpfs", str(self.folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no file system can be mounted here: no disk was filled")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)

    def take_in(self, place: Path) -> None:
        """Move a folder here and leave a link in its place."""
        here = self.folder / place.name
        subprocess.run(["cp", "-a", str(place), str(here)], check=True)
        place.rename(place.with_name(f"{place.name}-before"))
        place.symlink_to(here)

    def fill(self, *, but: int = 0) -> None:
        """Leave no space, or only so many bytes."""
        free = os.statvfs(self.folder)
        with suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            for _ in range(max(0, free.f_bavail * free.f_frsize - but) // PIECE + (not but)):
                ballast.write(bytes(PIECE))

    def clear(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)
