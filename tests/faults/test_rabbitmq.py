"""What RabbitMQ does that Redis does not: it takes back what is not acknowledged in time, and ends the channel for it."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.faults.load import Load, wait_for
from tests.faults.nursery import Nursery
from tests.faults.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# Milliseconds. A training takes longer than the half an hour that is usual.
IMPATIENT = {"consumer_timeout": 1000, "channel_tick_interval": 500}

# Celery says as an error that it cannot acknowledge what is done on a channel that has ended.
INTERRUPTED = ["celery.worker.request"]


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    with RabbitMQ(tmp_path, IMPATIENT) as running:
        yield running.url


def test_work_that_takes_longer_than_the_broker_waits(nursery: Nursery, load: Load) -> None:
    processes = [nursery.start(role) for role in nursery.roles]
    with load.going_on(writers=2, readers=1), psycopg.connect(load.url) as holding:
        for _ in range(2):
            time.sleep(1)
            holding.execute("lock table dynrec_data.item_vector in exclusive mode")  # workers wait for it to publish
            before = nursery.log.read_text().count("PRECONDITION_FAILED")
            wait_for(lambda: nursery.log.read_text().count("PRECONDITION_FAILED") > before, "the channel is ended")  # noqa: B023
            load.ledger.inflict("channel ended by the broker")
            holding.commit()
    assert load.differences() == []
    assert [pid for pid in processes if not psutil.pid_exists(pid)] == []
    assert nursery.complaints(but_of=INTERRUPTED) == ""
