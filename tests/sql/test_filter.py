"""Filters: predicates over the item source, run with the caller's rights, and nothing else."""

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.shop import Shop, call

READS: dict[str, dict[str, Any]] = {
    "recommend": {"user_id": "u1", "exclude_seen": False},
    "recommend_for_items": {"item_ids": ["1", "2"]},
    "similar_items": {"item": "1"},
    "trending": {},
    "search": {"query": "nr"},
}

PREDICATES: list[tuple[str, dict[str, Any]]] = [
    ("price > 50", {}),
    ("item.price > 50 and category in ('c1', 'c2')", {}),
    ("category = args ->> 'category'", {"category": "c3"}),
    ("price between (args ->> 'low')::numeric and (args ->> 'high')::numeric", {"low": 10, "high": 20}),
    ("category in (select jsonb_array_elements_text(args -> 'categories'))", {"categories": ["c1", "c5"]}),
    ("category = any (array(select jsonb_array_elements_text(args -> 'categories')))", {"categories": ["c1", "c5"]}),
    ("exists (select from shop.events e where e.item_id = item.id and e.kind = 'purchase')", {}),
    ("title like '%lamp%' -- with a comment", {}),
    ("title like '%lamp%' /* with a /* nested */ comment */", {}),
    ("title = 'it''s' or title = $q$)$q$ or id = 7", {}),
    ("title ~ '^[a-z{}]+ \\w+ nr \\d+$' and '{id}' = '{id}' and array['{known}'] && array['{known}']", {}),
    ("category = '{c1}' or '{seen}' = 'true' or id < 5", {}),
    ("true", {}),
    ("(price > 10) = (price > 20)", {}),
    ("price > 10 is not false", {}),
    ("price is null or price % 7 = 0", {}),
    ("not (id = 1) and id::text <> 'args' and stock = 0", {}),
    ("case when price > 30 then category = 'c1' else category = 'c2' end", {}),
    ("'true'", {}),
    ("price > 30\nand price < 50", {}),
    ("args ->> 'x' = 'drop table'' or 1=1 --' or id = 3", {"x": "'); drop table shop.products; --"}),
    ("(args -> 'a' -> 0 ->> 'b')::int = id", {"a": [{"b": 9}]}),
    ("a.args is not null and price < 9", {}),
]


@pytest.mark.parametrize(("predicate", "arguments"), PREDICATES)
def test_predicates_mean_what_they_mean_in_sql(busy: Shop, predicate: str, arguments: dict[str, Any]) -> None:
    rows = busy.connection.execute(
        f"select item.id::text from shop.products item, (select %(args)s::jsonb as args) a where (\n{predicate.replace('%', '%%')}\n)".encode(),
        {"args": Jsonb(arguments)},
    ).fetchall()
    eligible = {row[0] for row in rows}
    for function, given in READS.items():
        items = [item for item, _, _ in busy.call(function, k=100, filter=predicate, filter_args=arguments, **given)]
        own = set(given.get("item_ids", [given.get("item")]))
        assert set(items) == eligible - own, function


@pytest.mark.parametrize(("predicate", "arguments"), PREDICATES)
def test_predicates_mean_the_same_through_the_index(busy: Shop, predicate: str, arguments: dict[str, Any]) -> None:
    """As if many rows were eligible."""
    vector = busy.value("select dynrec.item_vector_at('shop', '1')::text")
    statement = """
        select c.item_id, c.score from dynrec_data.recommender r, dynrec.{}(r, %(q)s, 100, '{{3}}', %(filter)s, %(args)s{}) c
    """
    given = {"q": vector, "filter": predicate, "args": Jsonb(arguments)}
    exact = busy.connection.execute(statement.format("_filtered_candidates", "").encode(), given).fetchall()
    through_index = busy.connection.execute(
        statement.format("_index_candidates", ", null, null").encode(), given
    ).fetchall()
    assert dict(through_index) == pytest.approx(dict(exact))


ESCAPES = [
    "true) or (true",
    "true) or exists (select from shop.events where (true",
    "false) union select 1 where (true",
    "true)) union all (select 1 where ((true",
    "true); drop table shop.products; --",
    "true; drop table shop.products",
    "1; select 1",
    ";",
    "",
    " ",
    "-- nothing",
    "/* nothing */",
    "/* open",
    "true /* open",
    "true -- ) and (",
    "true) -- ",
    "true) limit 1 --",
    "(true",
    "true))",
    ")(",
    "true], array[true",
    "true]::boolean[], array[(true",
    "true, true",
    "true as x",
    "true from shop.products --",
    "true order by 1",
    "true group by id",
    "true limit 1",
    "select true",
    "with x as (select 1) select true",
    "insert into shop.products values (1)",
    "exists (insert into shop.events (user_id) values ('x') returning 1)",
    "exists (with x as (delete from shop.products returning 1) select from x)",
    "id = $2",
    "$1",
    "$0 = 1",
    "id = any ($2)",
    "title = 'open",
    'title = "open',
    "title = $q$open",
    "title = $$ ) or ( $$ || 'a' || $$",
    "title = e'\\' or true) or ('1' = '1",
    "title = U&'\\0027) or (true",
    "1",
    "'yes please'",
    "title",
    "null::int",
    "row(true)",
    "array[true]",
    "count(*) > 0",
    "row_number() over () = 1",
    "unnest(array[true, false])",
    "no_such_column > 1",
    "no_such_function(id)",
    "item_id = '1'",
    "v.embedding is not null",
    "embedding is not null",
    "c.score > 0",
    "e.id = '1'",
    "excluded is null",
    "%s",
    "%I.%L",
    "id = %1$s",
    "{known}",
    "{model} = 1",
    "\\gexec",
    "true\x0b) or (\x0btrue",
    "true) and (select true",
    "true\n) or (\ntrue",
    "true) is not null or (true",
    "true)::boolean or (true",
    "true) = any (array[true]) or (true",
    "1 = 1) = (1 = 1",
    "execute 'drop table shop.products'",
    "do $$ begin end $$",
    "copy (select 1) to stdout",
    "true collate",
    "case when true then",
    "true and",
    "or true",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_but_a_predicate_is_accepted(busy: Shop, escape: str) -> None:
    harmless = {"true -- ) and (", "null::boolean"}  # the line break ends the comment
    for function, given in READS.items():
        if escape in harmless:
            busy.call(function, filter=escape, **given)
            continue
        with pytest.raises(psycopg.Error) as caught:
            busy.call(function, filter=escape, **given)
        assert caught.value.sqlstate == "22023", caught.value
        assert escape.strip("\x0b")[:5] in str(caught.value)
        assert "title" in (caught.value.diag.message_hint or "")
    assert busy.value("select count(*) from shop.products") == 60


def test_what_is_missing_is_named(busy: Shop) -> None:
    with pytest.raises(psycopg.Error) as caught:
        busy.recommend("u1", filter="prize > 5")
    assert "prize" in (caught.value.diag.message_detail or "")
    assert "price" in (caught.value.diag.message_hint or "")


def test_a_filter_that_raises_while_it_runs(busy: Shop) -> None:
    for function, given in READS.items():
        with pytest.raises(psycopg.errors.DivisionByZero):
            busy.call(function, k=100, filter="1 / (price - 30)::int < 5", **given)
        with pytest.raises(psycopg.DataError) as caught:
            busy.call(function, filter="price > (args ->> 'x')::numeric", filter_args={"x": "much"}, **given)
        assert "much" in f"{caught.value.diag.message_primary} {caught.value.diag.message_detail}"
    assert len(busy.recommend("u1")) == 10


def test_a_filter_that_never_holds(busy: Shop) -> None:
    for predicate in ("false", "null", "null::boolean", "price > null", "args ->> 'missing' = category"):
        for function, given in READS.items():
            assert busy.call(function, filter=predicate, **given) == []
            assert busy.call(function, filter=predicate, filter_args=None, **given) == []


def test_a_filter_cannot_write_in_a_read_only_transaction(busy: Shop) -> None:
    busy.execute("create sequence if not exists shop.s")
    busy.execute("set default_transaction_read_only = on")
    for function, given in READS.items():
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            busy.call(function, filter="nextval('shop.s') > 0", **given)


def test_a_filter_runs_with_the_rights_of_the_caller(busy: Shop) -> None:
    busy.execute(
        """
        create role reader_of_filters;
        grant dynrec_reader to reader_of_filters;
        grant usage on schema shop to reader_of_filters;
        grant select on shop.products to reader_of_filters;
        grant select (user_id, item_id, occurred_at, kind, value) on shop.events to reader_of_filters;
        create table shop.secrets (word text);
        set role reader_of_filters;
        """
    )
    try:
        for function, given in READS.items():
            assert busy.call(function, filter="price < 30", **given)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                busy.call(function, filter="exists (select from shop.secrets)", **given)
    finally:
        busy.execute(
            "reset role; drop owned by reader_of_filters; drop role reader_of_filters; drop table shop.secrets"
        )


def test_columns_named_like_ours(shop: Shop) -> None:
    shop.execute(
        """
        create table shop.odd (
            item_id int primary key, args int, a text, item text, v int, e int, id text, c int, embedding text, score int,
            created_at int, k int, k_name text);
        insert into shop.odd select i, i, 'a' || i, 'item' || i, i, i, 'id' || i, i, 'e' || i, i, i, i from generate_series(1, 9) i
        """
    )
    shop.execute("select dynrec.create_recommender('odd', 'shop.odd', text_columns => '{a}', encoder => 'hashing')")
    shop.drain()
    predicates = {
        "item_id = 3": "3",
        "item.args = 4": "4",
        "item.a = 'a5'": "5",
        "item.item = 'item6'": "6",
        "v = 7 and e = 7 and c = 7": "7",
        "id = 'id8'": "8",
        "item.embedding = 'e2' and score = 2 and created_at = 2 and k = 2": "2",
        "item.args = (a.args ->> 'n')::int": "9",
    }
    for predicate, expected in predicates.items():
        for function, given in (
            ("trending", {}),
            ("similar_items", {"item": "1"}),
            ("search", {"query": "a" + expected}),
        ):
            found = call(shop.connection, "odd", function, filter=predicate, filter_args={"n": 9}, **given)
            assert [item for item, _, _ in found] == [expected], (predicate, function)
    with pytest.raises(psycopg.Error) as caught:
        call(shop.connection, "odd", "trending", filter="args ->> 'n' = '9'")
    assert "ambiguous" in (caught.value.diag.message_detail or "")
