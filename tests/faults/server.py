"""Ending a server, all of it and at once."""

from contextlib import suppress
from pathlib import Path

import psutil

from dynrec_store import postmaster
from dynrec_store.embedded import EmbeddedPostgres


def kill_server(server: EmbeddedPostgres) -> None:
    """End the server with all its processes as a power cut would."""
    kill_cluster(server.pgdata)


def kill_cluster(pgdata: Path) -> None:
    """The same, for a server that is known by its folder."""
    running = postmaster.running(pgdata)
    assert running is not None
    parent = psutil.Process(running.pid)
    processes = [parent, *parent.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # the others end by themselves once the first is gone
            process.kill()
    psutil.wait_procs(processes)
