"""What cannot be declared: the error names the value and the remedy, and nothing is left behind."""

import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.drain import Session
from tests.sql.declaring import declare

TABLES = """
    create schema shop;
    create table shop.products (
        id bigint primary key, title text, price numeric, code text unique, ean text not null unique, part text not null,
        born timestamptz, weight money, location point, sku char(5) not null unique, expr text not null, lazy int not null,
        unique (part, id), unique (lazy) deferrable);
    create unique index on shop.products (lower(expr));
    create unique index on shop.products (part) where price > 0;
    create table shop.events (user_id bigint, item_id bigint, occurred_at timestamptz, kind text, value double precision, at time, j jsonb);
    create view shop.view as select * from shop.products;
    create materialized view shop.materialised as select * from shop.products;
    create sequence shop.sequence;
    create table shop.pair (a int, b int, title text, primary key (a, b));
    create temporary table temporary (id int primary key, title text);
    create table shop.parent (id int primary key, title text);
    create table shop.child () inherits (shop.parent);
"""
GOOD: dict[str, Any] = {"items": "shop.products", "text_columns": ["title"]}
BOTH: dict[str, Any] = {**GOOD, "interactions": "shop.events", "kind_column": "kind", "value_column": "value"}
CATALOG = """
    select 'relation', oid::regclass::text from pg_class where relnamespace in ('dynrec_data'::regnamespace, 'shop'::regnamespace)
    union all
    select 'function', oid::regprocedure::text from pg_proc where pronamespace in ('dynrec_data'::regnamespace, 'dynrec'::regnamespace)
    union all
    select 'trigger', tgrelid::regclass || tgname from pg_trigger where not tgisinternal
"""
ROWS = """
    select (select count(*) from dynrec_data.recommender), (select count(*) from dynrec_data.model_version),
        (select count(*) from dynrec_data.interaction_kind), (select count(*) from dynrec_data.task), (select count(*) from dynrec_data.change)
"""

WRONG: list[tuple[dict[str, Any], str]] = [
    # relations
    ({**GOOD, "items": "shop.nothing"}, r"shop\.nothing.*shop\.products"),
    ({**GOOD, "items": "products"}, r"products.*shop\.products"),
    ({**GOOD, "items": ""}, r"''"),
    ({**GOOD, "items": None}, "null"),
    ({**GOOD, "items": "a.b.c.d"}, r"a\.b\.c\.d"),
    ({**GOOD, "items": "other.shop.products"}, r"other\.shop\.products"),
    ({**GOOD, "items": "shop.products; drop table shop.products"}, "drop table"),
    ({**GOOD, "items": 'shop."products'}, "products"),
    ({**GOOD, "items": "shop.view"}, r"shop\.view.*table"),
    ({**GOOD, "items": "shop.materialised"}, r"shop\.materialised.*table"),
    ({**GOOD, "items": "shop.sequence"}, r"shop\.sequence"),
    ({**GOOD, "items": "pg_temp.temporary"}, "temporary"),
    ({**GOOD, "items": "shop.parent"}, "inheritance"),
    ({**GOOD, "items": "pg_catalog.pg_class"}, "pg_class"),
    ({**GOOD, "items": "dynrec_data.item_content", "item_key": "item_id"}, "item_content"),
    ({**BOTH, "interactions": "shop.missing"}, r"interactions.*shop\.missing.*shop\.events"),
    ({**BOTH, "interactions": "shop.view"}, r"interactions.*shop\.view"),
    # columns
    ({**GOOD, "text_columns": ["titel"]}, "titel.*id, title, price"),
    ({**GOOD, "text_columns": ["title", "title"]}, "twice.*title"),
    ({**GOOD, "text_columns": [None]}, "NULL"),
    ({**GOOD, "text_columns": [["title"], ["code"]]}, "title"),
    ({**GOOD, "text_columns": None}, "null"),
    ({**GOOD, "text_columns": ["ctid"]}, "ctid"),
    ({**GOOD, "text_columns": [""]}, "''"),
    ({"items": "shop.products"}, "column"),
    ({"items": "shop.products", "numeric_columns": ["price"]}, "column"),
    ({**GOOD, "numeric_columns": ["title"]}, "title.*text"),
    ({**GOOD, "numeric_columns": ["prize"]}, "prize.*price"),
    ({**GOOD, "categorical_columns": ["kategory"]}, "kategory"),
    ({**GOOD, "vector_column": "title"}, "title.*text"),
    ({**GOOD, "vector_column": "embedding"}, "embedding"),
    # keys
    ({**GOOD, "items": "shop.pair"}, r"primary key.*shop\.pair"),
    ({**GOOD, "items": "shop.pair", "item_key": "a"}, "unique.*a"),
    ({**GOOD, "item_key": "nr"}, "nr.*id, title"),
    ({**GOOD, "item_key": "code"}, "nullable.*code"),
    ({**GOOD, "item_key": "part"}, "unique.*part"),
    ({**GOOD, "item_key": "expr"}, "unique.*expr"),
    ({**GOOD, "item_key": "lazy"}, "unique.*lazy"),
    ({**GOOD, "item_key": "price"}, "numeric.*uuid"),
    ({**GOOD, "item_key": "sku"}, "character.*uuid"),
    ({**BOTH, "user_column": "user"}, "user.*user_id"),
    ({**BOTH, "user_column": None}, "user_column.*null"),
    ({**BOTH, "user_column": "value"}, "double precision"),
    ({**BOTH, "item_column": "item"}, "item.*item_id"),
    ({**BOTH, "item_column": "j"}, "jsonb"),
    ({**BOTH, "time_column": "time"}, "time.*occurred_at"),
    ({**BOTH, "time_column": "at"}, "time without time zone"),
    ({**BOTH, "time_column": "user_id"}, "bigint"),
    ({**BOTH, "kind_column": "kinds"}, "kinds.*kind"),
    ({**BOTH, "value_column": "kind"}, "text"),
    # encoders
    ({**GOOD, "encoder": "gpt-9"}, "gpt-9.*hashing"),
    ({**GOOD, "encoder": None}, "null.*hashing"),
    # kinds
    ({**BOTH, "kinds": {"a": 1}}, "a.*1"),
    ({**BOTH, "kinds": {"a": {"wait": 1}}}, "wait.*weight"),
    ({**BOTH, "kinds": {"a": {"weight": "1"}}}, "a.*weight"),
    ({**BOTH, "kinds": {"a": {"weight": None}}}, "a.*weight"),
    ({**BOTH, "kinds": {"a": {"weight": 1e9}}}, "1000000000"),
    ({**BOTH, "kinds": {"a": {"half_life": "soon"}}}, "soon"),
    ({**BOTH, "kinds": {"a": {"half_life": "0 seconds"}}}, "0 seconds"),
    ({**BOTH, "kinds": {"a": {"half_life": "-3 days"}}}, "-3 days"),
    ({**BOTH, "kinds": {"a": {"half_life": "1000 years"}}}, "1000 years"),
    ({**BOTH, "kinds": {"a": {"half_life": None}}}, "half_life"),
    ({**BOTH, "kinds": {"a": {"half_life": 5}}}, "half_life"),
    ({**BOTH, "kinds": {"a": {"half_life": " 30 "}}}, "' 30 '"),
    ({**BOTH, "kinds": Jsonb([])}, "object"),
    ({**GOOD, "interactions": "shop.events", "kinds": {"a": {"weight": 1}}}, "kind_column"),
    ({**GOOD, "kinds": {"a": {"weight": 1}}}, "interactions"),
    # options
    ({**GOOD, "options": {"half_live": "1 day"}}, "half_live.*half_life"),
    ({**GOOD, "options": {"half_life": "1 fortnight of days"}}, "fortnight"),
    ({**GOOD, "options": {"half_life": None}}, "half_life"),
    ({**GOOD, "options": {"half_life": "infinity"}}, "infinity"),
    ({**GOOD, "options": {"trending_half_life": "0"}}, "trending_half_life"),
    ({**GOOD, "options": {"retention": "1 hour"}}, "1 hour"),
    ({**GOOD, "options": {"exclude_seen": "yes"}}, "yes"),
    ({**GOOD, "options": {"max_attempts": 0}}, "0"),
    ({**GOOD, "options": {"max_attempts": 1.5}}, "1.5"),
    ({**GOOD, "options": {"text_search_config": "klingon"}}, "klingon.*english"),
    ({**GOOD, "options": Jsonb([])}, "object"),
    # names
    ({**GOOD, "name": None}, "null"),
    ({**GOOD, "name": ""}, "''"),
    ({**GOOD, "name": " x"}, "' x'"),
    ({**GOOD, "name": "x" * 64}, "xxx"),
    ({**GOOD, "name": "\n"}, "name"),
]


@pytest.fixture
def tables(connection: Session) -> Session:
    connection.execute(TABLES)
    return connection


def snapshot(connection: Session) -> tuple[Any, ...]:
    return sorted(connection.execute(CATALOG).fetchall()), connection.execute(ROWS).fetchall()


def test_every_error_names_the_value_and_leaves_nothing_behind(tables: Session) -> None:
    before = snapshot(tables)
    problems = []
    for arguments, pattern in WRONG:
        given = {"name": "wrong", **arguments}
        try:
            declare(tables, **given)
        except psycopg.Error as error:
            text = f"{error.diag.message_primary} {error.diag.message_hint}"
            if not re.search(pattern, text, re.DOTALL):
                problems.append(f"{arguments}: {text}")
            if str(error.sqlstate)[:2] not in {"22", "42"} or not error.diag.message_hint:
                problems.append(f"{arguments}: {error.sqlstate}, hint {error.diag.message_hint}")
        else:
            problems.append(f"{arguments} was accepted")
            tables.execute("select dynrec.drop_recommender(name) from dynrec_data.recommender")
    assert not problems, "\n".join(problems)
    assert snapshot(tables) == before


def test_virtual_generated_columns(tables: Session) -> None:
    if tables.info.server_version < 180000:
        pytest.skip("PostgreSQL 18 brought them")
    tables.execute(
        "alter table shop.products add column v text generated always as (title || '!') virtual, "
        "add column s text generated always as (title || '!') stored"
    )
    with pytest.raises(psycopg.Error, match="virtual"):
        declare(tables, "virtual", **{**GOOD, "text_columns": ["v"]})
    declare(tables, "stored", **{**GOOD, "text_columns": ["s"]})


def test_a_name_that_is_taken(tables: Session) -> None:
    declare(tables, "taken", **GOOD)
    before = snapshot(tables)
    with pytest.raises(psycopg.Error, match="taken"):
        declare(tables, "taken", **BOTH)
    assert snapshot(tables) == before


def test_a_database_without_tables_says_so(connection: Session) -> None:
    with pytest.raises(psycopg.Error) as caught:
        declare(connection, "none", items="public.t", text_columns=["a"])
    assert "no tables" in (caught.value.diag.message_hint or "")


def test_what_fails_at_the_end_is_undone_as_a_whole(tables: Session) -> None:
    before = snapshot(tables)
    tables.execute(
        """
        create function refuse() returns event_trigger language plpgsql as $$ begin raise exception 'no triggers today'; end $$;
        create event trigger refuse on ddl_command_end when tag in ('CREATE TRIGGER') execute function refuse();
        """
    )
    with pytest.raises(psycopg.Error, match="no triggers today"):
        declare(tables, "failing", **BOTH)
    tables.execute("drop event trigger refuse; drop function refuse")
    assert snapshot(tables) == before
    declare(tables, "failing", **BOTH)


def test_a_lock_that_is_not_to_be_had(tables: Session, database_url: str) -> None:
    declare(tables, "first", **GOOD)
    before = snapshot(tables)
    with psycopg.connect(database_url) as other:
        other.execute("lock table shop.events in row exclusive mode")
        tables.execute("alter function dynrec.create_recommender set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            declare(tables, "waiting", **BOTH)
    assert snapshot(tables) == before


def test_what_a_role_may_not_do(tables: Session) -> None:
    tables.execute(
        "create role reader_of_a_test; grant dynrec_reader to reader_of_a_test; grant usage on schema shop to reader_of_a_test"
    )
    tables.execute("grant select on all tables in schema shop to reader_of_a_test")
    before = snapshot(tables)
    tables.execute("set role reader_of_a_test")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        declare(tables, "forbidden", **BOTH)
    tables.execute("reset role")
    assert snapshot(tables) == before
    tables.execute("drop owned by reader_of_a_test; drop role reader_of_a_test")
