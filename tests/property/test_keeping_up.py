"""Each way to keep up, and switching between them, under writers, workers and kills: in the end all is as from scratch."""

import random
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from psycopg.errors import DeadlockDetected, LockNotAvailable

from dynrec_store import queue
from tests.property import labour, oracle, shop
from tests.property.turmoil import Turmoil
from tests.streaming import catch_up, drop_slot
from workers.stream import Stream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

SECONDS = 4.0  # of writing and working in each example
# What a recount of popularity, or a look at everything, does not put right afterwards.
UNREPAIRED = [
    act
    for act in shop.ACTIONS
    if act not in (shop.refresh, shop.refresh_all, shop.truncate_items, shop.truncate_events)
]
WAYS = ["incremental", "batch", "stream"]
few = settings(max_examples=max(3, settings().max_examples // 10), phases=[Phase.generate])
seeds = st.integers(0, 2**32)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that begins, and comes back, at once."""
    monkeypatch.setattr("workers.stream.TEND_SECONDS", 0.1)
    monkeypatch.setattr("workers.service.AGAIN_SECONDS", 0.05)


@pytest.fixture
def declared(
    make_database: Callable[..., str], drop_database: Callable[[str], None], template: str
) -> Iterator[Callable[..., str]]:
    """Make a database with a shop whose rows the log tells in full; the one before is dropped."""
    made: list[str] = []

    def forget() -> None:
        while made:
            drop_slot(made[-1])
            drop_database(made.pop())

    def make(layout: str, way: str) -> str:
        forget()
        made.append(make_database(template))
        with psycopg.connect(made[0], autocommit=True) as connection:
            shop.declare(connection, layout)
            for table in ("item", "item_low", "item_high", "event", "event_view", "event_other"):
                if connection.execute("select to_regclass(%s)", [table]).fetchone() != (None,):
                    connection.execute(f"alter table {table} replica identity full".encode())
            switch(connection, way)
        return made[0]

    yield make
    forget()


def switch(connection: shop.Connection, way: str) -> None:
    """Let the recommender keep up in another way."""
    connection.execute(
        "select dynrec.alter_recommender(%s, options => jsonb_build_object('capture', %s::text))", [shop.NAME, way]
    )


class Ways(Turmoil):
    """A stream runs and is killed, batches come often, and an operator switches between the ways, if told to."""

    def keep_up(self, ways: list[str], *, losing: bool = False) -> None:
        """Everybody at once for a while; `losing`: the slot, too."""
        stream = Stream(self.url)
        threads = [
            threading.Thread(target=stream.run),
            threading.Thread(target=self._keep_on, args=[self._batch, "batches"]),
            threading.Thread(target=self._keep_on, args=[self._kill, "killer"]),
        ]
        if losing:
            threads.append(threading.Thread(target=self._keep_on, args=[self._lose, "loser"]))
        if len(ways) > 1:
            threads.append(threading.Thread(target=self._switch, args=[ways]))
        for thread in threads:
            thread.start()
        self.run(SECONDS, writers=3, workers=2)
        stream.stop()
        for thread in threads:
            thread.join()

    def settle(self) -> list[str]:
        """Finish all work in the way that the recommender has now."""
        catch_up(self.url)
        with queue.connect(self.url, application_name="settle") as worker:
            labour.drain(worker)  # a batch that has begun may not have seen everything
            batch_now(worker)
            labour.drain(worker)
        catch_up(self.url)
        with queue.connect(self.url, application_name="settle") as worker:
            labour.drain(worker)
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [*self.errors, *oracle.differences(connection)]

    def _batch(self, dice: random.Random, name: str) -> None:
        with queue.connect(self.url, application_name=name) as connection:
            while not self.stopping.wait(dice.choice([0.05, 0.3])):
                batch_now(connection)
                self.done["batch"] += 1

    def _kill(self, dice: random.Random, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True, application_name=name) as connection:
            while not self.stopping.wait(dice.choice([0.01, 0.2, 0.7])):
                self.done["kill"] += len(
                    connection.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where application_name like '%stream%' and datname = current_database()"
                    ).fetchall()
                )

    def _lose(self, dice: random.Random, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True, application_name=name) as connection:
            while not self.stopping.wait(dice.choice([0.3, 1])):
                connection.execute("select dynrec._drop_stream_slot()")
                self.done["slot lost"] += 1

    def _switch(self, ways: list[str]) -> None:
        dice = random.Random(f"{self.seed} switch")
        with psycopg.connect(self.url, autocommit=True, application_name="operator") as connection:
            while not self.stopping.wait(dice.choice([0.1, 0.5, 1.5])):
                way = dice.choice(ways)
                try:
                    switch(connection, way)
                    self.done[way] += 1
                except (DeadlockDetected, LockNotAvailable) as busy:
                    self.done[type(busy).__name__] += 1


def batch_now(connection: queue.Connection) -> None:
    """A batch, if the recommender has batches, however short ago the last one was."""
    connection.execute("update dynrec_data.recommender set batched_at = null where options ->> 'capture' = 'batch'")
    queue.queue_batches(connection)


@few
@given(seed=seeds, layout=st.sampled_from(shop.LAYOUTS), way=st.sampled_from(WAYS[1:]))
def test_one_way(declared: Callable[..., str], seed: int, layout: str, way: str) -> None:
    turmoil = Ways(declared(layout, way), seed)
    turmoil.keep_up([way], losing=True)
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)


@few
@given(seed=seeds, layout=st.sampled_from(shop.LAYOUTS))
def test_switching(declared: Callable[..., str], seed: int, layout: str) -> None:
    turmoil = Ways(declared(layout, "incremental"), seed)
    turmoil.keep_up(WAYS, losing=True)
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)


@few
@given(seed=seeds, layout=st.sampled_from(shop.LAYOUTS))
def test_between_triggers_and_stream_nothing_is_scanned(declared: Callable[..., str], seed: int, layout: str) -> None:
    turmoil = Ways(declared(layout, "incremental"), seed, UNREPAIRED)
    turmoil.keep_up(["incremental", "stream"])
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)
