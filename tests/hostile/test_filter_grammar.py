"""Filters that are put together of pieces of SQL: what is accepted is a predicate, and nothing else is."""

import json
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.conftest import MakeDatabase
from tests.drain import Session
from tests.hostile import ledger
from tests.hostile.canary import SONG, has_sung
from tests.hostile.conftest import GiveUp, open_session
from tests.hostile.lexer import keeps_to_its_place
from tests.hostile.values import characters

READS: dict[str, str] = {
    "recommend": "dynrec.recommend('shop', 'u1', k => 100, exclude_seen => false, filter => %(filter)s, filter_args => %(args)s)",
    "recommend_for_items": "dynrec.recommend_for_items('shop', '{}', k => 100, filter => %(filter)s, filter_args => %(args)s)",
    "trending": "dynrec.trending('shop', k => 100, filter => %(filter)s, filter_args => %(args)s)",
    "search": "dynrec.search('shop', 'nr', k => 100, filter => %(filter)s, filter_args => %(args)s)",
}
ARGUMENTS = {"top": 7, "words": ["c1", "c2"], "hostile": f"'); select {SONG}; --"}

# Whole predicates, so that some of what comes out is one.
PREDICATES = [
    "true", "price > 5", "id % 2 = 0", "category in ('c1', 'c2')", "title like '%lamp%'", "price < (args ->> 'top')::numeric", "title = $q$;)$q$", "id = any (array[1, 2])",
    "exists (select from shop.events e where e.item_id = item.id)", "id in (select 1 union select 2 limit 5)", "args ->> 'hostile' <> title",
    "(select count(*) over () from shop.events limit 1) > 0", "title <> U&'d\\0061t'", "title <> e'\\'); --'", "null", "not (id = 3)", "case when id > 3 then true end",
]  # fmt: skip

# What could end the place that a filter is put in, begin another statement, or act.
PIECES = [
    "(", ")", "))", "((", "[", "]", "]::boolean[]", "array[", ") or (", ") and (", ", ", ";", "'", "''", '"', "$$", "$q$", "$", "\\", "\\'", "e'", "E'\\", "U&'\\0027", "U&\"", "N'", "B'1", "X'",
    "--", "--\n", "/*", "*/", "/* /* */", "\n", "\r", "\t", "\x0b", "\x0c", "\u00a0", "\u2028", "\ufeff", " or ", " and ", " not ", "is true", "= true", "::boolean", "::text", "::regclass", "||", "<", "~",
    "union select", "union all select 1", "except select", "intersect", "limit 1", "limit 0", "offset 1", "order by 1", "group by id", "having true", "where true", "from shop.products", "as x", "into x",
    "for update", "window w as ()", "returning 1", "tablesample system (1)", "fetch first 1 row only", "select true", "values (true)", "table shop.products", "lateral", "with x as (select 1)",
    "count(*) > 0", "sum(price) > 0", "row_number() over () = 1", "unnest(array[true, false])", "generate_series(1, 2) = 1", "grouping(id) = 0",
    f"; select {SONG}", f"union select {SONG}::text", "exists (with gone as (delete from shop.products returning 1) select from gone)",
    "(with x as (insert into shop.events (user_id) values ('x') returning 1) select true from x)", "shop.forbidden()", "shop.forbidden() and false",
    "drop table shop.products", "copy shop.products to program 'true'", "do $$ begin end $$", "set role postgres", "reset role", "commit", "rollback", "call shop.p()", "execute 'x'", "notify dynrec_wake", "lock shop.products",
    "$1", "$2", "$3", "$0", "%s", "%I", "%1$L", "{id}", "{known}", "{allowed}", ":x", "?", "@", "e.id", "v.embedding", "c.score > 0", "item_id", "args", "a.args", "item", "item.*", "*", "excluded", "filter_args", "r.name",
]  # fmt: skip

pieces = st.one_of(st.sampled_from(PREDICATES), st.sampled_from(PIECES), st.text(characters, max_size=3))
filters = st.builds(str.join, st.sampled_from(["", " ", "\n"]), st.lists(pieces, min_size=1, max_size=6))
leaps = st.sampled_from(
    [
        ") or (",
        ") and (",
        ")\nor\n(",
        ") is not null or (",
        ") = any (array[true]) or (",
        "), (",
        "] || array[",
        ") union select '1' where (",
    ]
)
mended = st.one_of(
    # out of one place and into another, with every bracket in its pair
    st.builds("{}{}{}".format, st.sampled_from(PREDICATES), leaps, st.sampled_from(PREDICATES)),
    st.builds("({} {})".format, filters, st.sampled_from(PREDICATES)),
    st.builds("{} or {}".format, st.sampled_from(PREDICATES), filters),
    st.builds("{} -- {}".format, st.sampled_from(PREDICATES), filters),
    st.builds("{} /* {} */".format, st.sampled_from(PREDICATES), filters),
    st.builds("{} <> '{}'".format, st.just("title"), filters),
    st.builds("title <> $x${}$x$".format, filters),
    st.builds('"{}" > 1'.format, filters),
)


@pytest.fixture(scope="module")
def reader(make_database: MakeDatabase, give_up_database: GiveUp, busy_template: str) -> Iterator[Session]:
    """A session of a role that may read and no more; a function that it may not execute calls the canary."""
    url = make_database(busy_template)
    with open_session(url) as connection:
        connection.execute(
            """
            create role reader_of_filters;
            grant dynrec_reader to reader_of_filters; grant usage on schema shop to reader_of_filters;
            grant select on all tables in schema shop to reader_of_filters;
            grant select on sequence public.canary to reader_of_filters;
            create function shop.forbidden() returns boolean language sql security definer as $$ select nextval('public.canary') > 0 $$;
            revoke execute on function shop.forbidden() from public;
            create function shop.who() returns boolean language plpgsql as $$ begin raise exception 'run by %', current_user; end $$;
            set role reader_of_filters;
            """
        )
        yield connection
        connection.execute("reset role; drop owned by reader_of_filters; drop role reader_of_filters")
    give_up_database(url)


def accepted(connection: Session, function: str, text: str) -> set[str]:
    """The items that a read with this filter gives."""
    statement = f"select item_id from {READS[function]}".encode()
    return {row[0] for row in connection.execute(statement, {"filter": text, "args": Jsonb(ARGUMENTS)}).fetchall()}


def plainly(connection: Session, text: str) -> set[str]:
    """The items for which it holds in a statement of the caller's own."""
    begin = sql.SQL("select item.id::text from shop.products item, lateral (select {}::jsonb as args) a where (\n")
    statement = begin.format(sql.Literal(json.dumps(ARGUMENTS))).as_string(connection) + text + "\n)"
    return {row[0] for row in connection.execute(statement.encode()).fetchall()}


def everything(connection: Session) -> object:
    """All rows, which the reader may not see, and the session."""
    held = ledger.session(connection)
    connection.execute("reset role")
    rows = ledger.rows(connection)
    connection.execute("set role reader_of_filters")
    return rows, held


def outcome(connection: Session, function: str, text: str) -> set[str] | psycopg.Error:
    """What a read answers."""
    try:
        return accepted(connection, function, text)
    except psycopg.Error as error:
        return error


@settings(max_examples=settings().max_examples * 20)
@given(st.sampled_from(sorted(READS)), st.one_of(filters, mended))
def test_what_is_accepted_is_a_predicate(reader: Session, function: str, text: str) -> None:
    before = everything(reader)
    answer = outcome(reader, function, text)
    if isinstance(answer, psycopg.Error):
        event(f"refused: {answer.sqlstate}")
        check_refusal(answer, text)
    else:
        event("accepted")
        assert keeps_to_its_place(text)
        assert answer == plainly(reader, text)
    assert not has_sung(reader)
    assert everything(reader) == before


def check_refusal(error: psycopg.Error, text: str) -> None:
    """A filter that is none is named; one that is may fail as it would in a statement of the caller's own."""
    if error.sqlstate == "22023":
        assert "filter is not a predicate" in (error.diag.message_primary or "")
        assert text[:20].replace("'", "''").replace("\\", "\\\\")[:20] in str(error)
        return
    assert keeps_to_its_place(text), error
    assert error.sqlstate is not None
    assert error.sqlstate == "42501" or error.sqlstate.startswith("22"), error


@pytest.mark.parametrize("function", sorted(READS))
def test_functions_run_with_the_rights_of_the_caller(reader: Session, function: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="forbidden"):
        accepted(reader, function, "shop.forbidden()")
    with pytest.raises(psycopg.errors.RaiseException, match="run by reader_of_filters"):
        accepted(reader, function, "shop.who()")
    assert not has_sung(reader)
