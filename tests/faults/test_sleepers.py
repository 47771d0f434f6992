"""A process that is stopped, not killed, comes back with what it knew."""

import os
import random
import signal
import time

import psycopg
import pytest

from tests.faults.load import Load, settled, until
from tests.faults.nursery import Nursery
from tests.property.shop import Connection

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_a_worker_that_slept_past_its_lease_is_superseded(database_url: str, nursery: Nursery) -> None:
    first, *others = nursery.roles
    sleeper = nursery.start(first)
    for role in others[1:]:
        nursery.start(role)
    with psycopg.connect(database_url, autocommit=True) as connection:
        leased = stop_within_a_batch(connection, sleeper)
        connection.execute("update item set title = 'meanwhile' where id %% 2 = 0 and id::text = any (%s)", [leased])
        connection.execute("delete from item where id %% 3 = 0 and id::text = any (%s)", [leased])
        other = nursery.start(first)
        assert settled(connection) == []
        os.kill(sleeper, signal.SIGCONT)
        connection.execute("update item set title = 'awake' where id = (select max(id) from item)")
        assert settled(connection) == []
        nursery.kill(other)
        connection.execute("update item set title = 'alone again' where id % 5 = 0")
        assert settled(connection) == []
    assert nursery.complaints() == ""


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_any_process_may_be_frozen_for_a_while(nursery: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    processes = [nursery.start(role) for role in nursery.roles]
    with load.going_on(writers=2, readers=1), psycopg.connect(load.url, autocommit=True) as connection:
        for _ in range(4 * rounds):
            until(connection, "select exists (select from dynrec_data.lease)")
            frozen = dice.sample(processes, dice.choice([1, 2]))
            for process in frozen:
                os.kill(process, signal.SIGSTOP)
                load.ledger.inflict("process frozen")
            time.sleep(dice.choice([0.5, 3]))  # a lease lasts 2 seconds
            for process in frozen:
                os.kill(process, signal.SIGCONT)
    assert load.differences() == []
    assert nursery.complaints() == ""


def stop_within_a_batch(connection: Connection, worker: int) -> list[str]:
    """Stop a worker between claim and publish; returns what it had leased."""
    for attempt in range(1, 51):
        connection.execute(
            "insert into item (id, title) select %s * 1000 + g, 'item ' || g %% 300 from generate_series(1, 999) g",
            [attempt],
        )
        until(connection, "select exists (select from dynrec_data.lease where kind = 'item')")
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.1)  # a statement that the server has begun ends
        leased = connection.execute("select entity from dynrec_data.lease where kind = 'item'").fetchall()
        if leased:
            return [str(entity) for (entity,) in leased]
        os.kill(worker, signal.SIGCONT)
    raise AssertionError("the worker was never caught within a batch")
