"""Functions that run as their owner: each has to, and none lets its caller run code as the owner."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests import learned
from tests.conftest import Prepare
from tests.drain import Session, drain
from tests.sql import asking, tenants
from tests.sql.shop import NOON, Event, Shop
from tests.sql.tenants import Market, heard

DEFINERS = """
    select f.role, p.oid::regprocedure::text from dynrec._role_functions() f
    join pg_proc p on p.proname = f.name and p.pronamespace = 'dynrec'::regnamespace where p.prosecdef order by 2
"""
# A sequence remembers what a transaction that fails takes back.
CANARY = """
    create sequence public.struck;
    create function public.strike(what text) returns text language plpgsql as
      'begin perform pg_catalog.nextval(''public.struck''); return $1; end';
    grant all on sequence public.struck to public
"""
FRAGMENTS = (
    "x'); select public.strike('quote'); --",
    "x'::text; select public.strike('cast'); --",
    "x\"); select public.strike('identifier'); --",
    "$$; select public.strike('dollars'); $$",
    "$body$; select public.strike('body'); $body$",
    "' || public.strike('concatenation') || '",
    "public.strike('bare')",
    "x\\'); select public.strike('backslash'); --",
    "{items} %s %I %L {id}",
    "*/ select public.strike('comment') /*",
    "1); select public.strike('number'); --",
)


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(tenants.busy_market).name if "market" in request.fixturenames else beginning


@pytest.fixture
def market(connection: Session, prepared: Prepare) -> Iterator[Market]:
    """A market in full use, and a function that tells when it was called."""
    connection.execute(CANARY)
    made = replace(prepared(tenants.busy_market).made, connection=connection)
    connection.execute("set statement_timeout = '20 s'")
    yield made
    tenants.reset(connection)


def assert_alive(connection: Session) -> None:
    """The canary was not struck."""
    assert connection.execute("select is_called from public.struck").fetchone() == (False,)


# What moves a replication slot, a right that few roles have: without a slot there is nothing to do.
OF_A_SLOT = {"dynrec._advance_stream(pg_lsn)"}


def given(market: Market) -> dict[str, object]:
    """What to ask about."""
    return {"model": market.model, "since": market.since, "recommender": "market", "schema": "market"}


def definers(market: Market) -> list[tuple[str, asking.Function]]:
    """The functions that run as their owner, with the role that they are for."""
    functions = {function.signature: function for function in asking.functions(market.connection)}
    return [(role, functions[signature]) for role, signature in market.connection.execute(DEFINERS).fetchall()]


def test_each_has_to_run_as_its_owner(market: Market) -> None:
    market.connection.execute("drop index dynrec_data.item_vector_1_hnsw")
    market.connection.execute("select dynrec.refresh('market', '{ant-01}')")
    found = definers(market)
    assert len(found) > 50
    for role, function in found:
        if function.signature in OF_A_SLOT:
            continue
        statement = next(function.calls(given(market)))
        market.connection.execute("begin")
        market.connection.execute(
            f"alter function {function.signature} security invoker; set local role {role}".encode()
        )
        said = heard(market.connection, statement)
        assert said.startswith("error: permission denied"), f"{role} needs no rights of the owner: {statement}: {said}"
        market.connection.execute("rollback")


def test_no_argument_is_run(market: Market) -> None:
    connection = market.connection
    for role, function in definers(market):
        for place, kind in enumerate(function.types):
            if kind not in {"text", "text[]", "jsonb"}:
                continue
            for fragment in FRAGMENTS:
                connection.execute(f"begin; set local role {role}".encode())
                heard(connection, _with(function, market, place, fragment))
                connection.execute("rollback" if connection.info.transaction_status == INERROR else "commit")
                if connection.execute("select * from dynrec_data.recommender where name = 'market'").fetchone() is None:
                    pytest.fail(f"{function.signature} dropped it: {fragment}")
    drain(connection)
    heard(connection, "select * from dynrec.recommend('market', 'ant-user1')")
    assert_alive(connection)


INERROR = psycopg.pq.TransactionStatus.INERROR


def quoted(fragment: str) -> str:
    """A text as SQL writes it."""
    return "'" + fragment.replace("'", "''") + "'"


def _with(function: asking.Function, market: Market, place: int, fragment: str) -> str:
    # the call with a fragment in place of one argument
    literal = quoted(fragment)
    forms = {
        "text": literal,
        "text[]": f"array[{literal}]",
        "jsonb": f"jsonb_build_object({literal}, {literal}, 'weight', {literal}, '*', jsonb_build_object('weight', 1, 'half_life', {literal}))",
    }
    kind = function.types[place]
    return function.call(given(market), {place: f"{forms[kind]}::{kind}"})


def test_names_of_the_application_are_not_run(market: Market) -> None:
    connection = market.connection
    for number, fragment in enumerate(FRAGMENTS):
        name = '"' + fragment.replace('"', '""')[:55] + '"'
        connection.execute(
            f"create schema {name}; create table {name}.{name} (id text primary key, {name} text)".encode()
        )
        connection.execute(
            f"create table {name}.e ({name} text, i text, t timestamptz, k text); insert into {name}.{name} values ('1', 'a lamp')".encode()
        )
        column, literal = fragment[:55], quoted(fragment)
        connection.execute("set role dynrec_admin")
        connection.execute(
            """
            select dynrec.create_recommender(%(name)s, %(items)s, text_columns => array[%(column)s], categorical_columns => array[%(column)s],
                interactions => %(events)s, user_column => %(column)s, item_column => 'i', time_column => 't', kind_column => 'k',
                kinds => %(kinds)s, encoder => 'hashing')
            """,
            {
                "name": fragment,
                "items": f"{name}.{name}",
                "events": f"{name}.e",
                "column": column,
                "kinds": json.dumps({fragment: {"weight": 1, "half_life": "1 day"}}),
            },
        )
        connection.execute("reset role")
        connection.execute(f"insert into {name}.e values ({literal}, '1', now(), {literal})".encode())
        connection.execute(
            "select dynrec.stage_model(%s, options => %s)", [fragment, json.dumps({"features": {fragment: 1.0}})]
        )
        drain(connection)
        rows = connection.execute(
            "select item_id from dynrec.recommend(%s, %s, exclude_seen => false)", [fragment, fragment]
        ).fetchall()
        assert rows == [("1",)], number
        heard(connection, "select * from dynrec.doctor()")
    assert_alive(connection)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to the first leaf of each list, and to every leaf and key of objects."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*path, 0))
    else:
        yield path


def test_no_part_of_a_trained_model_is_run(shop: Shop) -> None:
    connection = shop.connection
    connection.execute(CANARY)
    shop.add_events([Event("u", str(n), NOON, "view") for n in (1, 2, 3)])
    shop.drain()
    config = learned.make_config()
    paths = list(leaves(config))
    assert len(paths) > 20
    for path in paths:
        for fragment in ("public.strike('model')::float8", {"1); select public.strike('model'); --": 1}):
            changed = deepcopy(config)
            inner: Any = changed
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = fragment
            _store(connection, changed)
    for fragment in FRAGMENTS:
        named = config["kind_weights"] | {fragment: 1.0}
        assert _store(connection, config | {"kind_weights": named, fragment: 1.0}), "a kind of any name is one"
    assert_alive(connection)


def _store(connection: Session, config: dict[str, Any]) -> bool:
    # what a worker hands in, and what is made of it; whether it is taken
    try:
        model = learned.stage(connection, config)
    except psycopg.Error:
        return False
    learned.backfill(connection)
    connection.execute("select * from dynrec.recommend('shop', 'u', by_model => %s)", [model])
    connection.execute("select dynrec.promote_model('shop', %s, force => true)", [model])
    connection.execute("select * from dynrec.explain('shop', 'u', '1')")
    return True
