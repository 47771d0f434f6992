"""A RabbitMQ of a test's own, to be killed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import pytest

from tests.ports import free_ports

STARTS = 120.0  # seconds until it should have started
PROTOCOL = b"AMQP\x00\x00\x09\x01"


class RabbitMQ:
    """Runs for the length of the block, with breaks; keeps its content on disk over a kill."""

    def __init__(self, folder: Path, settings: Mapping[str, int] = MappingProxyType({})) -> None:
        # the first is Debian's, whose command on the path would become another user
        program = shutil.which("/usr/lib/rabbitmq/bin/rabbitmq-server") or shutil.which("rabbitmq-server")
        epmd = shutil.which("epmd")
        if program is None or epmd is None:
            pytest.skip("rabbitmq-server is not installed (Debian package rabbitmq-server)")
        self.port, registry, between_nodes = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._content = folder / "content"
        self._program = program
        self._names = [epmd, "-address", "127.0.0.1", "-port", str(registry)]  # in the foreground, to end with the test
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # the cookie
            "ERL_EPMD_PORT": str(registry),
            "RABBITMQ_NODENAME": f"dynrec{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(between_nodes),
            "RABBITMQ_MNESIA_BASE": str(self._content),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(
                ["+S 2:2", *(f"-rabbit {name} {value}" for name, value in settings.items())]
            ),
        }

    def __enter__(self) -> Self:
        self._registry = subprocess.Popen(self._names, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._registry.kill()
        self._registry.wait()

    def start(self, *, empty: bool = False) -> None:
        """Start it, with what it held when it was killed or with nothing, and wait until it answers."""
        if empty:
            shutil.rmtree(self._content)
        self._process = subprocess.Popen(
            [self._program],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        patience = time.monotonic() + STARTS
        while time.monotonic() < patience:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as asking:
                asking.sendall(PROTOCOL)
                if asking.recv(1) == b"\x01":
                    return
            time.sleep(0.05)
        raise AssertionError("rabbitmq-server does not start")

    def kill(self) -> None:
        """End it as a power cut would: the program is a script, so all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
