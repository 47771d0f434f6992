"""What can be declared: tables, columns and recommenders of any name."""

from typing import Any

import pytest
from psycopg import sql

from tests.drain import Session
from tests.reference import Event, Kind, Kinds, document, item_vectors
from tests.sql.declaring import declare
from tests.sql.shop import NOON, Shop, assert_close

NAMES = [
    "plain",
    "Mixed Case",
    'with "quotes"',
    "with 'apostrophes'",
    "a.b",
    "select",
    "naïve 漢字",
    "percent % %s %I",
    "back\\slash",
    "{id}",
    "{model}{key}",
    "$1",
    "$$",
    "$body$ $query$",
    "-- comment",
    "/* comment",
    "new\nline",
    "x" * 63,
]
# What our own statements call their tables, columns, arguments and variables.
OURS = [
    "args",
    "item",
    "k",
    "i",
    "e",
    "n",
    "o",
    "v",
    "c",
    "u",
    "s",
    "a",
    "b",
    "p",
    "r",
    "id",
    "kind",
    "entity",
    "op",
    "lane",
    "value",
    "embedding",
    "item_id",
    "item_ids",
    "user_id",
    "user_ids",
    "created_at",
    "valid_from",
    "content",
    "features",
    "excluded",
    "query",
    "score",
    "rank",
    "source",
    "change",
    "lease",
    "token",
    "by_token",
    "vectors",
    "hashes",
    "model_id",
    "recommender",
    "old",
    "new",
    "tg_op",
    "times",
    "kinds",
    "event_values",
    "reference",
    "for_user",
    "known_at",
]


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_columns_of_any_name(connection: Session, name: str) -> None:
    use_names(connection, name, name, name, name[:60])


@pytest.mark.parametrize("name", OURS)
def test_columns_named_like_ours(connection: Session, name: str) -> None:
    use_names(connection, "Shop", name, name, "other")
    use_names(connection, "Shop2", "other", "other", name)


def use_names(connection: Session, schema: str, table: str, column: str, key: str) -> None:
    """Declare, fill, read and change a recommender over tables and columns of these names."""
    recommender = schema[:20].replace("\n", " ")
    key = key if key != column else f"{key[:58]} key"
    identifiers = {
        "schema": sql.Identifier(schema),
        "items": sql.Identifier(schema, table),
        "events": sql.Identifier(schema, f"{table[:56]} events"),
        "column": sql.Identifier(column),
        "key": sql.Identifier(key),
        "user": sql.Identifier(f"{column[:57]} user"),
        "time": sql.Identifier(f"{column[:57]} time"),
        "value": sql.Identifier(f"{column[:57]} value"),
    }

    # psycopg reads a percent sign as the start of a placeholder, in names, too
    names = {key: sql.SQL(one.as_string(connection).replace("%", "%%")) for key, one in identifiers.items()}

    def execute(statement: str, *arguments: Any) -> list[Any]:
        cursor = connection.execute(sql.SQL(statement).format(**names), arguments)
        return cursor.fetchall() if cursor.description else []

    execute("create schema {schema}")
    execute("create table {items} ({key} int primary key, {column} text, other_one text)")
    execute("insert into {items} select i, 'thing number ' || i, 'o' from generate_series(1, 8) i")
    execute("create table {events} ({user} text, {key} int, {time} timestamptz, {column} text, {value} int)")
    kinds: Kinds = {name: Kind(weight) for name, weight in ((column, 2.0), ("{weight}", 3.0), ("$$", 0.5), ("*", 1.0))}
    declare(
        connection,
        recommender,
        items=quoted(schema, table),
        text_columns=[column],
        categorical_columns=["other_one"],
        numeric_columns=[key],
        interactions=quoted(schema, f"{table[:56]} events"),
        user_column=f"{column[:57]} user",
        item_column=key,
        time_column=f"{column[:57]} time",
        kind_column=column,
        value_column=f"{column[:57]} value",
        kinds={name: {"weight": kind.weight} for name, kind in kinds.items()},
    )
    execute(
        "insert into {events} values ('u', 1, %s, %s, 1), ('u', 2, %s, '{{weight}}', 2), ('u', 3, %s, '$$', 2)",
        NOON,
        column,
        NOON,
        NOON,
    )
    execute("update {items} set {column} = 'renamed thing' where {key} = 4")
    shop = Shop(connection, recommender)
    shop.drain()
    execute("update {events} set {value} = 5 where {key} = 1")
    execute("insert into {events} values ('u', 5, %s, 'other', null)", NOON)
    texts = {
        str(k): document(text, other) for k, text, other in execute("select {key}, {column}, other_one from {items}")
    }
    assert_close(shop.item_vectors(texts), item_vectors(texts))
    events = [
        Event(user, str(item), at, kind, value)
        for user, item, at, kind, value in execute("select {user}, {key}, {time}, {column}, {value} from {events}")
    ]
    shop.events = lambda: events  # type: ignore[method-assign]
    shop.texts = lambda: texts  # type: ignore[method-assign]
    shop.kinds = kinds
    shop.assert_users_folded()
    shop.drain()
    shop.assert_users_right()
    assert len(shop.recommend("u", k=4)) == 4
    quoted_key = sql.Identifier(key).as_string(connection)
    filtered = shop.recommend("u", filter=f"item.{quoted_key} = (a.args ->> 'only')::int", filter_args={"only": 7})
    assert [item for item, _, _ in filtered] == ["7"]
    assert shop.execute("select count(*) from dynrec.explain(%s, 'u', '7', 10)", [recommender]) == [(4,)]
    execute("select dynrec.drop_recommender(%s)", recommender)


def quoted(schema: str, table: str) -> str:
    """schema.table as SQL writes it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))


def test_the_names_of_recommenders(shop: Shop) -> None:
    for name in ("x", "Ünï côde", "it's", "a b", "x" * 63, "select", "1"):
        declare(shop.connection, name, items="shop.products", text_columns=["title"])
        assert shop.execute("select recommender from dynrec.status where recommender = %s", [name]) == [(name,)]
        shop.execute("select dynrec.drop_recommender(%s)", [name])
