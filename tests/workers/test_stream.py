"""The stream: a replication slot instead of triggers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dynrec_store import database, migrate, stream
from dynrec_store.embedded import EmbeddedPostgres
from tests.sql.shop import NOON, Event, Shop, create_shop
from tests.streaming import catch_up, drop_slot
from tests.workers.support import Connection
from workers.stream import Stream

STREAM = {"capture": "stream"}


def alter(shop: Shop, way: str) -> None:
    """Let the recommender keep up in another way."""
    shop.execute("select dynrec.alter_recommender('shop', options => jsonb_build_object('capture', %s::text))", [way])


def findings(shop: Shop) -> list[str]:
    """What the doctor says of what it says."""
    return [finding for (finding,) in shop.execute("select finding from dynrec.doctor()")]


@pytest.fixture
def streamed(connection: Connection, database_url: str) -> Iterator[Shop]:
    """Twelve products, everything published, kept up by a stream that has begun."""
    shop = create_shop(connection, products=12)
    shop.execute("alter table shop.events replica identity full")
    alter(shop, "stream")
    shop.drain()
    catch_up(database_url)
    yield shop
    connection.close()
    drop_slot(database_url)


def test_rows_come_by_the_stream_alone(streamed: Shop, database_url: str) -> None:
    assert streamed.execute("select * from pg_trigger where tgname like 'dynrec%'") == []
    streamed.execute("update shop.products set title = 'other' where id = 1")
    streamed.execute("update shop.products set id = 20 where id = 2")
    streamed.execute("delete from shop.products where id = 3")
    streamed.add_events([Event("ann", "1", NOON, "view"), Event("bob", "4", NOON, "purchase", 2.5)])
    streamed.execute("update shop.events set kind = 'return', item_id = 5 where user_id = 'bob'")
    assert streamed.queued() == set()
    catch_up(database_url)
    assert {("item", key) for key in ("1", "2", "20", "3")} | {("user", "ann"), ("user", "bob")} == {
        (kind, entity) for kind, entity in streamed.execute("select distinct kind, entity from dynrec_data.change")
    }
    streamed.drain()
    streamed.assert_right()


def test_what_is_rolled_back_or_the_same_is_no_change(streamed: Shop, database_url: str) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    with streamed.connection.transaction(force_rollback=True):
        streamed.add_events([Event("bob", "1", NOON, "view")])
    streamed.execute("update shop.events set user_id = user_id")
    streamed.execute("alter table shop.products replica identity full")
    streamed.execute("update shop.products set stock = 7")
    catch_up(database_url)
    assert streamed.queued() == set()


def test_what_was_read_twice_counts_once(streamed: Shop) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view")])
    before = streamed.value("select pg_current_wal_lsn()")
    streamed.execute("select dynrec._tend_stream()")
    message = {
        "relation": streamed.value("select 'shop.events'::regclass::oid"),
        "lsn": before,
        "xid": 3,
        "at": "2024-03-01T12:00:00Z",
        "op": "insert",
        "old": None,
        "new": {
            "user_id": "ann",
            "item_id": "1",
            "kind": "view",
            "value": None,
            "occurred_at": "2024-03-01 12:00:00+00",
        },
    }
    rows = psycopg.types.json.Jsonb([message])
    for _ in range(2):  # as after a crash between the queue and the slot
        assert streamed.value("select dynrec._apply_stream(%s)", [rows])
        streamed.execute("select dynrec._stream_applied(%s)", [before])
    assert streamed.value("select count(*) from dynrec_data.change") == 1


def test_a_count_of_popularity_and_the_stream_do_not_both_count(streamed: Shop, database_url: str) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view"), Event("bob", "1", NOON, "view")])
    streamed.execute("delete from shop.events where user_id = 'bob'")
    streamed.execute(
        "insert into dynrec_data.task (recommender_id, action) select id, 'popularity' from dynrec_data.recommender"
    )
    streamed.drain()  # counts what the stream has not told of yet
    streamed.add_events([Event("cyd", "1", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    assert streamed.value("select event_count from dynrec_data.item_popularity where item_id = '1'") == 2
    streamed.assert_right()


def test_the_past_does_not_know_what_came_later(streamed: Shop, database_url: str) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    moment = streamed.value("select clock_timestamp()")
    then = streamed.recommend("ann", k=12)
    streamed.add_events([Event("ann", "2", NOON, "purchase")])
    streamed.drain()  # a refresh would find it in the source already
    streamed.execute("select dynrec.refresh('shop', user_ids => '{ann}')")
    streamed.drain()
    catch_up(database_url)
    streamed.drain()
    assert "2" not in {item for item, _, _ in streamed.recommend("ann", k=12)}
    assert [item for item, _, _ in streamed.recommend("ann", k=12, as_of=moment)] == [item for item, _, _ in then]


def test_truncate_is_seen(streamed: Shop, database_url: str) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    streamed.execute("truncate shop.events, shop.products")
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()
    assert streamed.value("select sum(event_count) from dynrec_data.item_popularity") in (None, 0)


def test_a_slot_that_holds_back_too_much_is_given_up_and_nothing_is_lost(streamed: Shop, database_url: str) -> None:
    streamed.execute("""select dynrec.alter_recommender('shop', options => '{"stream_max_lag_bytes": 1048576}')""")
    streamed.add_events([Event("ann", "1", NOON, "view")])
    streamed.execute("select pg_logical_emit_message(false, 'ballast', repeat('x', 2000000))")
    streamed.execute("select pg_switch_wal()")  # writes what is in the server's buffers still
    assert any("holds back" in finding for finding in findings(streamed))
    streamed.execute("select dynrec._maintain()")
    assert streamed.execute("select * from pg_replication_slots where database = current_database()") == []
    assert "the stream's slot is gone: changes wait for a scan" in findings(streamed)
    streamed.add_events([Event("bob", "2", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()
    assert not any("slot is gone" in finding for finding in findings(streamed))


def test_what_was_not_published_meanwhile_is_found(streamed: Shop, database_url: str) -> None:
    streamed.execute("drop publication dynrec_stream")
    streamed.add_events([Event("ann", "1", NOON, "view")])
    streamed.execute("update shop.products set title = 'other' where id = 1")
    catch_up(database_url)
    streamed.execute("alter publication dynrec_stream drop table shop.events")
    streamed.add_events([Event("bob", "2", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()


def test_a_log_with_a_gap_is_given_up_and_nothing_is_lost(
    open_folder: Path, postgres_package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.service.AGAIN_SECONDS", 0.05)
    settings = {"fsync": "off", "wal_level": "logical"}
    with EmbeddedPostgres(open_folder / "gap", package=postgres_package, settings=settings) as server:
        migrate.upgrade(server.url)
        with database.connect(server.url) as connection:
            shop = create_shop(connection, products=3)
            shop.execute("alter table shop.events replica identity full")
            alter(shop, "stream")
            shop.drain()
            catch_up(server.url)
            shop.add_events([Event("ann", "1", NOON, "view")])
            segment = shop.value("select pg_walfile_name(pg_current_wal_insert_lsn())")
            shop.execute("select pg_switch_wal()")
            shop.execute("checkpoint")
            (open_folder / "gap" / "pgdata" / "pg_wal" / segment).unlink()
            shop.add_events([Event("bob", "2", NOON, "view")])
            service = Stream(server.url)
            thread = threading.Thread(target=service.run)
            thread.start()
            try:
                _wait_for(shop, "select exists (select from dynrec_data.task where action = 'scan_users')")
            finally:
                service.stop()
                thread.join()
            catch_up(server.url)
            shop.drain()
            shop.assert_right()


def test_a_slot_has_a_reader_also_between_its_looks(streamed: Shop, database_url: str) -> None:
    active = "select labels ->> 'active' from dynrec.metrics where name = 'dynrec_replication_slot_lag_bytes'"
    _wait_for(streamed, f"select ({active}) = 'false'")  # who made it may still be leaving
    with closing(database.connect(database_url)) as connection:
        assert stream.become_reader(connection)
        assert streamed.execute(active) == [("true",)]
    _wait_for(streamed, f"select ({active}) = 'false'")


def test_what_comes_while_an_owner_is_not_trusted_is_found_later(streamed: Shop, database_url: str) -> None:
    streamed.execute("create role stranger; grant usage, create on schema shop to stranger")
    try:
        streamed.execute("alter table shop.products owner to stranger")
        streamed.execute("update shop.products set title = 'other' where id = 1")
        streamed.add_events([Event("ann", "2", NOON, "view")])
        catch_up(database_url)
        assert streamed.value("select paused from dynrec.status")
        streamed.execute("select dynrec.trust_owner('stranger'); select dynrec.resume('shop')")
        streamed.drain()
        streamed.assert_right()
        assert streamed.execute("select item_id, event_count from dynrec_data.item_popularity") == [("2", 1)]
    finally:
        streamed.execute("reassign owned by stranger to postgres; drop owned by stranger; drop role stranger")


def test_switching_back_takes_what_the_stream_has_not_told(streamed: Shop, database_url: str) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view")])
    alter(streamed, "incremental")
    assert streamed.queued() == set(), "nothing is scanned"
    streamed.add_events([Event("ann", "2", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()
    counted = streamed.execute("select item_id, event_count from dynrec_data.item_popularity order by item_id")
    assert counted == [("1", 1), ("2", 1)]
    assert streamed.execute("select * from pg_replication_slots where database = current_database()") == []
    assert streamed.execute("select * from pg_publication") == []


def test_the_slot_goes_also_where_nobody_writes_any_more(streamed: Shop, database_url: str) -> None:
    alter(streamed, "incremental")
    catch_up(database_url)
    assert streamed.execute("select * from pg_replication_slots where database = current_database()") == []
    streamed.add_events([Event("ann", "1", NOON, "view")])
    streamed.drain()
    streamed.assert_right()


def test_what_triggers_saw_between_two_streams_counts_once(streamed: Shop, database_url: str) -> None:
    streamed.add_events([Event("ann", "1", NOON, "view")])
    alter(streamed, "incremental")
    streamed.add_events([Event("ann", "2", NOON, "view")])
    alter(streamed, "stream")
    streamed.add_events([Event("ann", "3", NOON, "view")])  # triggers are there until the stream begins
    catch_up(database_url)
    streamed.add_events([Event("ann", "4", NOON, "view")])
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()
    counted = streamed.execute("select item_id, event_count from dynrec_data.item_popularity order by item_id")
    assert counted == [("1", 1), ("2", 1), ("3", 1), ("4", 1)]


def test_two_recommenders_over_one_table(streamed: Shop, database_url: str) -> None:
    streamed.execute(
        """
        select dynrec.create_recommender('other', 'shop.products', text_columns => '{title}', interactions => 'shop.events',
          encoder => 'hashing', options => '{"capture": "stream"}')
        """
    )
    streamed.drain()
    catch_up(database_url)
    streamed.add_events([Event("ann", "1", NOON, "view")])
    catch_up(database_url)
    assert streamed.value("select count(*) from dynrec_data.change where kind = 'user' and entity = 'ann'") == 2
    streamed.execute("select dynrec.drop_recommender('other')")
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()


def test_rows_whose_deletion_is_not_told_are_refused(streamed: Shop) -> None:
    alter(streamed, "incremental")
    streamed.execute("alter table shop.events replica identity default")
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match=r"which rows are deleted from: 'shop\.events'"
    ) as raised:
        alter(streamed, "stream")
    assert raised.value.diag.message_hint == "alter table shop.events replica identity full"


def test_a_server_that_does_not_log_enough_is_refused(open_folder: Path, postgres_package: str) -> None:
    with (
        EmbeddedPostgres(open_folder / "replica", package=postgres_package, settings={"fsync": "off"}) as server,
    ):
        migrate.upgrade(server.url)
        with database.connect(server.url) as connection:
            shop = create_shop(connection, products=1)
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs wal_level = logical") as raised:
                alter(shop, "stream")
            assert "alter system set wal_level" in str(raised.value.diag.message_hint)


def test_a_killed_process_loses_nothing(streamed: Shop, database_url: str) -> None:
    environment = {**os.environ, "DYNREC_DATABASE_URL": database_url}
    for round_number in range(3):
        process = subprocess.Popen([sys.executable, "-m", "dynrec_store", "stream"], env=environment)
        try:
            _wait_for(streamed, "select exists (select from dynrec_data.heartbeat where role = 'stream')")
            for number in range(50):
                streamed.add_events([Event(f"u{number % 7}", str(1 + number % 12), NOON, "view")])
            if round_number == 2:
                _wait_for(streamed, "select count(distinct entity) = 7 from dynrec_data.change where kind = 'user'")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        streamed.execute("delete from dynrec_data.heartbeat")
    catch_up(database_url)
    streamed.drain()
    streamed.assert_right()
    assert streamed.value("select sum(event_count) from dynrec_data.item_popularity") == 150


def _wait_for(shop: Shop, statement: Any) -> None:
    until = time.monotonic() + 60
    while not shop.value(statement):
        assert time.monotonic() < until
        time.sleep(0.05)
