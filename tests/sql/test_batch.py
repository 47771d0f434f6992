"""Batches: nothing is captured, and each batch recomputes what differs from the source, and only that."""

from datetime import timedelta

import psycopg
import pytest

from dynrec_store import database
from tests.conftest import Prepare
from tests.drain import CountingEncoder, Session, claim
from tests.sql.shop import NOON, Event, Shop, create_shop

BATCHES = {"capture": "batch", "batch_every": "1 hour"}


def keep_up_in_batches(connection: Session) -> None:
    """Twelve products and three users, kept up in batches; one batch has been."""
    shop = create_shop(connection, products=12, options=BATCHES)
    shop.add_events(
        Event(user, str(n), NOON + timedelta(hours=n), "view") for n, user in enumerate(["ann", "bob", "cyd"] * 3, 1)
    )
    shop.drain()
    batch(shop)


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(keep_up_in_batches).name if "batched" in request.fixturenames else beginning


@pytest.fixture
def batched(connection: Session) -> Shop:
    return Shop(connection)


def queue_batch(shop: Shop) -> None:
    """Make a batch due and queue it."""
    shop.execute("update dynrec_data.recommender set batched_at = now() - interval '1 hour'")
    assert shop.value("select dynrec._queue_batches()") == 1


def batch(shop: Shop, encoder: CountingEncoder | None = None) -> None:
    """A batch, and what it leads to."""
    queue_batch(shop)
    shop.drain(encoder)


def differing(shop: Shop) -> set[tuple[str, str]]:
    """What a batch queues."""
    queue_batch(shop)
    while shop.value("select exists (select from dynrec_data.task)"):
        shop.execute("select dynrec._run_task()")
    return shop.queued()


def test_nothing_is_captured(batched: Shop) -> None:
    batched.add_products([13])
    batched.execute("insert into shop.events (user_id, item_id, kind) values ('ann', 13, 'view')")
    assert batched.queued() == set()
    assert batched.execute("select * from pg_trigger where tgname like 'dynrec%'") == []


def test_an_unchanged_source_gives_no_work(batched: Shop) -> None:
    assert differing(batched) == set()


def test_everything_that_differs_is_found(batched: Shop) -> None:
    batched.add_products([13])
    batched.execute("update shop.products set title = 'other' where id = 2")
    batched.execute("delete from shop.products where id = 3")
    batched.add_events([Event("dan", "13", NOON, "purchase")])
    encoder = CountingEncoder()
    batch(batched, encoder)
    assert len(encoder.texts) == 2, "what is as it was is not encoded"
    batched.assert_right()


@pytest.mark.parametrize(
    "statement",
    [
        b"update shop.events set kind = 'purchase' where user_id = 'bob' and item_id = 2",
        b"update shop.events set value = 2 where user_id = 'bob' and item_id = 2",
        b"update shop.events set item_id = 9 where user_id = 'bob' and item_id = 2",
        b"update shop.events set occurred_at = occurred_at - interval '1 second' where user_id = 'bob' and item_id = 2",
        b"delete from shop.events where user_id = 'bob' and item_id = 2",
        b"insert into shop.events (user_id, item_id, kind, occurred_at) values ('bob', 9, 'view', '2020-01-01')",
        b"delete from shop.events where user_id = 'bob'",
    ],
)
def test_only_the_user_who_differs_is_queued(batched: Shop, statement: bytes) -> None:
    batched.connection.execute(statement)
    assert differing(batched) == {("user", "bob")}
    batched.drain()
    batched.assert_right()


def test_what_a_worker_read_between_batches_is_compared(batched: Shop) -> None:
    batched.add_events([Event("dan", "9", NOON, "purchase")])
    batched.execute("select dynrec.refresh('shop', user_ids => '{dan}')")
    batched.drain()
    batched.execute("delete from shop.events where user_id = 'dan'")
    batch(batched)
    assert batched.user_vectors(["dan"])["dan"] is None
    assert differing(batched) == set()


def test_what_a_worker_is_reading_is_queued_again(batched: Shop, database_url: str) -> None:
    batched.add_events([Event("dan", "9", NOON, "purchase")])
    batched.execute("select dynrec.refresh('shop', user_ids => '{dan}')")
    token = claim(batched.connection, "shop", "user")
    with database.connect(database_url) as worker:
        worker.execute("begin")
        worker.execute("select dynrec._publish_users(%s)", [token])
        batched.execute("delete from shop.events where user_id = 'dan'")
        batched.execute("select dynrec._batch_users(id) from dynrec_data.recommender")
        worker.execute("commit")
    assert batched.queued() == {("user", "dan")}
    batched.drain()
    assert batched.user_vectors(["dan"])["dan"] is None


def test_who_waits_is_not_queued_again(batched: Shop) -> None:
    batched.add_events([Event("dan", "9", NOON, "purchase")])
    differing(batched)
    differing(batched)
    assert batched.value("select count(*) from dynrec_data.change where kind = 'user'") == 1


def test_the_backfill_stands_for_the_first_batch(connection: Session) -> None:
    shop = create_shop(connection, products=12, options=BATCHES)
    shop.add_events([Event("ann", "1", NOON, "view")])
    shop.drain()
    assert differing(shop) == set()


def test_a_vector_of_nobody_knows_what_goes(batched: Shop) -> None:
    """One that was made of captured interactions has no fingerprint."""
    alter(batched, "incremental")
    batched.add_events([Event("dan", "9", NOON, "purchase")])
    batched.drain()
    alter(batched, "batch")
    batched.execute("delete from shop.events where user_id = 'dan'")
    batched.drain()
    assert batched.user_vectors(["dan"])["dan"] is None
    assert differing(batched) == set()


def test_popularity_is_that_of_the_source(batched: Shop) -> None:
    before = batched.value("select event_count from dynrec_data.item_popularity where item_id = '1'")
    batched.execute("insert into shop.events (user_id, item_id, kind) values ('dan', 1, 'view'), ('eve', 1, 'view')")
    batch(batched)
    assert batched.value("select event_count from dynrec_data.item_popularity where item_id = '1'") == before + 2


def test_a_batch_is_due_after_batch_every_and_not_before(batched: Shop) -> None:
    assert batched.value("select dynrec._queue_batches()") == 0
    batched.execute("update dynrec_data.recommender set batched_at = now() - interval '59 minutes'")
    assert batched.value("select dynrec._queue_batches()") == 0
    queue_batch(batched)
    batched.execute("update dynrec_data.recommender set batched_at = now() - interval '1 hour'")
    assert batched.value("select dynrec._queue_batches()") == 0, "the one before has not run"


def test_the_past_does_not_know_what_was_bought_later(batched: Shop) -> None:
    moment = batched.value("select clock_timestamp()")
    batched.execute("insert into shop.events (user_id, item_id, kind) values ('ann', 11, 'purchase')")
    batch(batched)
    now = {item for item, _, _ in batched.recommend("ann", k=12)}
    then = {item for item, _, _ in batched.recommend("ann", k=12, as_of=moment)}
    assert "11" not in now
    assert "11" in then


def test_the_doctor_misses_no_trigger(batched: Shop) -> None:
    assert [
        finding for finding in batched.execute("select finding from dynrec.doctor()") if "trigger" in finding[0]
    ] == []
    batched.execute("update dynrec_data.recommender set batched_at = now() - interval '3 hours'")
    assert any("no batch since" in finding for (finding,) in batched.execute("select finding from dynrec.doctor()"))


def test_a_forgotten_user_leaves_no_fingerprint(batched: Shop) -> None:
    receipt = batched.value("select dynrec.forget_user('shop', 'bob')")
    assert receipt["removed"]["fingerprints"] == 1
    batch(batched)
    assert batched.value("select array_agg(user_id order by user_id) from dynrec_data.user_fingerprint") == [
        "ann",
        "cyd",
    ]


@pytest.mark.parametrize("way", ["incremental", "batch"])
def test_switching_sees_what_came_before(shop: Shop, way: str) -> None:
    other = {"incremental": "batch", "batch": "incremental"}[way]
    alter(shop, other)
    shop.drain()
    shop.add_products([13])
    shop.add_events([Event("ann", "13", NOON, "view")])
    alter(shop, way)
    shop.add_products([14])
    shop.add_events([Event("ann", "14", NOON, "view")])
    shop.drain()
    if way == "batch":
        batch(shop)
    shop.assert_right()


def alter(shop: Shop, way: str) -> None:
    """Let the recommender keep up in another way."""
    shop.execute("select dynrec.alter_recommender('shop', options => jsonb_build_object('capture', %s::text))", [way])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('{"capture": "polling"}', "options.capture: no way to keep up: 'polling'"),
        ('{"capture": null}', "options.capture: no way to keep up"),
        ('{"batch_every": "3600"}', "options.batch_every: not an interval in range"),
        ('{"batch_every": "1 second"}', "options.batch_every: not an interval in range"),
        ('{"stream_max_lag_bytes": "10 GB"}', "options.stream_max_lag_bytes: not a whole number in range"),
    ],
)
def test_what_is_wrong_is_said(shop: Shop, options: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message) as raised:
        shop.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [options])
    assert raised.value.diag.message_hint
