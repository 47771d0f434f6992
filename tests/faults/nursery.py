"""Worker and dispatcher processes that start at once: forked from a process that has imported everything already.

Run as a program it reads a role from each line of its input and answers with the process's number.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from unittest.mock import patch

from dynrec_store.logs import configure_logging
from dynrec_store.settings import Settings, load_settings
from dynrec_store.target import target_database
from workers.dispatcher import run_dispatcher
from workers.encoders import Encoder, Vectors
from workers.encoders.hashing import HashingEncoder
from workers.inprocess import running
from workers.worker import run_worker

HANG = "a text to hang at"


class Nursery:
    """Starts processes and kills them; whatever lives at the end of the block is killed.

    `roles` are those of the processes that keep a database fresh: a dispatcher and a worker in each, or, with a
    broker between them, one of the two.
    """

    def __init__(
        self,
        database_url: str,
        folder: Path,
        broker_url: str | None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.roles = ["both", "both"] if broker_url is None else ["worker", "worker", "dispatcher", "dispatcher"]
        self.log = folder / "processes.log"
        self._alive: set[int] = set()
        settings = {
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url or "memory://",
            "LEASE_SECONDS": "2",
            "SWEEP_SECONDS": "0.5",
            "LOG_FORMAT": "json",
        }
        own = {f"DYNREC_{name}": value for name, value in settings.items()}
        self._environment = {**os.environ, **own, **environment}

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in list(self._alive):
            self.kill(pid)
        self._process.communicate()

    def start(self, role: str) -> int:
        """Start a process; returns its number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{role}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()
        pid = int(answer)
        self._alive.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """End a process as a power cut would."""
        self._alive.remove(pid)
        os.kill(pid, signal.SIGKILL)

    def has_ended(self, pid: int) -> bool:
        """Whether a process has ended by itself."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self._alive.discard(pid)
            return True
        return False

    def complaints(self, *, but_of: Sequence[str] = ()) -> str:
        """What the processes logged that should not happen; some loggers may complain of how they were treated."""
        lines = self.log.read_text().splitlines()
        wrong = [line for line in lines if '"level": "error"' in line or '"level": "critical"' in line]
        return "\n".join(line for line in wrong if not any(f'"logger": "{name}"' in line for name in but_of))


def run_both(settings: Settings) -> None:
    """Dispatcher and worker in this process, for as long as it lives."""
    configure_logging(settings)
    with target_database(settings) as url, running(settings, url):
        threading.Event().wait()


class Hanging(HashingEncoder):
    """Never comes back from a text with the word."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        if any(HANG in text for text in texts):
            threading.Event().wait()
        return super().encode(texts)


def _load_hanging(family: str, model: str, dimension: int, settings: Settings) -> Encoder:  # noqa: ARG001  as load_encoder
    return Hanging(dimension)


def run_hanging_worker(settings: Settings) -> None:
    """A worker whose model may hang."""
    with patch("workers.context.load_encoder", _load_hanging):
        run_worker(settings)


ROLES: dict[str, Callable[[Settings], None]] = {
    "both": run_both,
    "worker": run_worker,
    "hanging worker": run_hanging_worker,
    "dispatcher": run_dispatcher,
}


def _bear(role: str) -> int:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        ROLES[role](load_settings())
        os._exit(0)
    return pid


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        print(_bear(line.strip()), flush=True)  # noqa: T201
