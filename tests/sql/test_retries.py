"""Failures: backing off, dead letters, and what does not count against a row."""

import pytest

from tests.drain import CountingEncoder, claim, drain, fail, publish, publish_users, read, run_tasks
from tests.sql.shop import NOON, Event, Shop
from tests.sql.test_queue import ENCODER, taken


def failures(shop: Shop) -> list[tuple[str, str, str, int]]:
    """Kind, entity, state and attempts."""
    return [
        tuple(row) for row in shop.execute("select kind, entity, state, attempts from dynrec.failures order by 1, 2")
    ]


def make_due(shop: Shop) -> None:
    """The back-off is over."""
    shop.execute("update dynrec_data.retry set not_before = now() where not_before < 'infinity'")
    shop.execute("select dynrec._release_retries()")


def fail_until_dead(shop: Shop, kind: str, entity: str, attempts: int = 5) -> None:
    """Let every attempt of an entity fail."""
    for _ in range(attempts):
        make_due(shop)
        token = taken(shop.connection, kind)
        assert entity in shop.value("select dynrec._leased_entities(%s)", [token])
        fail(shop.connection, token, [entity], "poison", charge=True)


def test_a_charged_failure_backs_off(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' || id where id < 4")
    token = taken(shop.connection)
    rows = read(shop.connection, token)
    fail(shop.connection, token, ["1"], "poison", charge=True)
    assert publish(shop.connection, token, rows, ENCODER) == {"1": "superseded", "2": "published", "3": "published"}
    assert failures(shop) == [("item", "1", "retrying", 1)]
    assert claim(shop.connection, "shop", "item") is None
    assert shop.value("select dynrec._next_due() between now() and now() + interval '10 s'")
    assert shop.value("select dynrec._release_retries()") == 0
    make_due(shop)
    shop.drain()
    assert failures(shop) == []
    shop.assert_right()


def test_waiting_grows_with_the_attempts(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"max_attempts\": 100}')")
    shop.execute("update shop.products set title = 'x' where id = 1")
    longest = []
    for _ in range(12):
        make_due(shop)
        fail(shop.connection, taken(shop.connection), ["1"], "poison", charge=True)
        longest.append(shop.value("select extract(epoch from not_before - clock_timestamp()) from dynrec_data.retry"))
    assert longest[0] < 2
    assert longest[3] > 2
    assert 100 < longest[-1] < 460


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_dead_letter(shop: Shop, kind: str) -> None:
    shop.add_events([Event("u", "1", NOON, "view")])
    shop.drain()
    if kind == "item":
        shop.execute("update shop.products set title = 'x' where id = 1")
    shop.add_events([Event("u", "2", NOON, "purchase")])
    entity = "1" if kind == "item" else "u"
    fail_until_dead(shop, kind, entity)
    assert failures(shop) == [(kind, entity, "dead letter", 5)]
    assert shop.execute("select dead_letters from dynrec.status") == [(1,)]
    shop.drain()
    assert claim(shop.connection, "shop", kind) is None
    assert shop.value("select dynrec.wait_until_fresh('shop', '0')") is True
    assert "poison" in str(shop.execute("select finding from dynrec.doctor()"))
    if kind == "user":
        shop.assert_users_folded()
    assert shop.value("select dynrec.retry_failed('shop')") == 1
    assert failures(shop) == []
    shop.drain()
    shop.assert_right()


def test_attempts_allowed(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"max_attempts\": 2}')")
    shop.execute("update shop.products set title = 'x' where id = 1")
    fail_until_dead(shop, "item", "1", attempts=2)
    assert failures(shop) == [("item", "1", "dead letter", 2)]


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_new_change_revives_a_dead_letter(shop: Shop, kind: str) -> None:
    shop.add_events([Event("u", "1", NOON, "view"), Event("u", "3", NOON, "view")])
    shop.drain()
    if kind == "item":
        shop.execute("update shop.products set title = 'x' where id = 1")
    shop.add_events([Event("u", "2", NOON, "purchase")])
    shop.execute("delete from shop.events where item_id = 3")
    fail_until_dead(shop, kind, "1" if kind == "item" else "u")
    if kind == "item":
        shop.execute("update shop.products set title = 'y' where id = 1")
    shop.add_events([Event("u", "4", NOON, "purchase")])
    if kind == "user":
        shop.assert_users_folded()
    shop.drain()
    assert failures(shop) == []
    shop.assert_right()
    assert_popularity_right(shop)


def test_a_refresh_revives_dead_letters(shop: Shop) -> None:
    shop.add_events([Event("u", "2", NOON, "purchase")])
    shop.execute("update shop.products set title = 'x' where id = 1")
    fail_until_dead(shop, "item", "1")
    fail_until_dead(shop, "user", "u")
    shop.execute("select dynrec.refresh('shop')")
    shop.drain()
    assert failures(shop) == []
    shop.assert_right()
    assert_popularity_right(shop)


def assert_popularity_right(shop: Shop) -> None:
    """The counters are what a rebuild makes of the source."""
    counted = shop.execute(
        "select item_id, event_count from dynrec_data.item_popularity where event_count <> 0 order by 1"
    )
    assert counted == shop.execute("select item_id::text, count(*) from shop.events group by 1 order by 1")


def test_faults_of_the_device_are_charged_to_nobody(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' || id")
    for _ in range(10):
        token = taken(shop.connection)
        fail(shop.connection, token, [str(n) for n in range(1, 13)], "out of memory", charge=False)
        assert {(state, attempts) for _, _, state, attempts in failures(shop)} == {("retrying", 0)}
        make_due(shop)
    shop.drain()
    assert failures(shop) == []
    shop.assert_right()


def test_after_two_charges_an_entity_is_tried_alone(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' || id where id < 6")
    for _ in range(2):
        make_due(shop)
        fail(shop.connection, taken(shop.connection), ["1", "2", "3", "4", "5"], "poison", charge=True)
    make_due(shop)
    tokens = [taken(shop.connection) for _ in range(5)]
    assert [len(read(shop.connection, token)) for token in tokens] == [1] * 5
    assert claim(shop.connection, "shop", "item") is None
    for token in tokens:
        publish(shop.connection, token, read(shop.connection, token), ENCODER)
    shop.drain()
    assert failures(shop) == []
    shop.assert_right()


def test_leases_that_expire_again_and_again(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' || id where id < 4")
    taken(shop.connection, lease="-1 s")
    assert shop.value("select dynrec._expire_leases()") == 3
    assert len(read(shop.connection, taken(shop.connection, lease="-1 s"))) == 3, "the first time nobody is suspected"
    shop.value("select dynrec._expire_leases()")
    for _ in range(3):
        token = taken(shop.connection, lease="-1 s")
        assert len(read(shop.connection, token)) == 1, "the second time each is tried alone"
        shop.value("select dynrec._expire_leases()")
    assert claim(shop.connection, "shop", "item") is None, "alone, they are tried again after a pause"
    for expiries in (2, 3, 4):
        assert {attempts for *_, attempts in failures(shop)} == {expiries}
        make_due(shop)
        while claim(shop.connection, "shop", "item", lease="-1 s") is not None:
            shop.value("select dynrec._expire_leases()")
    assert failures(shop) == [("item", str(n), "dead letter", 5) for n in (1, 2, 3)]
    assert shop.value("select dynrec.retry_failed()") == 3
    shop.drain()
    shop.assert_right()


def test_only_what_was_leased_alone_is_given_up(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"max_attempts\": 1}')")
    shop.execute("update shop.products set title = 'x' || id where id < 4")
    for _ in range(2):
        assert len(read(shop.connection, taken(shop.connection, lease="-1 s"))) == 3
        shop.value("select dynrec._expire_leases()")
    assert {state for _, _, state, _ in failures(shop)} == {"retrying"}
    (poison,) = (row.item_id for row in read(shop.connection, taken(shop.connection, lease="-1 s")))
    shop.value("select dynrec._expire_leases()")
    assert [entity for _, entity, state, _ in failures(shop) if state == "dead letter"] == [poison]
    shop.drain()
    assert [entity for _, entity, *_ in failures(shop)] == [poison]


def test_a_healthy_entity_is_not_blamed_for_old_failures(shop: Shop) -> None:
    for _ in range(10):
        shop.execute("update shop.products set title = title || 'x' where id = 1")
        fail(shop.connection, taken(shop.connection), ["1"], "once", charge=True)
        make_due(shop)
        shop.drain()
    assert failures(shop) == []


def test_a_change_while_backing_off_is_tried_at_once(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'bad' where id = 1")
    fail(shop.connection, taken(shop.connection), ["1"], "poison", charge=True)
    shop.execute("update shop.products set title = 'good' where id = 1")
    encoder = CountingEncoder()
    drain(shop.connection, encoder)
    assert encoder.texts == ["good. c1"]
    assert failures(shop) == []
    make_due(shop)
    assert shop.queued() == set()


def test_retry_failed_takes_those_that_back_off_as_well(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' || id where id < 3")
    fail(shop.connection, taken(shop.connection), ["1", "2"], "poison", charge=True)
    assert shop.value("select dynrec.retry_failed('shop')") == 2
    shop.drain()
    shop.assert_right()
    assert shop.value("select dynrec.retry_failed('shop')") == 0


def test_one_failing_user_does_not_hold_the_others(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON), Event("v", "1", NOON)])
    token = taken(shop.connection, "user")
    fail(shop.connection, token, ["u"], "poison", charge=True)
    assert publish_users(shop.connection, token) == 1
    shop.assert_users_folded()
    run_tasks(shop.connection)
    make_due(shop)
    shop.drain()
    shop.assert_right()
