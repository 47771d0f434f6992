"""The queue: what is encoded, what a lease means, what a change in between does."""

import psycopg
import pytest

from dynrec_store import database
from tests.drain import (
    CountingEncoder,
    Session,
    claim,
    drain,
    fail,
    publish,
    publish_users,
    publish_vectors,
    read,
    run_tasks,
)
from tests.sql.shop import NOON, Event, Shop
from workers.encoders.hashing import HashingEncoder

ENCODER = HashingEncoder()


def taken(connection: Session, kind: str = "item", batch_size: int = 256, lease: str = "1 hour") -> str:
    """A token; there has to be something to claim."""
    token = claim(connection, "shop", kind, batch_size, lease)
    assert token is not None
    return token


def test_an_unchanged_text_is_not_encoded_again(shop: Shop) -> None:
    encoder = CountingEncoder()
    shop.execute("select dynrec.refresh('shop')")
    shop.execute("update shop.products set price = price + 1, title = title || ' '")
    shop.drain(encoder)
    assert encoder.texts == []
    shop.assert_right()
    assert shop.execute("select count(*) from dynrec.item_history('shop', '1')") == [(1,)]


def test_equal_texts_are_encoded_once(shop: Shop) -> None:
    encoder = CountingEncoder()
    shop.execute("insert into shop.products (id, title) select i, 'the same' from generate_series(100, 400) i")
    drain(shop.connection, encoder, batch_size=50)
    assert encoder.texts == ["the same"]
    shop.execute("insert into shop.products (id, title) values (500, 'the same')")
    shop.execute(
        "update shop.products set title = (select title from shop.products where id = 5), category = 'c5' where id in (6, 7)"
    )
    shop.drain(encoder)
    assert encoder.texts == ["the same"]
    shop.assert_right()


def test_a_text_that_came_back_is_encoded_again_only_if_nobody_has_it(shop: Shop) -> None:
    encoder = CountingEncoder()
    shop.execute("update shop.products set title = 'b' where id = 1")
    shop.drain(encoder)
    shop.execute("update shop.products set title = 'a' where id = 1")
    shop.execute("update shop.products set title = 'b' where id = 1")
    shop.drain(encoder)
    assert encoder.texts == ["b. c1"]
    shop.assert_right()


def test_many_changes_of_one_row_are_one(shop: Shop) -> None:
    encoder = CountingEncoder()
    for number in range(20):
        shop.execute("update shop.products set title = %s where id = 1", [f"title {number}"])
    shop.drain(encoder)
    assert encoder.texts == ["title 19. c1"]


def test_one_worker_per_entity(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' || id where id < 4")
    first = taken(shop.connection, batch_size=2)
    shop.execute("update shop.products set title = 'y' || id where id < 4")
    second = taken(shop.connection)
    assert claim(shop.connection, "shop", "item") is None
    leased = [{row.item_id for row in read(shop.connection, token)} for token in (first, second)]
    assert leased[0] | leased[1] == {"1", "2", "3"}
    assert not leased[0] & leased[1]
    for token in (second, first):
        publish(shop.connection, token, read(shop.connection, token), ENCODER)
    shop.drain()
    shop.assert_right()


def test_two_claimers_at_once_do_not_wait_for_each_other(shop: Shop, database_url: str) -> None:
    shop.execute("update shop.products set title = 'x' || id")
    with database.connect(database_url, autocommit=False) as other:
        other.execute("set lock_timeout = '2s'")
        shop.execute("set lock_timeout = '2s'")
        theirs = other.execute("select dynrec._claim('shop', 'item', 5, '1 hour')").fetchone()
        ours = taken(shop.connection, batch_size=100)
        other.commit()
        assert theirs is not None
        sizes = [len(read(shop.connection, token)) for token in (str(theirs[0]), ours)]
    assert sizes == [5, 7]


def test_a_change_between_read_and_publish_is_not_lost(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id = 1")
    token = taken(shop.connection)
    rows = read(shop.connection, token)
    shop.execute("update shop.products set title = 'second' where id = 1")
    assert publish(shop.connection, token, rows, ENCODER) == {"1": "published"}
    assert shop.queued() >= {("item", "1")}
    shop.drain()
    shop.assert_right()


def test_a_delete_between_read_and_publish(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id = 1")
    token = taken(shop.connection)
    rows = read(shop.connection, token)
    shop.execute("delete from shop.products where id = 1")
    publish(shop.connection, token, rows, ENCODER)
    assert "1" not in {item for item, _, _ in shop.call("similar_items", item="2", k=12)}
    shop.drain()
    shop.assert_right()
    assert shop.counts() == (11, 0)


def test_a_delete_before_the_read(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id = 1")
    token = taken(shop.connection)
    shop.execute("delete from shop.products where id = 1")
    rows = read(shop.connection, token)
    assert [(row.item_id, row.content) for row in rows] == [("1", None)]
    assert publish(shop.connection, token, rows, ENCODER) == {"1": "removed"}
    shop.drain()
    shop.assert_right()


def test_an_interaction_between_claim_and_publish_counts_once(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON, "view")])
    token = taken(shop.connection, "user")
    shop.add_events([Event("u", "2", NOON, "view")])
    shop.assert_users_folded()
    assert publish_users(shop.connection, token) == 1
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()


def test_an_interaction_that_commits_after_a_later_one_was_published(shop: Shop, database_url: str) -> None:
    with database.connect(database_url, autocommit=False) as slow:
        slow.execute("insert into shop.events (user_id, item_id, kind) values ('u', 1, 'view')")
        shop.add_events([Event("u", "2", NOON, "view")])
        shop.drain()
        shop.assert_right()
        slow.commit()
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()


def test_a_token_that_is_no_longer_theirs(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id in (1, 2)")
    stale = taken(shop.connection, lease="-1 second")
    rows = read(shop.connection, stale)
    assert shop.value("select dynrec._expire_leases()") == 2
    shop.execute("update shop.products set title = 'second' where id in (1, 2)")
    fresh = taken(shop.connection, batch_size=1)
    (fresh_row,) = read(shop.connection, fresh)
    assert set(publish(shop.connection, stale, rows, ENCODER).values()) == {"superseded"}
    assert publish(shop.connection, fresh, [fresh_row], ENCODER) == {fresh_row.item_id: "published"}
    fail(shop.connection, stale, ["1", "2"], "too late", charge=True)
    assert shop.execute("select count(*) from dynrec.failures where error = 'too late'") == [(0,)]
    shop.drain()
    shop.assert_right()


def test_a_lease_past_its_deadline_still_publishes_until_it_is_taken_away(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id = 1")
    token = taken(shop.connection, lease="-1 second")
    assert publish(shop.connection, token, read(shop.connection, token), ENCODER) == {"1": "published"}
    assert shop.value("select dynrec._expire_leases()") == 0
    shop.drain()
    shop.assert_right()


def test_an_expired_lease_of_users(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON, "view")])
    stale = taken(shop.connection, "user", lease="-1 second")
    assert shop.value("select dynrec._expire_leases()") == 1
    assert publish_users(shop.connection, stale) == 0
    assert shop.counts() == (12, 0)
    shop.drain()
    assert publish_users(shop.connection, stale) == 0
    shop.assert_right()


def test_unknown_tokens(shop: Shop) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    assert read(shop.connection, nobody) == []
    assert publish_users(shop.connection, nobody) == 0
    assert shop.value("select published from dynrec._publish_adopted(%s)", [nobody]) == 0
    assert shop.value("select dynrec._leased_entities(%s)", [nobody]) == []
    fail(shop.connection, nobody, ["1"], "error", charge=True)
    assert shop.execute("select * from dynrec.failures") == []


def test_live_changes_overtake_a_backfill(shop: Shop) -> None:
    shop.execute("select dynrec.refresh('shop')")
    run_tasks(shop.connection)
    assert shop.execute("select lane, entities from dynrec.queue where kind = 'item'") == [("backfill", 12)]
    shop.execute("update shop.products set title = 'urgent' where id = 12")
    token = taken(shop.connection, batch_size=1)
    assert [row.item_id for row in read(shop.connection, token)] == ["12"]
    publish(shop.connection, token, read(shop.connection, token), ENCODER)
    assert ("item", "12") not in shop.queued()
    shop.drain()
    shop.assert_right()


def test_users_are_scanned_after_the_items(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON)])
    shop.drain()
    shop.execute("select dynrec.refresh('shop')")
    run_tasks(shop.connection)
    assert ("task", "scan_users") in shop.queued()
    token = taken(shop.connection)
    run_tasks(shop.connection)
    assert ("task", "scan_users") in shop.queued()
    publish(shop.connection, token, read(shop.connection, token), ENCODER)
    run_tasks(shop.connection)
    assert shop.queued() == {("user", "u")}
    shop.drain()
    shop.assert_right()


def test_users_follow_the_items_they_met(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON), Event("v", "2", NOON), Event("w", "99", NOON)])
    shop.drain()
    shop.execute("update shop.products set title = 'another' where id = 1")
    shop.execute("insert into shop.products (id, title) values (99, 'came after its interaction')")
    shop.execute("delete from shop.products where id = 2")
    shop.drain()
    shop.assert_right()


def test_a_paused_recommender(shop: Shop) -> None:
    shop.execute("select dynrec.pause('shop')")
    shop.execute("update shop.products set title = 'later' where id = 1")
    shop.add_events([Event("u", "3", NOON)])
    shop.execute("truncate shop.events")
    assert shop.execute("select * from dynrec._pending_work()") == []
    assert claim(shop.connection, "shop", "item") is None
    assert run_tasks(shop.connection) == []
    assert len(shop.recommend("u")) == 10
    assert shop.execute("select paused from dynrec.status") == [(True,)]
    shop.execute("select dynrec.resume('shop')")
    shop.drain()
    shop.assert_right()


def test_a_vector_of_another_length_is_refused(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id = 1")
    token = taken(shop.connection)
    rows = read(shop.connection, token)
    with pytest.raises(psycopg.errors.CheckViolation):
        publish_vectors(shop.connection, token, rows, [rows[0].content or ""], [ENCODER.encode(["x"])[0][:9]])
    assert publish(shop.connection, token, rows, ENCODER) == {"1": "published"}


def test_a_vector_that_was_not_sent_is_asked_for_again(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'first' where id = 1")
    token = taken(shop.connection)
    assert publish_vectors(shop.connection, token, read(shop.connection, token), [], []) == {"1": "requeued"}
    shop.drain()
    shop.assert_right()


def test_a_twin_that_vanishes_between_read_and_publish(shop: Shop) -> None:
    shop.execute(
        "insert into shop.products (id, title, category) select 100, title, category from shop.products where id = 1"
    )
    token = taken(shop.connection)
    rows = read(shop.connection, token)
    assert [row.needs_vector for row in rows] == [False]
    shop.execute("delete from shop.products where id = 1")
    other = taken(shop.connection)
    publish(shop.connection, other, read(shop.connection, other), ENCODER)
    assert publish(shop.connection, token, rows, ENCODER) == {"100": "requeued"}
    shop.drain()
    shop.assert_right()


def test_components_too_small_to_be_multiplied(shop: Shop) -> None:
    shop.execute("insert into shop.products (id, title) values (100, 'tiny')")
    token = taken(shop.connection)
    vector = ENCODER.encode(["tiny"])[0]
    vector[:20] = 1e-42
    publish_vectors(shop.connection, token, read(shop.connection, token), ["tiny"], [vector])
    shop.add_events([Event("u", "100", NOON, "view"), Event("u", "1", NOON.replace(day=20), "view")])
    assert len(shop.recommend("u", k=5)) == 5
    shop.drain()
    assert len(shop.recommend("u", k=5)) == 5


def test_waiting_until_fresh(shop: Shop) -> None:
    assert shop.value("select dynrec.wait_until_fresh('shop', '0')") is True
    shop.execute("update shop.products set title = 'first' where id = 1")
    assert shop.value("select dynrec.wait_until_fresh('shop', '50 ms')") is False
    shop.drain()
    assert shop.value("select dynrec.wait_until_fresh('shop', '0')") is True
    for timeout in ("-1 s", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="timeout"):
            shop.execute("select dynrec.wait_until_fresh('shop', %s)", [timeout])
    for statement, complaint in (
        ("update shop.products set title = 'second' where id = 1", "uncommitted"),
        ("set transaction isolation level repeatable read", "repeatable read"),
    ):
        shop.execute("begin")
        shop.execute(statement)
        with pytest.raises(psycopg.Error, match=complaint):
            shop.execute("select dynrec.wait_until_fresh('shop', '1 s')")
        shop.execute("rollback")


def test_a_sleeping_dispatcher_is_woken(shop: Shop, database_url: str) -> None:
    with database.connect(database_url) as dispatcher:
        dispatcher.execute("listen dynrec_wake")
        shop.execute("update shop.products set title = 'while awake' where id = 1")
        assert list(dispatcher.notifies(timeout=0.1)) == []
        dispatcher.execute("select pg_advisory_lock(dynrec._wake_key())")
        for statement in (
            "update shop.products set title = 'while asleep' where id = 1",
            "insert into shop.events (user_id, item_id) values ('u', 1)",
            "truncate shop.events",
        ):
            shop.connection.execute(statement.encode())
            assert len(list(dispatcher.notifies(timeout=5, stop_after=1))) == 1
        shop.execute("update shop.products set stock = 3")
        assert list(dispatcher.notifies(timeout=0.1)) == []
