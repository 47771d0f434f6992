"""Without its broker everything waits in the database, however long, and whatever the broker forgot."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.broker import Redis
from tests.faults.load import Load
from tests.faults.nursery import Nursery
from tests.faults.rabbitmq import RabbitMQ

# Celery says as errors that it cannot connect, and that it cannot acknowledge hints or give them back.
WITHOUT_BROKER = [
    "celery.worker.consumer.consumer",
    "celery.worker.loops",
    "celery.worker.request",
    "kombu.transport.virtual.base",
    "kombu.utils.div",
]

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def nursery(database_url: str, broker: Redis | RabbitMQ, tmp_path: Path) -> Iterator[Nursery]:
    with Nursery(database_url, tmp_path, broker.url) as running:
        yield running


def test_the_broker_is_killed(broker: Redis | RabbitMQ, nursery: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    for role in nursery.roles:
        nursery.start(role)
    with load.going_on(writers=2, readers=1):
        for turn in range(2 * rounds):
            time.sleep(dice.uniform(0.5, 2))
            empty = turn % 2 == 1
            broker.kill()
            load.ledger.inflict("broker killed" + (", back empty" if empty else ""))
            # leases end, sweeps come by and hints pile up meanwhile
            time.sleep(dice.choice([1, 6]) if rounds == 1 else dice.choice([1, 6, 30]))
            broker.start(empty=empty)
    assert load.differences() == []
    assert nursery.complaints(but_of=WITHOUT_BROKER) == ""
