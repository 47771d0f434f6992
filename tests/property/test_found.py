"""What random histories found, each reduced to its shortest."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from dynrec_store import queue
from tests.property import answers, labour, oracle, shop
from tests.property.shop import Connection


@pytest.fixture
def worker(database_url: str) -> Iterator[queue.Connection]:
    with queue.connect(database_url, application_name="worker") as opened:
        yield opened


def meet(connection: Connection, user: str, item: int, *, age: str = "1 hour", value: float | None = None) -> None:
    connection.execute(
        """
        insert into event (user_id, item_id, kind, value, occurred_at) values (%s, %s, 'view', %s, now() - %s::interval)
        """,
        [user, item, value, age],
    )


def test_a_buried_interaction_is_not_forgotten(connection: Connection, worker: queue.Connection) -> None:
    shop.declare(connection, max_attempts=1)
    connection.execute("insert into item (id, title) values (1, 'red shoe'), (2, 'long coat')")
    meet(connection, "u1", 1)
    labour.drain(worker)
    meet(connection, "u1", 2)
    token = queue.claim(worker, shop.NAME, "user", 10, labour.LONG)
    assert token
    queue.fail(worker, token, ["u1"], "made to fail", charge=True)
    assert connection.execute("select state from dynrec.failures").fetchall() == [("dead letter",)]
    meet(connection, "u1", 1)  # it revives the dead letter
    assert labour.work(worker, "user")
    assert list(oracle.differences(connection)) == []


def test_history_that_came_before_its_partition(connection: Connection, worker: queue.Connection) -> None:
    shop.declare(connection)
    for (partition,) in connection.execute(
        "select c.oid::regclass::text from pg_class c where c.relname ~ '_history_\\d{4}_\\d\\d$' and c.relkind = 'r'"
    ).fetchall():
        connection.execute(f"drop table {partition}")
    connection.execute("insert into item (id, title) values (1, 'red shoe')")
    labour.drain(worker)
    then = answers.now(connection)
    connection.execute("update item set title = 'long coat'")
    labour.drain(worker)
    in_default = "select count(*) from dynrec_data.item_vector_history_default"
    assert connection.execute(in_default).fetchone() == (1,)
    queue.maintain(worker)
    assert connection.execute(in_default).fetchone() == (0,)
    assert answers.differences(then, answers.as_of(connection, then.at)) == []


def test_versions_follow_one_another_though_their_transactions_did_not(
    database_url: str, connection: Connection, worker: queue.Connection
) -> None:
    shop.declare(connection)
    connection.execute("insert into item (id, title) values (1, 'red shoe')")
    meet(connection, "u1", 1)
    labour.drain(worker)
    with psycopg.connect(database_url) as other:
        meet(other, "u1", 1)  # captured now, committed when the user has been forgotten
        connection.execute("delete from event")
        labour.drain(worker)
        other.commit()
    labour.drain(worker)
    assert list(oracle.differences(connection)) == []


def test_the_past_does_not_see_what_arrived_late(connection: Connection, worker: queue.Connection) -> None:
    shop.declare(connection)
    connection.execute("insert into item (id, title) values (1, 'red shoe')")
    labour.drain(worker)
    then = answers.now(connection)
    meet(connection, "u1", 1, age="10 days")
    assert answers.differences(then, answers.as_of(connection, then.at)) == []
    labour.drain(worker)
    assert answers.differences(then, answers.as_of(connection, then.at)) == []


def test_the_past_knows_an_item_that_is_gone(connection: Connection, worker: queue.Connection) -> None:
    shop.declare(connection)
    connection.execute("insert into item (id, title) values (1, 'red shoe'), (2, 'long coat')")
    meet(connection, "u1", 1)
    meet(connection, "u1", 3)  # never in the source
    labour.drain(worker)
    then = answers.now(connection)
    connection.execute("delete from item where id = 1")
    meet(connection, "u1", 2)
    labour.drain(worker)
    assert answers.differences(then, answers.as_of(connection, then.at)) == []


def test_popularity_of_items_whose_pending_events_cancel_their_number(
    connection: Connection, worker: queue.Connection
) -> None:
    shop.declare(connection)
    labour.drain(worker)
    meet(connection, "u1", 1, value=5)
    first = queue.claim(worker, shop.NAME, "user", 10, labour.LONG)
    assert first
    connection.execute("truncate event")
    meet(connection, "u2", 1)
    assert labour.work(worker, "user")
    while queue.run_task(worker):  # the source has one event of u2, and one of u1 is pending that it has no more
        pass
    queue.publish_users(worker, first)
    labour.drain(worker)
    assert list(oracle.differences(connection)) == []


@pytest.mark.parametrize("meanwhile", ["update item set title = 'long coat'", "delete from item", "truncate item"])
def test_what_happens_between_read_and_publish_is_not_lost(
    connection: Connection, worker: queue.Connection, meanwhile: LiteralString
) -> None:
    shop.declare(connection)
    labour.drain(worker)
    connection.execute("insert into item (id, title) values (1, 'red shoe')")
    token = queue.claim(worker, shop.NAME, "item", 10, labour.LONG)
    assert token
    rows = queue.read_items(worker, token)
    connection.execute(meanwhile)
    while queue.run_task(worker):  # what looks for the items of a truncated table must look among those in work, too
        pass
    assert {item: done.outcome for item, done in labour.publish(worker, token, rows).items()} == {"1": "published"}
    labour.drain(worker)
    assert list(oracle.differences(connection)) == []
