"""The outbox: which vectors others are to be told of, and what becomes of that."""

import json
from typing import Any

import psycopg
import pytest

from dynrec_store import database, outbox
from dynrec_store.outbox import Lane
from tests.conftest import Prepare
from tests.drain import Session, claim
from tests.sql.shop import NOON, Event, Shop, create_shop
from tests.sql.test_rights import acting

ITEMS = Lane("shop", "item")
USERS = Lane("shop", "user")


def alter(shop: Shop, publish: str | None) -> None:
    shop.execute(
        "select dynrec.alter_recommender('shop', options => jsonb_build_object('publish', %s::text))", [publish]
    )


def waiting(shop: Shop) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What waits, by kind and entity: its place and its version."""
    rows = shop.execute("select kind, entity, id, version from dynrec_data.outbox")
    return {(kind, entity): (place, version) for kind, entity, place, version in rows}


def tell(connection: Session) -> None:
    """A shop of which others are told, with three products and a user."""
    shop = create_shop(connection, products=3, options={"publish": "vectors"})
    shop.add_events([Event("ann", "1", NOON, "view")])
    shop.drain()


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(tell).name if "told" in request.fixturenames else beginning


@pytest.fixture
def told(connection: Session) -> Shop:
    return Shop(connection)


def test_nothing_is_written_where_nobody_is_told(connection: Session) -> None:
    shop = create_shop(connection, products=3)
    shop.add_events([Event("ann", "1", NOON, "view")])
    shop.drain()
    assert waiting(shop) == {}
    assert shop.value("select count(*) from dynrec._outbox_lanes()") == 0
    assert shop.value("select count(*) from dynrec.metrics where name like 'dynrec_outbox%'") == 0
    assert shop.value("select count(*) from dynrec.doctor() where subject = 'publisher'") == 0


def test_a_vector_waits_once_however_often_it_changes(told: Shop) -> None:
    before = waiting(told)
    assert before.keys() == {("item", "1"), ("item", "2"), ("item", "3"), ("user", "ann")}
    for _ in range(3):
        told.execute("update shop.products set title = title || '!' where id = 2")
        told.drain()
    after = waiting(told)
    assert after.keys() == before.keys()
    assert after["item", "2"][0] == before["item", "2"][0], "it keeps its place"
    assert after["item", "2"][1] != before["item", "2"][1]
    assert after["item", "3"] == before["item", "3"]


def test_what_changed_after_it_was_read_is_told_again(told: Shop) -> None:
    events = outbox.read(told.connection, ITEMS, 10)
    told.execute("update shop.products set title = 'another' where id = 2; delete from shop.products where id = 3")
    told.drain()
    outbox.settle(told.connection, ITEMS, [(event, None) for event in events])
    later = {event["entity"]: event for event in (json.loads(e.event) for e in outbox.read(told.connection, ITEMS, 10))}
    assert {entity: event["op"] for entity, event in later.items()} == {"2": "published", "3": "removed"}
    before = {event["entity"]: event for event in (json.loads(e.event) for e in events)}
    assert all(later[entity]["valid_from"] > before[entity]["valid_from"] for entity in later)


def test_a_row_that_a_publish_holds_is_not_waited_for(told: Shop, database_url: str) -> None:
    events = outbox.read(told.connection, ITEMS, 10)
    with database.connect(database_url) as worker:
        worker.execute("begin; select from dynrec_data.outbox where entity = '1' for update")
        outbox.settle(told.connection, ITEMS, [(event, None) for event in events])
        worker.execute("commit")
    assert waiting(told).keys() == {("item", "1"), ("user", "ann")}


def test_what_cannot_be_told_waits_for_another_vector(told: Shop) -> None:
    events = outbox.read(told.connection, ITEMS, 10)
    outbox.settle(told.connection, ITEMS, [(event, "too large") for event in events])
    assert outbox.lanes(told.connection) == [USERS]
    told.execute("update shop.products set title = 'another' where id = 2")
    told.drain()
    assert [json.loads(event.event)["entity"] for event in outbox.read(told.connection, ITEMS, 10)] == ["2"]
    found = told.execute("select finding, remedy from dynrec.doctor() where finding like '%%delivered%%'")
    assert found == [("2 events cannot be delivered, the last: too large", "select dynrec.retry_failed('shop')")]
    assert told.value("select dynrec.retry_failed('shop')") == 2
    assert len(outbox.read(told.connection, ITEMS, 10)) == 3


def test_switching_on_tells_of_everything_there_is(connection: Session) -> None:
    shop = create_shop(connection, products=3)
    shop.add_events([Event("ann", "1", NOON, "view")])
    shop.drain()
    alter(shop, "changes")
    shop.drain()
    assert waiting(shop).keys() == {("item", "1"), ("item", "2"), ("item", "3"), ("user", "ann")}
    assert all("vector" not in json.loads(event.event) for event in outbox.read(shop.connection, USERS, 10))
    outbox.settle(shop.connection, ITEMS, [(event, None) for event in outbox.read(shop.connection, ITEMS, 10)])
    shop.execute("""select dynrec.alter_recommender('shop', options => '{"retention": "30 days"}')""")
    shop.drain()
    assert waiting(shop).keys() == {("user", "ann")}, "another option tells of nothing"


def test_switching_on_waits_for_publishes_that_tell_nobody(connection: Session, database_url: str) -> None:
    shop = create_shop(connection, products=3)
    shop.drain()
    shop.add_events([Event("ann", "1", NOON, "view")])
    token = claim(connection, "shop", "user")
    alter(shop, "changes")
    with database.connect(database_url) as worker:
        worker.execute("begin")
        worker.execute("select dynrec._publish_users(%s)", [token])
        connection.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute("select dynrec._run_task()")
        worker.execute("commit")
    shop.drain()
    assert ("user", "ann") in waiting(shop)


def test_switching_off_leaves_nothing(told: Shop) -> None:
    stray = told.value("select to_jsonb(o) from dynrec_data.outbox o where kind = 'user'")
    alter(told, None)
    assert waiting(told) == {}
    told.execute("insert into dynrec_data.outbox overriding system value select * from jsonb_populate_record(null::dynrec_data.outbox, %s)", [json.dumps(stray)])  # fmt: skip
    assert outbox.lanes(told.connection) == []
    told.execute("select dynrec._maintain()")
    assert waiting(told) == {}, "a publish that ran meanwhile had left this"
    told.execute("update shop.products set title = 'another'")
    told.drain()
    assert waiting(told) == {}


def test_what_nobody_takes_goes_with_the_history(told: Shop) -> None:
    told.execute("update dynrec_data.outbox set written_at = now() - interval '366 days' where entity in ('1', 'ann')")
    told.execute("select dynrec._maintain()")
    assert waiting(told).keys() == {("item", "2"), ("item", "3")}


def test_a_forgotten_user_is_not_told_of(told: Shop) -> None:
    assert len(told.value("select dynrec.export_user('shop', 'ann')")["held"]["outbox"]) == 1
    receipt = told.value("select dynrec.forget_user('shop', 'ann')")
    assert receipt["removed"]["outbox"] == 1
    assert waiting(told).keys() == {("item", "1"), ("item", "2"), ("item", "3")}
    assert told.value("select dynrec.verify_forgotten('shop', 'ann', %s)", [json.dumps(receipt)])


def test_each_model_version_is_told_of(told: Shop) -> None:
    told.execute("select dynrec.register_encoder('small', 'hashing', '', 16)")
    model = told.value("select dynrec.stage_model('shop', encoder => 'small')")
    told.execute(
        "insert into dynrec_data.change (recommender_id, kind, entity, op) select 1, 'derived', id::text, 'refresh' from shop.products"
    )
    told.execute(
        "update dynrec_data.model_version set state = 'backfilling' where id = %s and state = 'staged'", [model]
    )
    token = claim(told.connection, "shop", "derived")
    vectors = [f"[{','.join(['0.25'] * 16)}]"] * 2 + [None]
    told.execute(
        "select * from dynrec._publish_derived(%s, %s, '{1,2,3}', %s::vector[], '{}')", [token, model, vectors]
    )
    keys = {json.loads(event.key)[3] for event in outbox.read(told.connection, ITEMS, 10)}
    assert keys == {1, model}
    assert told.value("select count(*) from dynrec_data.outbox where model_id = %s", [model]) == 2, "3 had none before"
    told.execute("select dynrec.retire_model('shop', %s)", [model])
    assert told.value("select count(*) from dynrec_data.outbox where model_id <> 1") == 0


def test_a_worker_tells_without_any_right_on_tables(told: Shop) -> None:
    with acting(told, "dynrec_worker", tables="") as worker:
        for lane in outbox.lanes(worker):
            outbox.settle(worker, lane, [(event, None) for event in outbox.read(worker, lane, 10)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("select * from dynrec_data.outbox")
    assert waiting(told) == {}


def test_a_dropped_recommender_leaves_nothing(told: Shop) -> None:
    told.execute("select dynrec.drop_recommender('shop')")
    assert waiting(told) == {}
    assert outbox.read(told.connection, ITEMS, 10) == []


@pytest.mark.parametrize("value", ['"everything"', "true", "1", "[]"])
def test_what_cannot_be_told_is_refused(told: Shop, value: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"options\.publish: nothing that can be told"):
        told.execute("select dynrec.alter_recommender('shop', options => %s)", [f'{{"publish": {value}}}'])
