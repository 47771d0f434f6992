"""Dispatcher and workers on a real server: what they publish, and what they survive."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from dynrec_store.settings import Settings
from workers import context as worker_context
from workers.background import Background
from workers.celery_app import MAINTENANCE, make_app
from workers.context import Context, Tally
from workers.dispatcher import Dispatcher
from workers.encoders import Encoder, HashingEncoder, Vectors
from workers.exceptions import DeviceFault, EncodingFailed, ModelUnavailable
from workers.inprocess import running
from workers.maintenance import run_tasks
from workers.recompute import recompute_items, recompute_users

Connection = psycopg.Connection[tuple[Any, ...]]

PATIENCE = 60.0  # seconds until something that should happen is missed


class Fussy:
    """The hashing encoder, with texts and moments at which it fails."""

    name = "fussy"
    device = "cpu"
    dimension = 256

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.fault: Exception | None = None
        self.before: Callable[[], object] = lambda: None
        self._encoder = HashingEncoder(self.dimension)

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.before()
        self.texts += texts
        if self.fault is not None:
            raise self.fault
        if any("poison" in text for text in texts):
            raise ValueError("I cannot stand poison")
        if broken := [position for position, text in enumerate(texts) if "nan" in text]:
            raise EncodingFailed(self.name, broken)
        return self._encoder.encode(texts)


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, lease_seconds=5, sweep_seconds=0.2)  # type: ignore[call-arg]


@pytest.fixture
def products(connection: Connection) -> Connection:
    """A connection to a database with a recommender 'shop' over an empty table, and vectors of numpy."""
    register_vector(connection)
    connection.execute("create table products (id text primary key, title text)")
    connection.execute("create table clicks (user_id text, item_id text, occurred_at timestamptz default now())")
    connection.execute("""
        select dynrec.create_recommender('shop', 'products', text_columns => '{title}', interactions => 'clicks',
          encoder => 'hashing', options => '{"max_attempts": 2}')""")
    return connection


@pytest.fixture
def context(settings: Settings, database_url: str) -> Iterator[Context]:
    made = Context(settings, database_url)
    yield made
    made.close()


@pytest.fixture
def fussy(monkeypatch: pytest.MonkeyPatch) -> Fussy:
    """Takes the place of every encoder."""
    encoder = Fussy()

    def load(*_: object) -> Encoder:
        return encoder

    monkeypatch.setattr(worker_context, "load_encoder", load)
    return encoder


def fresh(connection: Connection) -> bool:
    row = connection.execute("select dynrec.wait_until_fresh('shop', %s::interval)", [f"{PATIENCE} s"]).fetchone()
    return row == (True,)


def stored(connection: Connection) -> dict[str, np.ndarray]:
    rows = connection.execute("""
        select v.item_id, v.embedding
        from dynrec_data.item_vector v join dynrec_data.recommender r on r.active_model_id = v.model_id""")
    return {item: vector.to_numpy() for item, vector in rows}


def from_scratch(connection: Connection) -> dict[str, np.ndarray]:
    rows = connection.execute("select id, coalesce(btrim(title), '') from products").fetchall()
    return dict(zip([key for key, _ in rows], HashingEncoder(256).encode([t for _, t in rows]), strict=True))


def assert_as_from_scratch(connection: Connection) -> None:
    there, wanted = stored(connection), from_scratch(connection)
    assert there.keys() == wanted.keys()
    for key, vector in wanted.items():
        np.testing.assert_allclose(there[key], vector, atol=1e-6)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def failures(connection: Connection) -> dict[str, tuple[str, int, str]]:
    rows = connection.execute("select entity, state, attempts, error from dynrec.failures")
    return {entity: (state, attempts, error) for entity, state, attempts, error in rows}


def drained(context: Context) -> Tally:
    run_tasks(context)
    tally, _ = recompute_items(context, "shop")
    run_tasks(context)
    users, _ = recompute_users(context, "shop")
    return tally + users


def test_inserts_updates_and_deletes_end_up_as_from_scratch(
    products: Connection, settings: Settings, database_url: str
) -> None:
    with running(settings, database_url):
        products.execute("insert into products select n::text, 'red apple ' || n from generate_series(1, 300) n")
        products.execute("update products set title = 'green pear ' || id where id::int % 3 = 0")
        products.execute("delete from products where id::int % 5 = 0")
        products.execute("update products set id = 'moved' where id = '7'")
        assert fresh(products)
        assert_as_from_scratch(products)
        products.execute("insert into products values ('late', 'a late plum')")
        assert fresh(products)
        assert_as_from_scratch(products)


def test_users_follow_their_clicks_and_the_index_is_built(
    products: Connection, settings: Settings, database_url: str
) -> None:
    products.execute("insert into products select n::text, 'red apple ' || n from generate_series(1, 50) n")
    with running(settings, database_url):
        products.execute("insert into clicks select 'u' || n % 7, n::text from generate_series(1, 50) n")
        assert fresh(products)
        counts = products.execute("select user_id, event_count from dynrec_data.user_vector order by 1").fetchall()
        assert counts == [(f"u{n}", 8 if n == 1 else 7) for n in range(7)]
        until(lambda: products.execute("select from dynrec.model_versions where indexed").fetchone() is not None)


def test_the_packaged_model_serves(products: Connection, settings: Settings, database_url: str) -> None:
    products.execute("select dynrec.drop_recommender('shop')")
    products.execute("select dynrec.create_recommender('shop', 'products', text_columns => '{title}')")
    with running(settings, database_url, preload=True):
        products.execute("insert into products values ('a', 'apple juice'), ('b', 'orange juice'), ('c', 'tyre')")
        assert fresh(products)
        found = products.execute("select item_id from dynrec.similar_items('shop', 'a', 2)").fetchall()
        assert found == [("b",), ("c",)]
        lengths = [float(np.linalg.norm(vector)) for vector in stored(products).values()]
        np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_equal_texts_are_encoded_once_and_known_ones_never_again(
    products: Connection, context: Context, fussy: Fussy
) -> None:
    products.execute("insert into products select n::text, 'apple ' || n % 4 from generate_series(1, 20) n")
    tally = drained(context)
    assert (tally.claimed, tally.encoded, tally.saved, tally.published, tally.calls) == (20, 4, 16, 20, 1)
    products.execute("insert into products values ('another', 'apple 1')")
    products.execute("update products set title = 'apple 2' where id = '1'")
    assert drained(context).encoded == 0
    assert sorted(fussy.texts) == [f"apple {n}" for n in range(4)]
    assert_as_from_scratch(products)


def test_a_bad_text_takes_no_other_with_it(products: Connection, context: Context, fussy: Fussy) -> None:
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 30) n")
    products.execute("update products set title = 'poison' where id = '11'")
    products.execute("update products set title = 'nan' where id = '23'")
    tally = drained(context)
    assert (tally.published, tally.failed) == (28, 2)
    assert stored(products).keys() == {str(n) for n in range(1, 31)} - {"11", "23"}
    assert failures(products) == {
        "11": ("retrying", 1, "ValueError: I cannot stand poison"),
        "23": ("retrying", 1, "encoder 'fussy' gave no finite vector for this text"),
    }
    assert fussy.texts.count("apple 1") < 10


def test_a_text_that_stays_bad_is_given_up_and_a_better_one_is_taken(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    products.execute("insert into products values ('good', 'apple'), ('bad', 'poison')")
    with running(settings, database_url):
        until(lambda: failures(products).get("bad", ("",))[0] == "dead letter")
        assert stored(products).keys() == {"good"}
        products.execute("update products set title = 'pear' where id = 'bad'")
        until(lambda: stored(products).keys() == {"good", "bad"})
        until(lambda: failures(products) == {})
    assert fussy.texts.count("poison") < 10
    assert_as_from_scratch(products)


@pytest.mark.parametrize("fault", [DeviceFault("out of memory"), ModelUnavailable("no such model")])
def test_a_fault_of_the_device_is_charged_to_nobody(
    products: Connection, context: Context, fussy: Fussy, fault: Exception
) -> None:
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 10) n")
    fussy.fault = fault
    drained(context)
    assert set(failures(products).values()) == {("retrying", 0, str(fault))}
    assert len(failures(products)) == 10
    fussy.fault = None
    products.execute("select dynrec.retry_failed('shop')")
    assert drained(context).published == 10
    assert failures(products) == {}
    assert_as_from_scratch(products)


def test_a_model_that_cannot_be_loaded_shows_among_the_failures(
    products: Connection, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(*arguments: object) -> Encoder:
        loads.append(arguments)
        raise ModelUnavailable("no such model")

    monkeypatch.setattr(worker_context, "load_encoder", load)
    products.execute("insert into products values ('a', 'apple')")
    drained(context)
    assert failures(products) == {"a": ("retrying", 0, "no such model")}
    products.execute("insert into products values ('b', 'pear')")
    drained(context)
    assert failures(products).keys() == {"a", "b"}
    assert len(loads) == 1


def test_a_row_that_postgres_refuses_takes_no_other_with_it(products: Connection, context: Context) -> None:
    row = products.execute("select active_model_id from dynrec_data.recommender").fetchone()
    assert row is not None
    products.execute(f"alter table dynrec_data.item_vector_{row[0]} add constraint no_13 check (item_id <> '13')")
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 20) n")
    tally = drained(context)
    assert (tally.published, tally.failed) == (19, 1)
    assert stored(products).keys() == {str(n) for n in range(1, 21)} - {"13"}
    ((entity, (state, attempts, error)),) = failures(products).items()
    assert (entity, state, attempts) == ("13", "retrying", 1)
    assert "no_13" in error


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


def roles(connection: Connection) -> set[str]:
    return {role for (role,) in connection.execute("select role from dynrec_data.heartbeat")}


def test_the_heartbeat_tells_what_was_done(products: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url):
        products.execute("insert into products values ('a', 'apple'), ('b', 'apple')")
        assert fresh(products)
    row = products.execute("select details from dynrec_data.heartbeat where role = 'worker'").fetchone()
    assert row is not None
    details = row[0]
    assert details["encoded"] == details["calls"] == 1
    assert details["saved"] == details["claimed"] - 1 >= 1
    assert details["encoder"] == ["hashing"]
    assert details["device"] == ["cpu"]


@contextmanager
def dying_worker(database_url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed and read, and hangs in its model."""
    program = """
        import sys, time
        from dynrec_store.settings import Settings
        from workers import context
        from workers.encoders import HashingEncoder
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
