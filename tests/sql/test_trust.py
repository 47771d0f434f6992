"""Whose tables are read: the owner of a table can make whoever reads it run code, and nobody but a trusted one gets to do that."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import LiteralString

import psycopg
import pytest

from tests.conftest import Prepare
from tests.drain import Session, drain
from tests.sql import tenants
from tests.sql.tenants import Market, heard
from tests.sql.test_definers import definers, given

OWNER = "hostile_owner"
# A sequence remembers what a transaction that fails takes back. Called by the planner, too, which calls what is immutable.
CANARY: LiteralString = """
    create schema hostile authorization hostile_owner;
    create sequence hostile.struck;
    grant usage on sequence hostile.struck to hostile_owner;
    create function hostile.strike(anyelement) returns anyelement language plpgsql immutable as
      'begin if current_user <> ''hostile_owner'' then perform pg_catalog.nextval(''hostile.struck''); end if; return $1; end';
"""
# What the owner of a table can do to it so that others run his code when they read it, or when he writes.
TRAPS: Mapping[str, LiteralString] = {
    "predicate of an index": "create index on {table} (id) where hostile.strike(1) = 1",
    "expression of an index": "create index on {table} ((id || hostile.strike('x'::text)))",
    "statistics": "create statistics on (id || hostile.strike('x'::text)), {text} from {table}; analyze {table}",
    "cast of a type": """
        create type hostile.sly as (inside text);
        create function hostile.reveal(hostile.sly) returns text language sql as 'select hostile.strike($1.inside)';
        create function hostile.wrap(text) returns hostile.sly language sql as 'select row($1)::hostile.sly';
        create cast (hostile.sly as text) with function hostile.reveal as implicit;
        alter table {table} alter {text} type hostile.sly using hostile.wrap({text})""",
    "view in its place": """
        alter table {table} rename to moved;
        create view {table} as select * from {schema}.moved where hostile.strike(1) = 1""",
    "view in its place, its own gone": """
        create table {schema}.moved as select * from {table};
        drop table {table};
        create view {table} as select * from {schema}.moved where hostile.strike(1) = 1""",
}
PLACES = {"items": ("market.products", "title"), "interactions": ("market.events", "kind")}


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(tenants.busy_market).name if "market" in request.fixturenames else beginning


@pytest.fixture
def market(connection: Session, prepared: Prepare) -> Iterator[Market]:
    """A market in full use, and a role that may come to own its tables."""
    made = replace(prepared(tenants.busy_market).made, connection=connection)
    connection.execute("alter table market.events add id text not null default gen_random_uuid()")
    connection.execute(f"create role {OWNER}".encode())
    connection.execute(CANARY)
    connection.execute(f"grant usage, create on schema market to {OWNER}".encode())
    connection.execute("set statement_timeout = '20 s'")
    yield made
    tenants.reset(connection)
    connection.execute(f"drop owned by {OWNER} cascade; drop role {OWNER}".encode())


def as_owner(connection: Session, statement: LiteralString, table: str, text: str) -> None:
    """Have the role do something with a table."""
    schema = table.partition(".")[0]
    filled = statement.format(table=table, text=text, schema=schema)
    connection.execute(f"set role {OWNER}".encode())
    connection.execute(filled.encode())
    connection.execute("reset role")


def hand_over(connection: Session, *tables: str) -> None:
    """The role owns the tables from now on."""
    for table in tables or ("market.products", "market.events"):
        connection.execute(f"alter table {table} owner to {OWNER}".encode())


def struck(connection: Session) -> bool:
    """Whether the owner's code has run with the rights of anybody else."""
    ((called,),) = connection.execute("select is_called from hostile.struck").fetchall()
    return bool(called)


def provoke(market: Market, table: str) -> None:
    """Whatever runs as the owner of dynrec: functions of each role, the triggers, all the work that waits."""
    connection = market.connection
    token = connection.execute("select token from dynrec_data.lease limit 1").fetchone()
    connection.execute("select dynrec._queue_batch(r), dynrec._queue_backfill(r) from dynrec_data.recommender r")
    for _, function in definers(market):
        for statement in function.calls(given(market)):
            connection.execute("begin")
            heard(connection, statement.replace("null::uuid", f"'{token[0]}'::uuid") if token else statement)
            connection.execute("rollback")
    heard(connection, f"set role {OWNER}")
    # to these functions the rows of a view come as well: only a table has the triggers
    heard(connection, f"insert into {table} select * from {table} where false")
    heard(connection, f"update {table} set tenant = tenant || 'x' where true")
    heard(connection, f"delete from {table}")
    heard(connection, "reset role")


def work(connection: Session) -> None:
    """Do what waits, as far as it can be done."""
    connection.execute("update dynrec_data.recommender set paused = false")
    with suppress(psycopg.Error):
        drain(connection)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("trap", TRAPS)
def test_no_code_of_somebody_untrusted_is_run(market: Market, trap: str, place: str) -> None:
    connection, (table, text) = market.connection, PLACES[place]
    hand_over(connection, table)
    as_owner(connection, TRAPS[trap], table, text)
    provoke(market, table)
    work(connection)
    assert not struck(connection)


# A type whose casts are the owner's, to what a column was: {type}.
SLY: LiteralString = """
    create type hostile.sly as (inside {type});
    create function hostile.reveal(hostile.sly) returns {type} language plpgsql immutable as 'begin return hostile.strike($1.inside); end';
    create function hostile.wrap({type}) returns hostile.sly language plpgsql immutable as 'begin perform hostile.strike(1); return row($1)::hostile.sly; end';
    create cast (hostile.sly as {type}) with function hostile.reveal as implicit;
    create cast ({type} as hostile.sly) with function hostile.wrap as implicit;
    alter table {table} alter {column} drop default, alter {column} type hostile.sly using row({column})::hostile.sly
"""
COLUMNS = [
    ("market.products", "id", "text"),
    ("market.products", "title", "text"),
    ("market.products", "price", "numeric"),
    ("market.events", "user_id", "text"),
    ("market.events", "item_id", "text"),
    ("market.events", "kind", "text"),
    ("market.events", "value", "double precision"),
    ("market.events", "occurred_at", "timestamptz"),
]


@pytest.mark.parametrize(("table", "column", "type_"), COLUMNS)
def test_no_write_runs_a_cast_of_the_type_of_a_column(market: Market, table: str, column: str, type_: str) -> None:
    connection = market.connection
    hand_over(connection, table)
    connection.execute(f"set role {OWNER}".encode())
    connection.execute(SLY.format(table=table, column=column, type=type_).encode())
    connection.execute("reset role")
    with pytest.raises(psycopg.errors.AmbiguousFunction) if column == "value" else nullcontext():
        connection.execute(f"update {table} set tenant = tenant || 'x', {column} = {column}".encode())
        connection.execute(f"create temporary table kept as table {table}".encode())
        connection.execute(f"delete from {table}".encode())
        connection.execute(f"insert into {table} table kept".encode())
    assert not struck(connection)


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if "view" not in trap])
def test_the_trap_shuts_where_the_owner_is_trusted(market: Market, trap: str) -> None:
    connection, (table, text) = market.connection, PLACES["items"]
    hand_over(connection, table)
    connection.execute("select dynrec.trust_owner(%s)", [OWNER])
    as_owner(connection, TRAPS[trap], table, text)
    provoke(market, table)
    assert struck(connection)


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if "view" in trap])
def test_not_even_a_trusted_owner_puts_a_view_in_its_place(market: Market, trap: str) -> None:
    connection, (table, text) = market.connection, PLACES["items"]
    hand_over(connection, table)
    connection.execute("select dynrec.trust_owner(%s)", [OWNER])
    as_owner(connection, TRAPS[trap], table, text)
    provoke(market, table)
    assert not struck(connection)


@pytest.mark.parametrize("place", PLACES)
def test_a_table_of_somebody_untrusted_is_not_declared(market: Market, place: str) -> None:
    connection, (_, text) = market.connection, PLACES[place]
    connection.execute("create table market.more (like market.products including all)")
    connection.execute("create table market.less (like market.events including all)")
    items, events = ("market.more", "market.less")
    its = items if place == "items" else events
    hand_over(connection, its)
    as_owner(connection, TRAPS["predicate of an index"], its, text)
    declare = "select dynrec.create_recommender('more', %s, text_columns => '{title}', interactions => %s, encoder => 'hashing')"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"{its} belongs to {OWNER}") as refused:
        connection.execute(declare, [items, events])
    assert "dynrec.trust_owner('hostile_owner')" in str(refused.value.diag.message_hint)
    assert not struck(connection)
    connection.execute("select dynrec.trust_owner(%s)", [OWNER])
    connection.execute(declare, [items, events])


def test_a_vector_column_is_not_even_looked_at(market: Market) -> None:
    connection = market.connection
    as_owner(
        connection,
        """
        create type hostile.vector as (inside text);
        create function hostile.reveal(hostile.vector) returns public.vector language sql as 'select hostile.strike($1.inside)::public.vector';
        create cast (hostile.vector as public.vector) with function hostile.reveal;
        create table {table} (id text primary key, embedding hostile.vector);
        insert into {table} values ('1', row('[1,2]'))""",
        "hostile.things",
        "",
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select dynrec.create_recommender('more', 'hostile.things', vector_column => 'embedding')")
    assert not struck(connection)


def test_a_partition_of_somebody_untrusted_counts(market: Market) -> None:
    connection = market.connection
    connection.execute(
        """
        create table market.parted (id text primary key, title text) partition by list (id);
        create table market.part partition of market.parted default;
        insert into market.parted values ('1', 'a lamp')
        """
    )
    hand_over(connection, "market.part")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select dynrec.create_recommender('more', 'market.parted', text_columns => '{title}')")


def test_a_recommender_is_paused_and_goes_on_when_its_owner_is_trusted(market: Market) -> None:
    connection = market.connection
    connection.execute("create table market.more (id text primary key, title text)")
    connection.execute(
        "select dynrec.create_recommender('more', 'market.more', text_columns => '{title}', encoder => 'hashing')"
    )
    drain(connection)
    hand_over(connection, "market.more")
    connection.execute("select dynrec.refresh('market'); select dynrec._queue_backfill(dynrec._recommender('more'))")
    connection.execute("insert into market.more values ('1', 'not captured')")
    connection.execute("update market.products set title = title || ' more'")
    drain(connection)
    paused = "select recommender, paused from dynrec.status order by recommender"
    assert connection.execute(paused).fetchall() == [("market", False), ("more", True)]
    found = connection.execute(
        "select finding from dynrec.doctor() where subject = 'more' and severity = 'error'"
    ).fetchall()
    assert found == [
        (
            f"market.more belongs to {OWNER}, whom the owner of dynrec does not trust: nothing is read, and changes are looked for when it is",
        )
    ]
    connection.execute("select dynrec.trust_owner(%s)", [OWNER])
    connection.execute("select dynrec.resume('more')")
    drain(connection)
    held = "select item_id from dynrec_data.item_content join dynrec_data.recommender r on r.id = recommender_id where r.name = 'more'"
    assert connection.execute(held).fetchall() == [("1",)]
    connection.execute("insert into market.more values ('2', 'captured')")
    drain(connection)
    assert connection.execute(f"{held} order by 1".encode()).fetchall() == [("1",), ("2",)]
    connection.execute("select dynrec.distrust_owner(%s)", [OWNER])
    connection.execute("insert into market.more values ('3', 'not captured')")
    connection.execute("select dynrec.trust_owner(%s)", [OWNER])
    drain(connection)
    assert connection.execute(f"{held} order by 1".encode()).fetchall() == [("1",), ("2",), ("3",)]
    connection.execute("select dynrec.distrust_owner(%s)", [OWNER])
    connection.execute("insert into market.more values ('4', 'not captured')")
    drain(connection)
    assert len(connection.execute(held).fetchall()) == 3


def test_who_may_act_as_the_owner_needs_no_trust(market: Market) -> None:
    connection = market.connection
    connection.execute("create table market.more (id text primary key, title text)")
    hand_over(connection, "market.more")
    connection.execute(f"grant postgres to {OWNER}".encode())
    connection.execute(
        "select dynrec.create_recommender('more', 'market.more', text_columns => '{title}', encoder => 'hashing')"
    )


def test_trust_is_the_owners_to_give(market: Market) -> None:
    connection = market.connection
    for role in ("dynrec_admin", "dynrec_worker", "dynrec_writer", "dynrec_reader"):
        connection.execute(f"set role {role}".encode())
        for call in ("trust_owner", "distrust_owner"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select dynrec.{call}('postgres')".encode())
        connection.execute("reset role")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no such role: 'nobody'"):
        connection.execute("select dynrec.trust_owner('nobody')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not among the trusted ones"):
        connection.execute("select dynrec.distrust_owner(%s)", [OWNER])
