"""Applications that run into deadlocks and serialisation failures on rows of their own: capture adds none."""

import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.errors import DeadlockDetected, SerializationFailure

from tests.faults.load import Load
from tests.faults.nursery import Nursery
from tests.property import shop
from tests.property.shop import Connection

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WRITERS = 4
STRICT = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]

Write = Callable[[Connection, random.Random, int], None]


def all_at_once(load: Load, write: Write, seconds: float) -> None:
    """Let writers write in transactions for a while, each again until it is committed."""
    until = time.monotonic() + seconds

    def go_on(number: int) -> None:
        dice = random.Random(f"{load.seed} {number}")
        with psycopg.connect(load.url, autocommit=True) as connection:
            connection.execute("set deadlock_timeout = '20 ms'")
            while time.monotonic() < until and not load.errors:
                connection.isolation_level = dice.choice(STRICT)
                commit(load, connection, lambda: write(connection, dice, number))

    threads = [threading.Thread(target=go_on, args=[number]) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def commit(load: Load, connection: Connection, write: Callable[[], None]) -> None:
    """Write in a transaction, as often as it takes."""
    while not load.errors:
        try:
            with connection.transaction():
                write()
        except (DeadlockDetected, SerializationFailure) as conflict:
            load.ledger.inflict(type(conflict).__name__)
            # which statement notices a serialisation failure is chance; to wait for each other there takes two
            if isinstance(conflict, DeadlockDetected) and "dynrec" in (conflict.diag.context or ""):
                load.errors.append(f"in capture: {conflict} {conflict.diag.context}")
        except psycopg.Error as error:
            load.errors.append(repr(error))
        else:
            load.committed += 3
            return


def in_any_order(connection: Connection, dice: random.Random, _: int) -> None:
    """Rows that everybody wants, in no particular order."""
    for item in dice.sample(range(1, 7), 2):
        connection.execute("update item set title = %s where id = %s", [f"title {dice.randrange(9)}", item])
        time.sleep(dice.choice([0, 0.005]))
    user = dice.choice(shop.USERS)
    connection.execute(
        "insert into event (user_id, item_id, kind, value, occurred_at) select %s, %s, 'buy', count(*), now() from event where user_id = %s",
        [user, item, user],
    )


def of_ones_own(connection: Connection, dice: random.Random, number: int) -> None:
    """Rows that nobody else touches, and nothing read."""
    first = dice.randrange(2**31 // WRITERS - 2) * WRITERS + number
    connection.execute("insert into item (id, title) values (%s, 'new') on conflict do nothing", [first])
    for _ in range(2):
        connection.execute(
            "insert into event (user_id, item_id, kind, value, occurred_at) values (%s, %s, 'buy', 1, now())",
            [f"own {number}", first],
        )


@pytest.mark.parametrize("broker_url", ["memory"], indirect=True)
def test_writers_conflict(nursery: Nursery, load: Load, rounds: int) -> None:
    nursery.start("both")
    with psycopg.connect(load.url, autocommit=True) as connection:
        connection.execute("insert into item (id, title) select g, 'item ' || g from generate_series(1, 12) g")
    all_at_once(load, in_any_order, 4.0 * rounds)
    assert load.ledger.inflicted.keys() == {"DeadlockDetected", "SerializationFailure"}
    assert load.differences() == []
    assert nursery.complaints() == ""


@pytest.mark.parametrize("broker_url", ["memory"], indirect=True)
def test_writers_of_rows_of_their_own_never_conflict(nursery: Nursery, load: Load) -> None:
    nursery.start("both")
    all_at_once(load, of_ones_own, 3.0)
    assert load.ledger.inflicted.total() == 0
    assert load.differences() == []
    assert nursery.complaints() == ""
