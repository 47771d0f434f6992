"""Killing any process at any moment loses nothing, leaves nothing stuck, and readers notice nothing."""

import random
import time

import psycopg
import pytest

from dynrec_store.embedded import EmbeddedPostgres
from tests.faults.conftest import BROKERS
from tests.faults.load import Load, until
from tests.faults.nursery import Nursery
from tests.faults.server import kill_server
from tests.property.shop import Connection

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("broker_url", ["memory", *BROKERS], indirect=True)
def test_workers_and_dispatchers_are_killed(nursery: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    processes = {nursery.start(role): role for role in nursery.roles}
    with load.going_on(writers=2, readers=1), psycopg.connect(load.url, autocommit=True) as connection:
        for _ in range(10 * rounds):
            time.sleep(dice.uniform(0.2, 2))
            kill_one(connection, dice, nursery, processes)
            load.ledger.inflict("worker or dispatcher killed")
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


def test_the_database_is_killed(durable_server: EmbeddedPostgres, nursery: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    for role in nursery.roles:
        nursery.start(role)
    with load.going_on(writers=2, readers=1):
        for _ in range(3 * rounds):
            time.sleep(dice.uniform(1, 4))
            with load.outage():
                kill_server(durable_server)
                load.ledger.inflict("database killed")
                time.sleep(dice.uniform(0, 1))
                durable_server.start()
    assert load.differences() == []
    assert nursery.complaints() == ""
