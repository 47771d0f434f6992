"""What retires a model version waits for nobody who reads for long, and nobody waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import psycopg
import pytest

from dynrec_store import database
from tests.conftest import Prepare
from tests.drain import Session
from tests.learned import backfill, make_config, stage
from tests.sql.shop import NOON, Event, Shop, open_shop

OLDEST, NEWEST = 2, 4


def promotions(connection: Session) -> None:
    """Three models promoted, one after the other; the first is superseded."""
    shop = open_shop(connection)
    shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
    shop.drain()
    for seed in range(3):
        stage(connection, make_config(seed))
        backfill(connection)
        connection.execute("select dynrec.promote_model('shop')")
    # versions of before, of each model
    connection.execute("update shop.products set title = title || '!' where id < 4")
    connection.execute("delete from dynrec_data.task where action = 'retire'")
    backfill(connection)


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(promotions).name


@pytest.fixture
def due(shop: Shop) -> Shop:
    """The retirement can begin."""
    assert shop.execute("select action, entity from dynrec_data.task") == [("retire", str(OLDEST))]
    return shop


@contextmanager
def long_read(url: str) -> Iterator[None]:
    """Somebody who reads vectors of all models, and does not commit."""
    with database.connect(url) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from dynrec_data.item_vector")
        yield


def state(shop: Shop, model: int = OLDEST) -> str:
    return str(shop.value("select state from dynrec.model_versions where model_version = %s", [model]))


def run_task(url: str, said: list[Any]) -> None:
    with database.connect(url) as worker:
        said.extend(worker.execute("select dynrec._run_task()").fetchall())


def test_it_is_put_off_while_somebody_reads_for_long_and_holds_up_nobody(due: Shop, database_url: str) -> None:
    said: list[Any] = []
    waiting = "select count(*) from pg_locks where not granted and relation = 'dynrec_data.item_vector'::regclass"
    with long_read(database_url):
        worker = Thread(target=run_task, args=(database_url, said))
        worker.start()
        while worker.is_alive() and due.connection.execute(waiting.encode()).fetchone() == (0,):
            pass
        due.execute("set lock_timeout = '10 s'")
        assert due.value("select count(*) from dynrec.model_versions") == 4
        worker.join(30)
        assert said == [("retire of 'shop': 0",)]
        # nothing is half done
        assert state(due) == "standby"
        assert len(due.recommend("u1", k=4, by_model=OLDEST)) == 4
        assert due.value("select count(*) from dynrec_data.model_artefact where model_id = %s", [OLDEST]) == 1
        # and nothing waits for it
        assert due.value("select dynrec._run_task()") is None
        assert due.value("select dynrec.wait_until_fresh('shop', '0 s')")
    due.execute("update dynrec_data.task set captured_at = captured_at - interval '10 seconds'")
    assert due.value("select dynrec._run_task()") == "retire of 'shop': 1"
    assert due.queued() == set()
    assert state(due) == "retired"
    assert due.value("select to_regclass(%s) is null", [f"dynrec_data.item_vector_{OLDEST}"])
    assert len(due.recommend("u1", k=4)) == 4


def test_by_hand_it_is_refused_while_somebody_reads_for_long(due: Shop, database_url: str) -> None:
    retire = "select dynrec.retire_model('shop', 2)"
    with long_read(database_url), pytest.raises(psycopg.errors.LockNotAvailable, match="read for long") as caught:
        due.connection.execute(retire.encode())
    assert caught.value.diag.message_hint
    assert state(due) == "standby"
    due.connection.execute(retire.encode())
    assert state(due) == "retired"


def test_a_clock_that_was_set_back_puts_nothing_off(due: Shop) -> None:
    due.execute("update dynrec_data.task set captured_at = now() + interval '1 hour'")
    due.drain()
    assert state(due) == "retired"


def test_history_goes_with_the_next_maintenance(due: Shop) -> None:
    def versions() -> set[int]:
        return {
            model
            for table in ("item", "user")
            for (model,) in due.connection.execute(f"select model_id from dynrec_data.{table}_vector_history".encode())
        }

    due.drain()
    assert state(due) == "retired"
    assert OLDEST in versions()
    due.execute("select dynrec._maintain()")
    assert OLDEST not in versions()
    assert NEWEST in versions()


def test_what_is_dropped_leaves_no_history_of_retired_models(due: Shop) -> None:
    due.drain()
    assert state(due) == "retired"
    due.execute("select dynrec.drop_recommender('shop')")
    for table in ("item", "user"):
        assert due.connection.execute(
            f"select count(*) from dynrec_data.{table}_vector_history".encode()
        ).fetchone() == (0,)
