"""Callers who put objects of their own in the way: functions, operators, tables and types that are named like others."""

from collections.abc import Iterator

import pytest

from tests.drain import Session, drain
from tests.sql import asking, tenants
from tests.sql.tenants import ANT, Market, acting, heard

# Each does what the original does, and notes when somebody else than the caller runs it.
FUNCTIONS = {
    "format(text, text)": ("text", "pg_catalog.format($1, $2)"),
    "format(text, text, text)": ("text", "pg_catalog.format($1, $2, $3)"),
    "format(text, integer)": ("text", "pg_catalog.format($1, $2)"),
    "lower(text)": ("text", "pg_catalog.lower($1)"),
    "now()": ("timestamptz", "pg_catalog.now()"),
    "clock_timestamp()": ("timestamptz", "pg_catalog.clock_timestamp()"),
    "jsonb_typeof(jsonb)": ("text", "pg_catalog.jsonb_typeof($1)"),
    "sha256(bytea)": ("bytea", "pg_catalog.sha256($1)"),
    "hashtext(text)": ("integer", "pg_catalog.hashtext($1)"),
    "same(text, text)": ("boolean", "$1 operator(pg_catalog.=) $2"),
    "same(integer, integer)": ("boolean", "$1 operator(pg_catalog.=) $2"),
    "joined(text, text)": ("text", "$1 operator(pg_catalog.||) $2"),
}
OBJECTS = """
    create operator {0}.= (function = {0}.same, leftarg = text, rightarg = text);
    create operator {0}.= (function = {0}.same, leftarg = integer, rightarg = integer);
    create operator {0}.|| (function = {0}.joined, leftarg = text, rightarg = text);
    create table {0}.recommender as select 1 as id, 'market'::text as name, 'pg_class'::regclass as items;
    create table {0}.change (id bigint);
    create table {0}.model_version (id int);
    create type {0}.vector as (x int);
    create domain {0}.interval as text check ({0}.same(value, value))
"""


def trojans(schema: str) -> str:
    """The statements that make them in a schema."""
    body = "begin if current_user operator(pg_catalog.<>) 'tenant_ant' then perform pg_catalog.nextval('public.struck'); end if; return {}; end"
    made = [
        f"create function {schema}.{signature} returns {kind} language plpgsql as $f${body.format(original)}$f$"
        for signature, (kind, original) in FUNCTIONS.items()
    ]
    return "; ".join([*made, OBJECTS.format(schema)])


@pytest.fixture(params=["lair", "pg_temp"])
def market(request: pytest.FixtureRequest, connection: Session) -> Iterator[Market]:
    """A market in full use, and a caller with every role of dynrec who looks at his own objects first, even before pg_catalog."""
    made = tenants.busy_market(connection)
    connection.execute("create sequence public.struck; grant all on sequence public.struck to public")
    with tenants.roles(connection, grants=[*tenants.READ, "all on all tables in schema market"]):
        connection.execute(
            f"create schema lair authorization {ANT}; grant dynrec_admin, dynrec_worker to {ANT}".encode()
        )
        connection.execute(f"set role {ANT}".encode())
        connection.execute(trojans(request.param).encode())
        connection.execute("reset role")
        connection.execute("select set_config('test.path', %s, false)", [request.param])
        yield made


def hostile(connection: Session) -> None:
    """Their own schema comes before pg_catalog."""
    connection.execute(
        "select set_config('search_path', current_setting('test.path') operator(pg_catalog.||) ', pg_catalog, public', false)"
    )


def assert_alone(connection: Session) -> None:
    """Nobody but the caller ran the caller's code."""
    assert connection.execute("select is_called from public.struck").fetchone() == (False,)


def test_the_owner_runs_nothing_of_the_callers(market: Market) -> None:
    connection = market.connection
    given = {"model": market.model, "since": market.since, "recommender": "market", "schema": "market"}
    functions = asking.functions(connection)
    with acting(connection):
        hostile(connection)
        for function in functions:
            if "drop_recommender" not in function.name and not function.qualified.startswith("dynrec_data."):
                heard(connection, next(function.calls(given)))
        # triggers run as the owner, too
        connection.execute("insert into market.products (id, title, tenant) values ('ant-99', 'late', 'tenant_ant')")
        connection.execute("update market.products set title = 'later', id = 'ant-98' where id = 'ant-99'")
        connection.execute("insert into market.events values ('ant-user1', 'ant-98', 'view', 1, now(), 'x')")
        connection.execute(
            "update market.events set value = 2 where item_id = 'ant-98'; delete from market.events where item_id = 'ant-98'"
        )
        connection.execute("delete from market.products where id = 'ant-98'; truncate market.events")
        heard(connection, "select dynrec.drop_recommender('market')")
    assert_alone(connection)


def test_objects_in_schema_public_that_nobody_may_make_are_reported(connection: Session) -> None:
    def findings() -> list[tuple[str, str]]:
        return connection.execute(
            "select severity, remedy from dynrec.doctor() where finding like '%may create objects in schema public%'"
        ).fetchall()

    assert findings() == []
    connection.execute("grant create on schema public to public")
    assert findings() == [("error", "revoke create on schema public from public")]
    connection.execute(findings()[0][1].encode())
    assert findings() == []


def test_a_reader_of_a_shared_market_cannot_be_fooled_by_temporary_tables(market: Market) -> None:
    connection = market.connection
    before = connection.execute("select * from dynrec.recommend('market', 'ant-user1')").fetchall()
    with acting(connection):
        hostile(connection)
        after = connection.execute("select * from dynrec.recommend('market', 'ant-user1')").fetchall()
    assert [row[0] for row in after] == [row[0] for row in before]
    drain(connection)
    assert_alone(connection)
