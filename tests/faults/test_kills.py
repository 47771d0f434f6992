"""Killing any process at any moment loses nothing, leaves nothing stuck, and readers notice nothing."""

import random
import time
from uuid import UUID

import numpy as np
import psycopg
import pytest

from dynrec_store import models, queue
from dynrec_store.embedded import EmbeddedPostgres
from tests.drain import claim, drain
from tests.faults.conftest import BROKERS
from tests.faults.load import Load, until
from tests.faults.nursery import Nursery
from tests.faults.server import kill_server
from tests.property import shop
from tests.property.shop import Connection
from workers.encoders.hashing import HashingEncoder

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


def test_derived_vectors_outlive_a_crash_before_their_release(
    durable_server: EmbeddedPostgres, database_url: str
) -> None:
    """A worker publishes, the database crashes, and the worker goes on to end the lease: nothing says that again."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("alter system set wal_writer_delay = '10s'")
        admin.execute("select pg_reload_conf()")
        admin.execute("insert into item (id, title) select 900 + n, 'lamp ' || n from generate_series(1, 5) n")
        with queue.connect(database_url, application_name="test") as worker:
            drain(worker, HashingEncoder(shop.DIMENSION))
            token = claim(worker, shop.NAME, "derived")
            assert token is not None
            admin.execute("select pg_logical_emit_message(true, '', '')")  # all until now is on disk
            (model,) = models.derived_models(worker, shop.NAME)
            items = [row.item_id for row in models.read_derived(worker, UUID(token), model.model_id)]
            vectors = [np.ones(model.dimension, dtype=np.float32) for _ in items]
            models.publish_derived(worker, UUID(token), model.model_id, items, vectors, [])
            kill_server(durable_server)
    durable_server.start()
    with queue.connect(database_url, application_name="test") as worker:
        worker.execute("alter system reset wal_writer_delay")
        worker.execute("select pg_reload_conf()")
        assert models.release_derived(worker, UUID(token)) == len(items) >= 5
        statement = "select count(*) from dynrec_data.item_vector where model_id = %s and item_id = any (%s)"
        assert worker.execute(statement, [model.model_id, items]).fetchone() == (len(items),)
