"""What can be declared: keys of any accepted type, columns of any sort, several recommenders."""

import re

import pytest

from tests.drain import Session
from tests.reference import Event, Kind, document, item_vectors
from tests.sql.declaring import declare
from tests.sql.shop import NOON, Shop, assert_close

KEYS = [
    ("smallint", ["1", "-2", "32767"]),
    ("integer", ["1", "-2", "2147483647"]),
    ("bigint", ["1", "-2", "9223372036854775807"]),
    (
        "uuid",
        [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "00000000-0000-0000-0000-000000000000",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12",
        ],
    ),
    ("text", ["", "a b", "x' or '1'='1"]),
    ("varchar", ["A", "a", "\t"]),
    ("varchar(20)", ["A", "a", "漢字"]),
]


@pytest.mark.parametrize(("type_", "keys"), KEYS)
def test_keys(connection: Session, type_: str, keys: list[str]) -> None:
    connection.execute(f"create table items (key {type_} primary key, title text)".encode())
    connection.execute(f"create table events (u {type_}, i {type_}, t timestamptz)".encode())
    declare(
        connection,
        "keys",
        items="public.items",
        text_columns=["title"],
        interactions="public.events",
        user_column="u",
        item_column="i",
        time_column="t",
    )
    shop = Shop(connection, "keys", "select key::text, title from items", "select u::text, i::text, t from events", {})
    for key in keys:
        shop.execute("insert into items values (%s, %s)", [key, f"item {key}"])
        shop.execute("insert into events values (%s, %s, %s)", [key, keys[0], NOON])
    shop.drain()
    shop.assert_right()
    assert shop.recommend(keys[0], k=5, exclude_seen=False)[0][0] == keys[0]
    assert {item for item, _, _ in shop.recommend(keys[0], k=5)} == set(keys[1:])
    assert {item for item, _, _ in shop.call("similar_items", item=keys[1])} == {keys[0], keys[2]}
    shop.execute("delete from items where key = %s", [keys[1]])
    assert {item for item, _, _ in shop.call("similar_items", item=keys[0])} == {keys[2]}
    shop.drain()
    shop.assert_right()


@pytest.mark.parametrize("function", ["recommend", "user_vector_at"])
@pytest.mark.parametrize(
    "user", ["", "abc", "1.5", "99999999999999999999", "1; drop table items", "\u0660", "null", " "]
)
def test_users_whose_key_cannot_be_one(connection: Session, function: str, user: str) -> None:
    connection.execute("create table items (id int primary key, title text)")
    connection.execute("create table events (user_id int, item_id int, occurred_at timestamptz)")
    connection.execute("insert into items select i, 'item ' || i from generate_series(1, 5) i")
    declare(connection, "keys", items="public.items", text_columns=["title"], interactions="public.events")
    shop = Shop(connection, "keys")
    shop.drain()
    if function == "recommend":
        assert [source for _, _, source in shop.recommend(user, k=4)] == ["fallback"] * 4
    else:
        assert shop.user_vectors([user]) == {user: None}


def test_a_uuid_may_be_written_in_any_way(connection: Session) -> None:
    connection.execute("create table items (id uuid primary key, title text)")
    connection.execute("create table events (user_id uuid, item_id uuid, occurred_at timestamptz)")
    ids = [f"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a0{n}" for n in range(4)]
    for key in ids:
        connection.execute("insert into items values (%s, %s)", [key, f"thing {key}"])
    declare(connection, "keys", items="public.items", text_columns=["title"], interactions="public.events")
    connection.execute("insert into events values (%s, %s, now())", [ids[0], ids[1]])
    shop = Shop(connection, "keys", "", None)
    shop.drain()
    loud = [key.upper() for key in ids]
    assert shop.recommend(loud[0]) == shop.recommend(ids[0])
    for arguments in ({"exclude_items": loud[2:]}, {"exclude_items": ["{" + loud[2] + "}"]}):
        expected = {"exclude_items": [key.strip("{}").lower() for key in arguments["exclude_items"]]}
        assert shop.recommend(ids[0], **arguments) == shop.recommend(ids[0], **expected)
    assert shop.call("similar_items", item=loud[0]) == shop.call("similar_items", item=ids[0])
    assert shop.call("recommend_for_items", item_ids=loud[:2]) == shop.call("recommend_for_items", item_ids=ids[:2])
    assert shop.item_vectors(loud)[loud[0]] is not None
    for function in ("item_history", "drift"):
        statement = f"select count(*) from dynrec.{function}('keys', %s)".encode()
        assert connection.execute(statement, [loud[0]]).fetchone() == (1,)
    (explained,) = connection.execute(
        "select because_item_id from dynrec.explain('keys', %s, %s)", [loud[0], loud[2]]
    ).fetchall()
    assert explained == (ids[1],)
    assert connection.execute("select dynrec.refresh('keys', %s, %s)", [loud[:1], loud[:1]]).fetchone() == (2,)
    assert shop.queued() == {("item", ids[0]), ("user", ids[0])}


def test_the_primary_key_is_found(connection: Session) -> None:
    connection.execute("create table items (title text, code varchar(9) not null unique, number bigint primary key)")
    connection.execute("insert into items values ('a thing', 'x', 7)")
    assert declare(connection, "keys", items="public.items", text_columns=["title"])[0] == "keys"
    assert declare(connection, "codes", items="public.items", item_key="code", text_columns=["title"])[0] == "codes"
    shop = Shop(connection, "keys")
    shop.drain()
    assert shop.execute(
        "select item_id from dynrec.trending('keys') union all select item_id from dynrec.trending('codes')"
    ) == [("7",), ("x",)]


def test_the_estimates_are_right_for_small_tables(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON)])
    name, _, items, interactions = declare(
        shop.connection, "second", items="shop.products", text_columns=["title"], interactions="shop.events"
    )
    assert (name, items, interactions) == ("second", 12, 1)


def test_many_columns(connection: Session) -> None:
    numbers, texts = [f"n{i}" for i in range(150)], [f"t{i}" for i in range(150)]
    columns = ", ".join([*(f"{n} int default 1" for n in numbers), *(f"{t} text default '{t}'" for t in texts)])
    connection.execute(f"create table items (id int primary key, {columns})".encode())
    connection.execute("insert into items (id) values (1)")
    declare(connection, "wide", items="public.items", text_columns=texts, numeric_columns=numbers)
    shop = Shop(connection, "wide", interactions=None)
    shop.drain()
    expected = document(*texts)
    assert_close(shop.item_vectors(["1"]), item_vectors({"1": expected}))
    assert len(shop.value("select features from dynrec.item_history('wide', '1')")) == 150


def test_arrays_and_other_types_as_text(connection: Session) -> None:
    connection.execute(
        "create table items (id int primary key, tags text[], numbers int[], data jsonb, day date, amount numeric(8, 2), flag boolean)"
    )
    connection.execute(
        "insert into items values (1, '{red,blue,null}', '{1,2}', '{\"a\": [1]}', '2024-01-31', 12.5, true), (2, null, null, null, null, null, null)"
    )
    declare(
        connection, "types", items="public.items", text_columns=["tags", "numbers", "data", "day", "amount", "flag"]
    )
    shop = Shop(connection, "types", interactions=None)
    shop.drain()
    text = 'red, blue. 1, 2. {"a": [1]}. 2024-01-31. 12.50. true'
    assert_close(shop.item_vectors(["1", "2"]), item_vectors({"1": text, "2": ""}))


@pytest.mark.parametrize("style", ["ISO, DMY", "German", "SQL, MDY"])
def test_the_text_does_not_depend_on_the_session(connection: Session, style: str) -> None:
    connection.execute(
        "create table items (id int primary key, day date, at timestamptz, amount double precision, raw bytea, span interval)"
    )
    connection.execute(
        "insert into items values (1, '2024-01-31', '2024-01-31 12:00+00', 0.1, 'abc', '1 day 2 hours'), "
        "(2, '2024-02-01', '2024-02-01 12:00+00', 0.1, 'abd', '1 day 2 hours')"
    )
    declare(connection, "types", items="public.items", text_columns=["day", "at", "amount", "raw", "span"])
    shop = Shop(connection, "types", interactions=None)
    shop.drain()
    settings = {
        "datestyle": style,
        "timezone": "Asia/Tokyo",
        "extra_float_digits": "-5",
        "bytea_output": "escape",
        "intervalstyle": "iso_8601",
    }
    for name, value in settings.items():
        connection.execute("select set_config(%s, %s, false)", [name, value])
    assert connection.execute(
        "select items_to_recompute from dynrec.alter_recommender('types', dry_run => true)"
    ).fetchone() == (0,)


def test_two_recommenders_over_the_same_tables(shop: Shop) -> None:
    declare(
        shop.connection,
        "second",
        items="shop.products",
        text_columns=["body", "title"],
        interactions="shop.events",
        kinds={"*": {"weight": 2, "half_life": "2 hours"}},
    )
    second = Shop(
        shop.connection,
        "second",
        "select id::text, body, title from shop.products",
        "select user_id, item_id::text, occurred_at from shop.events",
        {},
    )
    shop.execute("update shop.products set body = 'body of ' || id")
    assert shop.queued() == set()
    shop.add_events([Event("u", "1", NOON), Event("u", "2", NOON.replace(hour=20), "purchase")])
    second.kinds = {"*": Kind(2, NOON.replace(hour=14) - NOON)}
    for one in (shop, second):
        one.drain()
        one.assert_right()
    shop.execute("select dynrec.drop_recommender('shop')")
    shop.execute("update shop.products set title = 'still captured' where id = 3")
    shop.add_events([Event("u", "3", NOON)])
    second.drain()
    second.assert_right()


def test_comments_speak_of_every_argument(connection: Session) -> None:
    (comment,) = connection.execute(
        "select obj_description(oid) from pg_proc where proname = 'create_recommender'"
    ).fetchone() or ("",)
    assert all(
        re.search(word, comment) for word in ("items", "item_key", "kinds", "encoder", "options", "vector_column")
    )
