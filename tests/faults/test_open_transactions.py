"""A transaction that stays open, with an old snapshot or with locked rows, holds up nobody but who waits for its rows."""

import random
import time

import psycopg
import pytest

from tests.faults.ledger import Ledger
from tests.faults.load import settled, until
from tests.faults.nursery import Nursery
from tests.property import shop
from tests.property.shop import Connection

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("broker_url", ["memory"], indirect=True)
def test_transactions_stay_open(database_url: str, nursery: Nursery, seed: int, ledger: Ledger, rounds: int) -> None:
    dice = random.Random(seed)
    nursery.start("both")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("insert into item (id, title) select g, 'item ' || g from generate_series(1, 12) g")
        for turn in range(2 * rounds):
            with psycopg.connect(database_url) as old, psycopg.connect(database_url) as idle:
                ledger.inflict("transaction left open")
                old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                old.execute("select count(*) from item")
                write_and_stay(idle, dice)
                for step in range(5):
                    ledger.committed += others_go_on(connection, 1000 * (turn + 1) + step)
                time.sleep(2)  # the index of the vectors is due, and waits for old snapshots
                ledger.committed += others_go_on(connection, 1000 * (turn + 1) + 999)
                if dice.random() < 0.5:
                    idle.commit()
                    ledger.committed += 4
                else:
                    idle.rollback()
                old.execute("select count(*) from item")
            wrong = settled(connection)
            ledger.lost += len(wrong)
            assert wrong == []
    assert nursery.complaints() == ""


def write_and_stay(idle: Connection, dice: random.Random) -> None:
    """Lock and change rows, and leave the transaction open."""
    idle.execute("select from item where id in (1, 2) for update")
    idle.execute("update item set title = %s where id in (3, 4, 5)", [f"held {dice.random()}"])
    idle.execute("delete from item where id = 6")
    idle.execute(
        "insert into event (user_id, item_id, kind, value, occurred_at) values ('held', 3, 'buy', 1, now()), ('other', 7, 'buy', 1, now())"
    )
    idle.execute("update event set value = 2 where user_id = 'other'")


def others_go_on(connection: Connection, number: int) -> int:
    """Write what nobody holds, and see it published; returns how many statements that were."""
    connection.execute("insert into item (id, title) values (%s, %s)", [number, f"free {number}"])
    connection.execute(
        "insert into event (user_id, item_id, kind, value, occurred_at) values ('other', %s, 'buy', 1, now())", [number]
    )
    until(connection, "select not exists (select from dynrec_data.change)")
    answer = connection.execute("select count(*) from dynrec.recommend(%s, 'other', 5)", [shop.NAME]).fetchone()
    assert answer == (5,)
    return 2
