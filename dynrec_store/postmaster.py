"""Starting, finding and stopping the server process of a cluster, whatever state the last one left."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from dynrec_store.binaries import Binaries, as_server_user
from dynrec_store.exceptions import EmbeddedServerError

START_TIMEOUT = 120.0  # seconds; recovery after a crash can take long
STOP_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class Postmaster:
    """A server process that runs and accepts connections."""

    pid: int
    port: int  # on 127.0.0.1


def running(pgdata: Path) -> Postmaster | None:
    """The server of this cluster, or None. Waits for one that is starting up.

    The file postmaster.pid outlives a crash, and its number may meanwhile be another process's. A server of this
    cluster is known by its working directory, which is the cluster's folder.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        lines = _pid_file(pgdata)
        if not lines or not _works_in(int(lines[0]), pgdata):
            return None
        if len(lines) >= 8 and lines[7].strip() == "ready":
            return Postmaster(int(lines[0]), int(lines[3]))
        time.sleep(0.05)
    raise EmbeddedServerError(f"the server on {pgdata} has been starting for {START_TIMEOUT:.0f} s:\n{_log(pgdata)}")


def start(binaries: Binaries, pgdata: Path, socket_dir: Path | None, port: int) -> None:
    """Start the server on a cluster that has none; the caller sees to it that nobody else does so now."""
    _clear_traces(pgdata, socket_dir)
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='{socket_dir or ''}'"
    command = [str(binaries.program("pg_ctl")), "start", "--wait", f"--timeout={START_TIMEOUT:.0f}"]
    done = as_server_user(
        [*command, f"--pgdata={pgdata}", f"--log={pgdata / 'server.log'}", f"--options={options}"],
        check=False,
    )
    if done.returncode:
        raise EmbeddedServerError(f"the server on {pgdata} does not start; its log ends with:\n{_log(pgdata)}")


def stop(pgdata: Path) -> None:
    """Stop the server if one runs: clients are disconnected, nothing committed is lost."""
    server = running(pgdata)
    if server is None:
        return
    os.kill(server.pid, signal.SIGINT)  # a fast shutdown
    deadline = time.monotonic() + STOP_TIMEOUT
    while _works_in(server.pid, pgdata):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"the server on {pgdata} (process {server.pid}) does not stop:\n{_log(pgdata)}")
        time.sleep(0.01)


def _clear_traces(pgdata: Path, socket_dir: Path | None) -> None:
    """Wait for the last processes of a killed server, then remove its lock files.

    PostgreSQL removes stale ones itself, except where the number inside belongs to a process of today.
    """
    deadline = time.monotonic() + STOP_TIMEOUT
    while survivors := [p.pid for p in psutil.process_iter() if _works_in(p.pid, pgdata)]:
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"processes of a server that was killed still work on {pgdata}: {survivors}; end them and try again"
            )
        time.sleep(0.1)
    (pgdata / "postmaster.pid").unlink(missing_ok=True)
    (pgdata / "server.log").unlink(missing_ok=True)
    for left_over in socket_dir.glob(".s.PGSQL.*") if socket_dir else ():
        left_over.unlink()


def _pid_file(pgdata: Path) -> list[str]:
    try:
        return (pgdata / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.path.realpath(psutil.Process(pid).cwd())) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def _log(pgdata: Path) -> str:
    try:
        return "\n".join((pgdata / "server.log").read_text(errors="replace").splitlines()[-15:])
    except FileNotFoundError:
        return "(no log)"
