"""The whole public surface: everything is described, and silly arguments get an answer that helps."""

import re
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.drain import Session
from tests.sql.shop import Shop

# What is never right for anybody, by type; null comes besides.
SILLY: dict[str, list[str]] = {
    "text": [
        "",
        " ",
        "nothing",
        "'; drop table shop.products; --",
        "\u6f22\u5b57",
        "x" * 10_000,
        "shop.products",
        "%s %I $1 {id}",
    ],
    "text[]": ["{}", "{null}", "{nothing}", "{{a,b},{c,d}}", '{""}', "[5:6]={a,b}"],
    "bigint": ["0", "-1", "-9223372036854775808", "9223372036854775807"],
    "integer[]": ["{}", "{0}", "{null}", "{3,-1}", "{10001}"],
    "bigint[]": ["{}", "{null}", "{-1}", "{9223372036854775807}"],
    "double precision[]": ["{}", "{null}", "{-1}", "{NaN}", "{Infinity}"],
    "vector[]": ["{}", "{null}", '{"[0]"}', '{"[1,2]","[0,0]"}'],
    "integer": ["0", "-1", "-2147483648", "2147483647", "10001"],
    "double precision": ["-0.1", "1.1", "NaN", "Infinity", "-Infinity"],
    "boolean": ["true", "false"],
    "jsonb": ["null", "[]", "5", '"x"', '{"nothing": 1}', '{"a": {"b": []}}', "[[1]]"],
    "timestamp with time zone": ["infinity", "-infinity", "2999-01-01", "4713-01-01 BC", "2000-01-01"],
    "interval": ["-1 second", "0", "infinity"],
    "vector": ["[0]", "[1,2,3]", "[0,0,0]"],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
}
RIGHT: dict[str, str | None] = {
    "recommender": "shop", "user_id": "u", "item": "1", "item_id": "1", "item_ids": "{1}", "user_ids": "{u}", "name": "shop", "k": "3",
    "query": "lamp", "items": "shop.products", "text_columns": "{title}", "encoder": "hashing", "family": "hashing", "model": "", "dimension": "8",
    "from": "2024-03-02", "to": "2024-03-05", "model_version": "1", "baseline": "1",
    "impressions": '[{"user_id": "u", "item_ids": ["1"]}]', "recommended": "{1,2}", "relevant": "{1}", "gains": "{1}", "expected": "{3}", "shown": "{1,2}", "catalogue_size": "9", "list_lengths": "{3}",
    "experiment": "colours", "arms": '[{"arm": "a"}, {"arm": "b"}]', "traffic": "1", "receipt": "{}", "user_counts": "{1}", "users": "3", "vectors": '{"[1,0]","[0,1]"}', "categories": "{a,b}",
}  # fmt: skip
RIGHT_FOR: dict[str, dict[str, str | None]] = {
    "create_recommender": {"name": "another", "text_columns": "{title}", "encoder": "hashing"},
    "create_experiment": {"name": "another"},
    "promote_model": {"model_version": "1"},
    "search": {"query": "lamp"},
}
EVALUATIONS = {
    "evaluation_lists",
    "evaluate",
    "evaluate_users",
    "compare_models",
    "counterfactual_metrics",
    "score_calibration",
}  # of a moment that had vectors
OBJECTS = """
    select 'function ' || p.oid::regprocedure, obj_description(p.oid, 'pg_proc') from pg_proc p
    where p.pronamespace = 'dynrec'::regnamespace
    union all
    select 'view ' || c.relname, obj_description(c.oid, 'pg_class') from pg_class c
    where c.relnamespace = 'dynrec'::regnamespace and c.relkind not in ('i', 'c')
    union all
    select 'type ' || t.typname, obj_description(t.oid, 'pg_type') from pg_type t
    where t.typnamespace = 'dynrec'::regnamespace and t.typtype in ('e', 'd')
    union all
    select 'schema ' || nspname, obj_description(oid, 'pg_namespace') from pg_namespace where nspname like 'dynrec%'
    union all
    select 'table ' || c.relname, obj_description(c.oid, 'pg_class') from pg_class c
    where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'alembic_version'
"""
FUNCTIONS = """
    select p.proname, p.proargnames[1:p.pronargs],
        array(select format_type(t, null) from unnest(p.proargtypes) with ordinality x (t, i) order by i), p.pronargs - p.pronargdefaults
    from pg_proc p where p.pronamespace = 'dynrec'::regnamespace and p.proname not like '\\_%' order by 1
"""


def test_everything_is_described(connection: Session) -> None:
    objects = connection.execute(OBJECTS).fetchall()
    assert len(objects) > 100
    assert [name for name, comment in objects if not comment or len(comment) < 10] == []
    internal = [
        name for name, comment in objects if name.startswith("function _") and not comment.startswith("Internal. ")
    ]
    assert internal == []


def test_every_function_finds_its_tables_whatever_the_search_path(shop: Shop) -> None:
    """Functions without a search path of their own must name every schema, or have nothing to find."""
    shop.execute("set search_path = ''")
    shop.execute("select * from dynrec.recommend('shop', 'u', filter => 'price > 3')")
    shop.execute("select * from dynrec.trending('shop')")
    shop.execute("select * from dynrec.search('shop', 'lamp', dynrec.item_vector_at('shop', '1'))")
    shop.execute("select * from dynrec.drift('shop', '1')")
    shop.execute("select * from dynrec.status, dynrec.freshness, dynrec.model_versions, dynrec.encoders")
    shop.execute("select * from dynrec.failures, dynrec.queue")
    shop.execute("select * from dynrec.doctor()")
    shop.execute("update shop.products set title = 'a' where id = 1")
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 1)")
    shop.execute("reset search_path")


def functions(connection: Session) -> list[tuple[str, list[str], list[str], int]]:
    rows = connection.execute(FUNCTIONS).fetchall()
    assert len(rows) >= 20
    return [(name, names or [], types, required) for name, names, types, required in rows]


def call(connection: Session, function: str, types: list[str], arguments: dict[str, str | None]) -> None:
    """Call a function with these named arguments in a transaction that is rolled back."""
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}::{}").format(sql.Identifier(name), sql.Literal(value), sql.SQL(type_))
        for (name, value), type_ in zip(arguments.items(), types, strict=True)
    )
    with connection.transaction(force_rollback=True):
        connection.execute("set local statement_timeout = '20s'")
        connection.execute(sql.SQL("select * from dynrec.{}({})").format(sql.Identifier(function), named)).fetchall()


def complaint(error: psycopg.Error, value: str | None) -> str | None:
    """What is wrong with an error: nothing, if it is of a class for callers and names the value."""
    state = error.sqlstate or ""
    if state[:2] not in {"22", "42"} and state not in {"P0002", "25000"}:
        return f"{state} {error}"
    text = f"{error.diag.message_primary} {error.diag.message_detail} {error.diag.message_hint}"
    words = ["null"] if value is None else re.findall(r"\w+", value)
    if words and error.diag.message_primary and "dimension" in error.diag.message_primary:
        words = [str(len(words))]  # of a vector its length says more
    named = not words or any(word[:20].lower() in text.lower() for word in words)
    return None if named else f"does not name {value!r}: {error.diag.message_primary}"


@pytest.mark.parametrize("silly", [None, *range(8)])
def test_silly_arguments(busy: Shop, silly: int | None) -> None:
    connection = busy.connection
    moment = str(busy.value("select clock_timestamp()"))
    problems = []
    for function, names, types, required in functions(connection):
        right = {name: RIGHT.get(name) for name in names[:required]}
        right |= RIGHT_FOR.get(function, {})
        if function in EVALUATIONS:
            right |= {"from": moment, "to": "2100-01-01"}
        for name, type_ in zip(names, types, strict=True):
            values = SILLY[type_] if silly is not None else [None]
            if silly is not None and silly >= len(values):
                continue
            value = values[silly or 0]
            arguments = {**right, name: value}
            kinds = [types[names.index(one)] for one in arguments]
            try:
                call(connection, function, kinds, arguments)
            except psycopg.Error as error:
                if problem := complaint(error, value):
                    problems.append(f"{function}({name} => {value!r}): {problem}")
    assert not problems, "\n".join(problems)


def test_what_is_missing_is_said(busy: Shop) -> None:
    """Arguments that a function cannot do without are refused by name when they are null."""
    needed: list[tuple[str, dict[str, Any]]] = [
        ("recommend", {"recommender": None, "user_id": "u"}),
        ("recommend", {"recommender": "shop", "user_id": None}),
        ("recommend_for_items", {"recommender": "shop", "item_ids": None}),
        ("similar_items", {"recommender": "shop", "item": None}),
        ("explain", {"recommender": "shop", "user_id": "u", "item_id": None}),
        ("pause", {"recommender": None}),
        ("resume", {"recommender": None}),
        ("refresh", {"recommender": None}),
        ("drop_recommender", {"name": None}),
        ("alter_recommender", {"name": None}),
        ("wait_until_fresh", {"recommender": None}),
        ("item_vector_at", {"recommender": None, "item_id": "1"}),
        ("item_history", {"recommender": None, "item_id": "1"}),
        ("drift", {"recommender": None, "item_id": "1"}),
    ]
    for function, arguments in needed:
        with pytest.raises(psycopg.Error) as caught:
            call(
                busy.connection, function, ["text[]" if name == "item_ids" else "text" for name in arguments], arguments
            )
        assert (caught.value.sqlstate or "")[:2] in {"22", "42"}, function
        assert "null" in str(caught.value), function


def test_an_unknown_recommender_lists_the_known(busy: Shop) -> None:
    for statement in (
        "select * from dynrec.recommend('shp', 'u')", "select dynrec.pause('shp')", "select dynrec.retry_failed('shp')",
        "select * from dynrec.item_history('shp', '1')", "select dynrec._claim('shp', 'item', 1, '1 s')",
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.UndefinedObject, match="'shp'") as caught:
            busy.connection.execute(statement.encode())
        assert "'shop'" in (caught.value.diag.message_hint or "")


def test_encoders(shop: Shop) -> None:
    shop.execute("select dynrec.register_encoder('small', 'hashing', '', 16)")
    shop.execute("select dynrec.register_encoder('small', 'hashing', null, 16)")
    assert shop.execute("select family, dimension, recommenders from dynrec.encoders where encoder = 'small'") == [
        ("hashing", 16, 0)
    ]
    for arguments in (
        "'small', 'hashing', '', 17",
        "'other', 'word2vec', '', 17",
        "'other', 'hashing', '', 0",
        "'other', 'hashing', '', 2001",
        "'', 'hashing', '', 5",
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            shop.connection.execute(f"select dynrec.register_encoder({arguments})".encode())
        assert caught.value.diag.message_hint


def test_the_views_of_a_shop_at_work(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'x' where id < 4")
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 1), ('u', 2)")
    assert shop.execute("select kind, lane, changes, entities from dynrec.queue order by 1") == [
        ("item", "live", 3, 3),
        ("user", "live", 2, 1),
    ]
    assert shop.execute("select kind, entities, stale from dynrec.freshness order by 1") == [
        ("item", 12, 3),
        ("user", 1, 1),
    ]
    assert shop.execute("select queued, leased, tasks, dead_letters, paused, encoder from dynrec.status") == [
        (4, 0, 0, 0, False, "hashing")
    ]
    shop.execute("select dynrec._claim('shop', 'item', 2, '1 hour')")
    assert shop.value("select leased from dynrec.status") == 2
    shop.execute("delete from dynrec_data.lease")
    shop.drain()
    assert shop.execute("select kind, entities, stale from dynrec.freshness order by 1") == [
        ("item", 12, 0),
        ("user", 1, 0),
    ]
    assert shop.execute("select * from dynrec.queue") == []


def test_the_doctor_finds_nothing_where_all_is_well(shop: Shop) -> None:
    shop.execute("select dynrec._beat('d', 'dispatcher', '{}'), dynrec._beat('w', 'worker', '{}')")
    assert shop.execute("select * from dynrec.doctor()") == []
    shop.execute("select dynrec.pause('shop')")
    assert [row[1:3] for row in shop.execute("select * from dynrec.doctor()")] == [("info", "paused")]
