"""A catalogue with two model versions: one with the adopted vectors, which answers, and a learned one."""

import time
from collections.abc import Sequence

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.place import url_of
from workers.bench.report import Advance
from workers.inprocess import running

NAME = "bench"  # of the recommender
PATIENCE = 600.0  # seconds until a backfill that does not end is an error

# A model that answers is needed, not a good one.
TRAINING = {"learned": 16, "content": 8, "epochs": 1, "examples": 500, "validated": 200}


def steps(items: int) -> int:
    """How often `two_versions` advances a progress bar."""
    return catalogue.steps(items) + 1


def two_versions(settings: Settings, items: int, users: Sequence[str], advance: Advance) -> tuple[int, int]:
    """A catalogue whose content version answers, and a learned version in the shadow; their numbers."""
    # torch takes seconds to import: the other benchmarks go without
    from workers.learning.run import train  # noqa: PLC0415

    with queue.connect(url_of(settings), application_name="dynrec bench") as connection:
        made = catalogue.make(connection, NAME, items, users, advance)
        with running(settings, url_of(settings)):
            learned = train(settings, url_of(settings), made.name, options=TRAINING)
            wait_for_shadow(connection, learned)
        with translated_errors():
            connection.execute("vacuum analyze")
    advance()
    return made.model_version, learned


def wait_for_shadow(connection: Connection, version: int) -> None:
    """Wait until a model version is complete; raises DynrecError after ten minutes."""
    statement = "select state from dynrec.model_versions where model_version = %s"
    until = time.monotonic() + PATIENCE
    while (row := connection.execute(statement, [version]).fetchone()) != ("shadow",):
        if time.monotonic() > until:
            raise DynrecError(f"model version {version} was not filled in within {PATIENCE:.0f} s: it is {row}")
        time.sleep(0.1)
