"""A worker whose model never comes back ends itself; another takes over what it held, and nobody is given up."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.broker import Redis
from tests.faults.load import settled, until, wait_for
from tests.faults.nursery import HANG, Nursery

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def nursery(database_url: str, redis: Redis, tmp_path: Path) -> Iterator[Nursery]:
    with Nursery(database_url, tmp_path, redis.url, {"DYNREC_HANG_SECONDS": "4"}) as running:
        yield running


def test_a_worker_whose_model_hangs_ends_itself(nursery: Nursery, database_url: str) -> None:
    nursery.start("dispatcher")
    worker = nursery.start("hanging worker")
    with psycopg.connect(database_url, autocommit=True) as connection:
        until(connection, "select dynrec.wait_until_fresh('shop', '100 ms')")
        connection.execute("insert into item (id, title) select g, 'item ' || g from generate_series(9000, 9050) g")
        connection.execute("update item set title = %s where id = 9025", [HANG])
        wait_for(lambda: nursery.has_ended(worker))
        assert '"event": "model_hangs"' in nursery.log.read_text()
        nursery.start("worker")
        until(
            connection, "select dynrec.wait_until_fresh('shop', '100 ms') and not exists (select from dynrec.failures)"
        )
        assert settled(connection) == []
