"""Changing and dropping a recommender: exactly what differs is done again."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.conftest import Prepare
from tests.drain import CountingEncoder, Session, claim, publish, read
from tests.sql.shop import KINDS, NOON, Event, Kind, Shop, kinds_argument, open_shop

HOUR = timedelta(hours=1)
SOME_EVENTS = [
    Event(f"u{n % 4}", str(1 + n % 12), NOON + n * HOUR, ["view", "purchase", "return"][n % 3]) for n in range(30)
]


def open_for_long(connection: Session) -> None:
    """The shop with gaps in what it sells, and interactions."""
    shop = open_shop(connection)
    shop.execute("update shop.products set category = null where id > 4")
    shop.execute("update shop.products set body = 'body ' || id where id in (3, 4, 5)")
    shop.add_events(SOME_EVENTS)
    shop.drain()


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(open_for_long).name


def alter(shop: Shop, **arguments: Any) -> tuple[int, int]:
    """Call alter_recommender."""
    given = {key: Jsonb(value) if isinstance(value, dict) else value for key, value in arguments.items()}
    named = "".join(f", {key} => %({key})s" for key in given)
    rows = shop.connection.execute(
        f"select * from dynrec.alter_recommender(%(name)s{named})".encode(), {"name": shop.name, **given}
    ).fetchall()
    return rows[0]


def test_nothing_to_change(shop: Shop) -> None:
    assert alter(shop) == (0, 0)
    assert alter(shop, text_columns=["title"], kinds=kinds_argument(KINDS)) == (0, 0)
    assert shop.queued() == set()


def test_a_dry_run_changes_nothing(shop: Shop) -> None:
    before = shop.execute("select r::text from dynrec_data.recommender r")
    assert alter(
        shop,
        text_columns=["title", "body"],
        kinds={"view": {"weight": 9}},
        options={"half_life": "2 days"},
        dry_run=True,
    ) == (3, 4)
    assert shop.queued() == set()
    assert shop.execute("select r::text from dynrec_data.recommender r") == before
    shop.execute("update shop.products set body = 'unwatched still'")
    assert shop.queued() == set()


def test_text_columns(shop: Shop) -> None:
    encoder = CountingEncoder()
    assert alter(shop, text_columns=["title", "body"]) == (3, 0)
    shop.items = "select id::text, title, body, category from shop.products"
    assert {entity for kind, entity in shop.queued() if kind == "item"} == {"3", "4", "5"}
    shop.drain(encoder)
    assert len(encoder.texts) == 3
    shop.assert_right()
    shop.execute("update shop.products set body = 'watched now' where id = 9")
    shop.drain()
    shop.assert_right()


def test_columns_taken_away(shop: Shop) -> None:
    assert alter(shop, categorical_columns=[]) == (12, 0)  # all: a category is a feature, too
    shop.items = "select id::text, title from shop.products"
    encoder = CountingEncoder()
    shop.drain(encoder)
    assert len(encoder.texts) == 4, "the text of the others is as it was"
    shop.assert_right()
    shop.execute("update shop.products set category = 'unwatched'")
    assert shop.queued() == set()


def test_numeric_columns(shop: Shop) -> None:
    encoder = CountingEncoder()
    assert alter(shop, numeric_columns=["price", "stock"]) == (12, 0)
    shop.drain(encoder)
    assert encoder.texts == []
    assert shop.value("select features from dynrec.item_history('shop', '3') where is_current") is not None
    shop.execute("update shop.products set stock = 5 where id = 3")
    assert shop.queued() == {("item", "3")}


@pytest.mark.parametrize(
    "kinds",
    [
        {**KINDS, "view": Kind(5, timedelta(days=1))},
        {**KINDS, "view": Kind(1, timedelta(days=2))},
        {"*": Kind(1, timedelta(days=30))},
        {"purchase": Kind(1, HOUR), "*": Kind(0, timedelta(days=30))},
        {**KINDS, "view": Kind(1, timedelta(days=90)), "*": Kind(0.5, timedelta(days=90))},
    ],
)
def test_kinds(shop: Shop, kinds: dict[str, Kind]) -> None:
    assert alter(shop, kinds=kinds_argument(kinds)) == (0, 4)
    shop.kinds = kinds
    shop.assert_users_folded()
    shop.add_events([Event("u1", "7", NOON - HOUR, "purchase"), Event("u9", "7", NOON, "view")])
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()


def test_the_default_half_life(shop: Shop) -> None:
    shop.execute(
        'select dynrec.alter_recommender(\'shop\', kinds => \'{"view": {"weight": 2}, "return": {"weight": -1, "half_life": "1 day"}}\')'
    )
    shop.drain()
    assert alter(shop, options={"half_life": "3 hours"}) == (0, 4)
    shop.kinds = {"view": Kind(2, 3 * HOUR), "return": Kind(-1, 24 * HOUR), "*": Kind(1, 3 * HOUR)}
    shop.assert_users_folded()
    shop.drain()
    shop.assert_right()


def test_options_that_touch_no_vector(shop: Shop) -> None:
    assert alter(shop, options={"exclude_seen": False, "retention": "2 days", "max_attempts": 2}) == (0, 0)
    assert shop.queued() == set()
    assert len(shop.recommend("u1", k=12)) == 12
    assert alter(shop, options={"exclude_seen": True}) == (0, 0)
    assert shop.value("select options ->> 'retention' from dynrec_data.recommender") == "2 days", "options are merged"
    assert len(shop.recommend("u1", k=12)) == 9


def test_wrong_changes_leave_all_as_it_was(shop: Shop) -> None:
    before = shop.execute("select r::text from dynrec_data.recommender r")
    wrong: list[dict[str, Any]] = [
        {"text_columns": ["titel"]},
        {"text_columns": [], "categorical_columns": []},
        {"numeric_columns": ["title"]},
        {"kinds": {"view": {"weight": "much"}}},
        {"options": {"half_live": "1 day"}},
        {"options": {"max_attempts": 1000}, "text_columns": ["title", "body"]},
    ]
    for arguments in wrong:
        with pytest.raises(psycopg.Error) as caught:
            alter(shop, **arguments)
        assert (caught.value.sqlstate or "")[:2] == "22"
        assert caught.value.diag.message_hint
    assert shop.execute("select r::text from dynrec_data.recommender r") == before
    assert shop.queued() == set()
    with pytest.raises(psycopg.Error, match="'nothing'"):
        shop.execute("select dynrec.alter_recommender('nothing')")


def test_missing_and_disabled_triggers_come_back(shop: Shop) -> None:
    shop.execute("drop trigger dynrec_1_items_update on shop.products")
    shop.execute("alter table shop.events disable trigger dynrec_1_interactions_insert")
    shop.execute("update shop.products set title = 'missed' where id = 1")
    shop.add_events([Event("u1", "12", NOON, "purchase")])
    assert shop.queued() == set()
    findings = shop.execute("select remedy from dynrec.doctor() where severity = 'error' and subject = 'shop'")
    assert len(findings) == 2
    assert alter(shop) == (1, 0)
    shop.drain()
    shop.assert_right()
    shop.execute("update shop.products set title = 'seen' where id = 1")
    shop.add_events([Event("u1", "12", NOON, "purchase")])
    assert shop.queued() == {("item", "1"), ("user", "u1")}


def test_an_item_that_is_being_encoded_meanwhile(shop: Shop) -> None:
    shop.execute("insert into shop.products (id, title, body) values (50, 'new', 'with a body')")
    token = claim(shop.connection, "shop", "item")
    assert token is not None
    rows = read(shop.connection, token)
    alter(shop, text_columns=["title", "body"])
    assert publish(shop.connection, token, rows, CountingEncoder()) == {"50": "published"}
    shop.items = "select id::text, title, body, category from shop.products"
    shop.drain()
    shop.assert_right()


def test_a_row_that_is_being_written_meanwhile(shop: Shop, database_url: str) -> None:
    with psycopg.connect(database_url) as writer:
        writer.execute("update shop.products set body = 'written by then' where id = 9")  # not watched yet
        alter(shop, text_columns=["title", "body"])
        shop.items = "select id::text, title, body, category from shop.products"
        shop.drain()
        assert ("task", "batch_items") in shop.queued(), "whoever still writes is waited for"
        shop.execute("update shop.products set body = 'written afterwards' where id = 8")
        shop.drain()
        shop.assert_items_right()
    shop.drain()
    shop.assert_right()
    assert shop.queued() == set()


def test_who_waits_after_an_alteration_waits_for_what_was_committed(shop: Shop) -> None:
    shop.execute("update shop.products set body = 'unwatched' where id = 9")
    alter(shop, text_columns=["title", "body"])
    (mark,) = shop.execute("select max(id) from dynrec_data.task")[0]
    shop.items = "select id::text, title, body, category from shop.products"
    assert "await_writers of 'shop'" in shop.value("select dynrec._run_task()")
    assert shop.value("select count(*) from dynrec_data.task where id > %s", [mark]) == 0, "done, and not put off"
    shop.drain()
    shop.assert_right()


def test_a_row_that_is_written_while_triggers_are_missing(shop: Shop, database_url: str) -> None:
    shop.execute("drop trigger dynrec_1_items_update on shop.products")
    with psycopg.connect(database_url) as writer:
        writer.execute("update shop.products set title = 'missed' where id = 1")
        with psycopg.connect(database_url, autocommit=True) as other, ThreadPoolExecutor(1) as pool:
            altering = pool.submit(other.execute, "select dynrec.alter_recommender('shop')")
            while not shop.value("select exists (select from pg_locks where not granted)"):
                pass
            writer.commit()
            altering.result()
    shop.drain()
    shop.assert_right()


def test_a_source_that_was_renamed(shop: Shop) -> None:
    shop.execute("alter table shop.products rename to goods; alter schema shop rename to store")
    shop.items = "select id::text, title, category from store.goods"
    shop.interactions = "select user_id, item_id::text, occurred_at, kind, value from store.events"
    for (remedy,) in shop.execute("select distinct remedy from dynrec.doctor() where finding like '%renamed%'"):
        shop.connection.execute(remedy)
    shop.execute("update store.goods set title = 'renamed' where id = 1")
    shop.drain()
    shop.assert_right()
    assert len(shop.recommend("u1", k=5)) == 5


def test_popularity_follows_kinds_and_half_life(shop: Shop) -> None:
    now = shop.value("select now()")
    shop.add_events([Event("a", "1", now - timedelta(days=7), "view")] * 3 + [Event("a", "2", now, "purchase")])
    shop.drain()
    assert [item for item, _, _ in shop.call("trending", k=2)] == ["2", "1"]
    alter(shop, kinds={"view": {"weight": 100}})
    shop.drain()
    assert shop.call("trending", k=1)[0][0] == "1"
    assert shop.call("trending", k=1)[0][1] == pytest.approx(150, rel=1e-3)
    alter(shop, options={"trending_half_life": "3.5 days"})
    shop.drain()
    assert shop.call("trending", k=1)[0][1] == pytest.approx(75, rel=1e-3)


def test_a_dropped_recommender_leaves_nothing(shop: Shop) -> None:
    tables = [
        name
        for (name,) in shop.execute(
            "select relname from pg_class where relnamespace = 'dynrec_data'::regnamespace and relkind in ('r', 'p') and not relispartition"
        )
    ]
    shop.execute("update shop.products set title = title || '!' where id < 5")
    shop.drain()
    shop.execute("update shop.products set title = title || '?' where id < 5")
    shop.execute("delete from shop.events where user_id = 'u1'")
    shop.execute("truncate shop.events")
    claim(shop.connection, "shop", "item", 1)
    token = claim(shop.connection, "shop", "item", 1)
    shop.execute(
        "select dynrec._fail(%s, array(select entity from dynrec_data.lease where token = %s), 'error', true)",
        [token, token],
    )
    shop.execute("select dynrec.drop_recommender('shop')")
    kept = {"encoder", "code", "alembic_version", "heartbeat"}
    assert {
        name
        for name in tables
        if shop.connection.execute(f"select from dynrec_data.{name} limit 1".encode()).fetchall()
    } <= kept
    assert shop.execute("select tgname from pg_trigger where tgname like 'dynrec%'") == []
    assert (
        shop.execute(
            "select proname from pg_proc where pronamespace = 'dynrec_data'::regnamespace and proname not in ('keep_popularity', 'sees_item')"
        )
        == []
    )
    assert shop.execute("select oid::regclass from pg_class where relname ~ '_vector_[0-9]+'") == []
    for write in ("insert into shop.products (id) values (99)", "delete from shop.products", "truncate shop.products"):
        shop.connection.execute(write.encode())
    for function in ("drop_recommender", "recommend"):
        with pytest.raises(psycopg.errors.UndefinedObject, match="shop"):
            shop.connection.execute(
                f"select dynrec.{function}('shop'{', 7::text' if function == 'recommend' else ''})".encode()
            )


@pytest.mark.parametrize("tables", ["shop.products, shop.events", "shop.events"])
def test_a_recommender_whose_tables_are_gone(shop: Shop, tables: str) -> None:
    shop.connection.execute(f"drop table {tables} cascade".encode())
    assert "was dropped" in str(shop.execute("select finding from dynrec.doctor() where severity = 'error'"))
    shop.execute("select * from dynrec.status, dynrec.freshness, dynrec.model_versions, dynrec.queue")
    shop.execute("select dynrec.drop_recommender('shop')")
    assert shop.execute("select * from dynrec.status") == []


def test_eleven_recommenders_do_not_take_each_other_with_them(shop: Shop) -> None:
    for number in range(2, 12):
        shop.execute(
            "select dynrec.create_recommender(%s, 'shop.products', text_columns => '{title}', encoder => 'hashing')",
            [f"r{number}"],
        )
    shop.execute("select dynrec.drop_recommender('shop')")
    shop.name, shop.interactions, shop.items = "r11", None, "select id::text, title from shop.products"
    shop.execute("update shop.products set title = 'captured' where id = 1")
    shop.drain()
    shop.assert_items_right()
