"""Killing any process at any moment loses nothing, leaves nothing stuck, and readers notice nothing."""

import math
import random
import time
from contextlib import suppress

import psutil
import psycopg
import pytest

from dynrec_store import postmaster
from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.load import Load, until
from tests.faults.nursery import Nursery
from tests.property.shop import Connection

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_workers_and_dispatchers_are_killed(database_url: str, nursery: Nursery, seed: int) -> None:
    dice = random.Random(seed)
    processes = {nursery.start(role): role for role in nursery.roles}
    load = Load(database_url, seed)
    with load.going_on(writers=2, readers=1), psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(10):
            time.sleep(dice.uniform(0.2, 2))
            kill_one(connection, dice, nursery, processes)
    assert load.differences() == []
    assert nursery.complaints() == ""


def kill_one(connection: Connection, dice: random.Random, nursery: Nursery, processes: dict[int, str]) -> None:
    """Kill a process, mostly in the middle of a batch, and start another in its place."""
    if dice.random() < 0.7:
        until(connection, "select exists (select from dynrec_data.lease)")
        time.sleep(dice.choice([0, 0.001, 0.005, 0.02]))
    victim = dice.choice(list(processes))
    nursery.kill(victim)
    role = processes.pop(victim)
    processes[nursery.start(role)] = role


def test_the_database_is_killed(
    durable_server: EmbeddedPostgres, database_url: str, nursery: Nursery, seed: int
) -> None:
    dice = random.Random(seed)
    for role in nursery.roles:
        nursery.start(role)
    load = Load(database_url, seed)
    with load.going_on(writers=2, readers=1):
        for _ in range(3):
            time.sleep(dice.uniform(1, 4))
            load.up_since = math.inf
            kill_server(durable_server)
            time.sleep(dice.uniform(0, 1))
            durable_server.start()
            load.up_since = time.monotonic()
    assert load.differences() == []
    assert nursery.complaints() == ""


def kill_server(server: EmbeddedPostgres) -> None:
    """End the server with all its processes as a power cut would."""
    running = postmaster.running(server.pgdata)
    assert running is not None
    parent = psutil.Process(running.pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # the others end by themselves once the first is gone
            process.kill()
