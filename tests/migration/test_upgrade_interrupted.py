"""An upgrade that is killed on its way leaves nothing, and can be made again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg
import pytest

from dynrec_store import migrate
from tests.migration import released

# A process that says when it begins; imports are no part of what is interrupted.
MIGRATE = "import sys; from dynrec_store import migrate; print(flush=True); migrate.upgrade(sys.argv[1])"

MIGRATING = "from pg_stat_activity where datname = current_database() and application_name = 'dynrec migrate'"


@pytest.fixture
def dice() -> random.Random:
    """A new one each time; a failure shows its seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    return random.Random(seed)


def start(url: str) -> subprocess.Popen[str]:
    """Begin to migrate in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", MIGRATE, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


def kill_the_process(process: subprocess.Popen[str], _: str) -> None:
    os.kill(process.pid, signal.SIGKILL)


def terminate_the_backend(_: subprocess.Popen[str], url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"select pg_terminate_backend(pid) {MIGRATING}".encode())


def cancel_the_statement(_: subprocess.Popen[str], url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"select pg_cancel_backend(pid) {MIGRATING}".encode())


def wait_until(url: str, *, migrating: bool) -> None:
    """Until a server process migrates, or none does: it notices that its client is gone when it next talks to it."""
    until = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(f"select count(*) > 0 {MIGRATING}".encode()).fetchone() != (migrating,):
            assert time.monotonic() < until
            time.sleep(0.002)


def duration(url: str) -> float:
    """Seconds that it takes to migrate this database to the end."""
    began = time.monotonic()
    migrate.upgrade(url)
    return time.monotonic() - began


@pytest.mark.parametrize("interrupt", [kill_the_process, terminate_the_backend, cancel_the_statement])
def test_all_or_nothing_and_again(
    release: str,
    make_database: Callable[..., str],
    drop_database: Callable[[str], None],
    dump_schema: Callable[..., str],
    interrupt: Callable[[subprocess.Popen[str], str], None],
    dice: random.Random,
) -> None:
    url, undisturbed = make_database(release), make_database(release)
    for one in (url, undisturbed):
        released.clear_the_way(one)
    before = dump_schema(url)
    longest = duration(undisturbed)
    after = dump_schema(undisturbed)
    interrupted = 0
    for share in (0.3, 0.6, 0.9):
        process = start(url)
        wait_until(url, migrating=True)
        time.sleep(dice.uniform(0, share * longest))
        while process.poll() is None:  # it may be between two statements
            interrupt(process, url)
        process.communicate()
        wait_until(url, migrating=False)
        if dump_schema(url) == after:  # it was done before, or died with the answer to its commit on the way
            break
        assert process.returncode != 0
        assert dump_schema(url) == before
        interrupted += 1
    assert interrupted
    migrate.upgrade(url)
    assert dump_schema(url) == after
    assert released.declarations(url) == released.declarations(undisturbed)
    assert released.work_off(url) == []
    for one in (url, undisturbed):
        drop_database(one)
