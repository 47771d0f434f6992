"""What dispatcher and workers survive, and how they stop."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from dynrec_store.settings import Settings
from tests.workers.support import (
    Connection,
    Fussy,
    assert_as_from_scratch,
    failures,
    fresh,
    stored,
    until,
)
from workers.background import Background
from workers.celery_app import MAINTENANCE, make_app
from workers.dispatcher import Dispatcher
from workers.inprocess import running


def test_a_recommender_dropped_meanwhile_is_no_error(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    def drop() -> None:
        fussy.before = lambda: None
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("select dynrec.drop_recommender('shop')")

    fussy.before = drop
    with running(settings, database_url):
        products.execute("insert into products values ('a', 'apple')")
        until(lambda: products.execute("select from dynrec_data.recommender").fetchone() is None)
        until(lambda: products.execute("select from dynrec_data.lease").fetchone() is None)


def test_two_dispatchers_do_no_harm(products: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url), running(settings, database_url):
        for n in range(20):
            products.execute("insert into products values (%s, %s)", [str(n), f"apple {n}"])
            if n % 5 == 0:
                assert fresh(products)
        assert fresh(products)
    assert_as_from_scratch(products)


def test_a_restart_of_the_database_loses_nothing(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    terminate = """select pg_terminate_backend(pid) from pg_stat_activity
        where application_name like 'dynrec-%' and datname = current_database()"""

    def cut() -> None:
        fussy.before = lambda: None
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(terminate)

    with running(settings, database_url):
        products.execute("insert into products values ('a', 'apple')")
        assert fresh(products)
        fussy.before = cut  # in the middle of a batch
        products.execute("insert into products select n::text, 'pear ' || n from generate_series(1, 300) n")
        assert fresh(products)
        products.execute(terminate)  # while everybody sleeps
        products.execute("insert into products values ('b', 'plum')")
        assert fresh(products)
    assert_as_from_scratch(products)


def test_without_a_broker_the_dispatcher_goes_on(products: Connection, settings: Settings, database_url: str) -> None:
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    dispatcher = Dispatcher(away, database_url, make_app(away))
    beats = "select max(beat_at) from dynrec_data.heartbeat where role = 'dispatcher'"
    with Background("dispatcher", dispatcher.run, stop=dispatcher.stop):
        products.execute("insert into products values ('a', 'apple')")
        until(lambda: products.execute(beats).fetchone() != (None,))
        time.sleep(2)
        with running(settings, database_url):
            assert fresh(products)
    assert_as_from_scratch(products)


def test_work_waits_for_a_worker(products: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url, queues=[MAINTENANCE]):
        products.execute("insert into products values ('a', 'apple')")
        time.sleep(1)
        assert stored(products) == {}
    with running(settings, database_url):
        assert fresh(products)
    assert_as_from_scratch(products)


def roles(connection: Connection) -> set[str]:
    return {role for (role,) in connection.execute("select role from dynrec_data.heartbeat")}


def test_no_thread_is_left(products: Connection, settings: Settings, database_url: str) -> None:
    before = set(threading.enumerate())
    with running(settings, database_url, preload=True):
        products.execute("insert into products values ('a', 'apple')")
        assert fresh(products)
        assert {"dispatcher", "worker"} <= roles(products)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("dynrec")}
    connected = "select from pg_stat_activity where application_name like 'dynrec-%' and datname = current_database()"
    until(lambda: products.execute(connected).fetchone() is None)


@contextmanager
def dying_worker(database_url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed and read, and hangs in its model."""
    program = """
        import sys, time
        from dynrec_store.settings import Settings
        from workers import context
        from workers.encoders.hashing import HashingEncoder
        from workers.recompute import recompute_items

        class Hanging(HashingEncoder):
            def encode(self, texts):
                print("encoding", flush=True)
                time.sleep(600)

        context.load_encoder = lambda *_: Hanging()
        recompute_items(context.Context(Settings(_env_file=None, lease_seconds=1), sys.argv[1]), "shop")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), database_url], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.faults
def test_a_worker_killed_in_the_middle_of_a_batch_loses_nothing(
    products: Connection, settings: Settings, database_url: str
) -> None:
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 30) n")
    with dying_worker(database_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "encoding\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert products.execute("select count(*) > 0 from dynrec_data.lease").fetchone() == (True,)
    with running(settings, database_url):
        assert fresh(products)
    assert_as_from_scratch(products)
    assert products.execute("select count(*) from dynrec_data.lease").fetchone() == (0,)
    assert failures(products) == {}
