"""Schemas, tables, columns, recommenders, experiments and encoders with hostile names: everything works under them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.drain import Session
from tests.hostile.canary import FRAGMENTS, has_sung, plant
from tests.hostile.journey import travel
from tests.hostile.values import ODD, characters
from tests.sql.shop import NOON, Shop

LONGEST = 63  # bytes, of a name in Postgres
COLUMNS = ["id", "title", "category", "price", "user", "item", "kind", "value", "time"]
OURS = ["i", "e", "k", "n", "o", "c", "r", "NEW", "OLD", "new_rows", "old_rows", "item_id", "user_id", "entity", "args", "id", "user", "order", "tableoid_", "between", "x.y"]  # fmt: skip

short_texts = st.text(characters, min_size=1, max_size=LONGEST)
names = st.one_of(st.sampled_from([one for one in [*ODD, *OURS, *FRAGMENTS] if one]), short_texts)


def cut(name: str, ending: str = "") -> str:
    """As much of a name as Postgres keeps, with an ending that tells it from others."""
    return name.encode()[: LONGEST - len(ending)].decode(errors="ignore") + ending


def declare(connection: Session, name: str) -> Shop:
    """A shop whose every name is this one, with an ending where two must differ."""
    columns = {column: sql.Identifier(cut(name, str(n))) for n, column in enumerate(COLUMNS, 1)}
    schema, items, events = cut(name), cut(name, "a"), cut(name, "b")
    tables = {
        "schema": sql.Identifier(schema),
        "items": sql.Identifier(schema, items),
        "events": sql.Identifier(schema, events),
    }
    connection.execute(
        sql.SQL(
            """
            create schema {schema};
            create table {items} ({id} text primary key, {title} text, {category} text, {price} numeric);
            create table {events} ({user} text, {item} text, {kind} text, {value} numeric, {time} timestamptz);
            create index on {events} ({user});
            create index on {events} ({item});
            insert into {items} select i, 'item ' || i, 'c' || i % 2, i from generate_series(1, 5) i;
            """
        ).format(**columns, **tables)
    )
    event = sql.SQL("insert into {events} values (%s, %s, %s, 1, %s)").format(**tables)
    for number in (1, 3, 4):
        connection.execute(event, ["u", str(number), name, NOON])
    quoted = [
        connection.execute("select format('%%I.%%I', %s::text, %s::text)", [schema, one]).fetchall()[0][0]
        for one in (items, events)
    ]
    column = {key: cut(name, str(n)) for n, key in enumerate(COLUMNS, 1)}
    recommender = (name.strip() or "blank")[:LONGEST].strip()
    connection.execute(
        """
        select dynrec.create_recommender(%s, %s, text_columns => array[%s], categorical_columns => array[%s], numeric_columns => array[%s],
          interactions => %s, user_column => %s, item_column => %s, kind_column => %s, value_column => %s, time_column => %s,
          kinds => jsonb_build_object(%s::text, '{"weight": 1}'::jsonb), encoder => 'hashing')
        """,
        [recommender, quoted[0], column["title"], column["category"], column["price"], quoted[1],
         column["user"], column["item"], column["kind"], column["value"], column["time"], name],
    )  # fmt: skip
    return Shop(
        connection,
        recommender,
        items=sql.SQL("select {id}, {title}, {category} from {items}")
        .format(**columns, **tables)
        .as_string(connection),
        interactions=sql.SQL("select {user}, {item}, {time}, {kind}, {value}::float8 from {events}")
        .format(**columns, **tables)
        .as_string(connection),
        kinds={},
    )


def test_everything_works_under_any_name(connection: Session) -> None:
    plant(connection)
    connection.execute("set client_min_messages = 'error'")

    @settings(max_examples=max(settings().max_examples // 2, 1))
    @given(names)
    def work_under(name: str) -> None:
        try:
            go_under(connection, name)
        finally:
            connection.execute("select dynrec.drop_recommender(s.recommender) from dynrec.status s")
            connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(cut(name))))

    work_under()


def go_under(connection: Session, name: str) -> None:
    shop = declare(connection, name)
    shop.drain()
    shop.assert_right()
    travel(shop, "u", "2")
    shop.execute("select dynrec.alter_recommender(%s, text_columns => array[%s])", [shop.name, cut(name, "3")])
    findings = shop.execute(
        "select finding from dynrec.doctor() where severity = 'error' and subject = %s", [shop.name]
    )
    assert findings == []
    shop.drain()
    assert not has_sung(connection)
