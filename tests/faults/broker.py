"""A Redis of a test's own, to be killed."""

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.faults.load import PATIENCE
from tests.ports import free_port


class Redis:
    """Runs for the length of the block, with breaks; keeps its content on disk over a kill."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed: dispatcher and worker only break together")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command = [program, *options, "--appendonly", "yes", "--save", ""]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, *, empty: bool = False) -> None:
        """Start it, with what it held when it was killed or with nothing, and wait until it answers."""
        if empty:
            shutil.rmtree(self._folder / "appendonlydir")
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        patience = time.monotonic() + PATIENCE
        while time.monotonic() < patience:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)) as asking:
                asking.sendall(b"PING\r\n")
                if asking.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server does not start")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()
