"""One recommender over the rows of two tenants, under row-level security: each gets what he would get alone, and hears of no other."""

import math
import re
from collections.abc import Iterator

import psycopg
import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.sql import asking, tenants
from tests.sql.asking import leaked, leaks, relations_read
from tests.sql.tenants import ANT, Market, acting, heard

Markets = tuple[Market, Market]  # of both tenants, and of ant alone

# What says that it would be wrong under row-level security, rather than be wrong.
REFUSED = {
    "dynrec.experiment_results(text,text,timestamp with time zone)",
    "dynrec.log_exposure(text,text,text)",
    "dynrec.log_impressions(text,text,text[],integer,text,text,text)",  # with an experiment
    "dynrec.wait_until_fresh(text,interval)",
}

# What differs from a database without the other tenant: sizes and lags of all, hashes of all who were forgotten, what a model learned from all.
OF_ALL = {
    "dynrec.freshness",
    "dynrec.metrics",
    "dynrec_data.counter",
    "dynrec.model_versions",
    "dynrec_data.model_version",
    "dynrec_data.forgotten_user",
    "dynrec_data.item_transition",
}
PUBLIC = re.compile(r"dynrec\.[a-z]")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
CHANCE = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?\+00(?::00)?|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"  # moments, lists' keys
)


@pytest.fixture(scope="module", params=sorted(tenants.CONDITIONS))
def markets(request: pytest.FixtureRequest, make_database: MakeDatabase, template: str) -> Iterator[Markets]:
    """Both secured by the role or by a setting; a learned model answers in its shadow."""
    with (
        database.connect(make_database(template)) as both,
        database.connect(make_database(template)) as alone,
    ):
        made = tenants.busy_market(both), tenants.busy_market(alone, [ANT])
        for connection in (both, alone):
            tenants.secure(connection, by=request.param)
        with tenants.roles(both, alone):
            yield made


def asked(market: Market, *, public_only: bool = False) -> dict[str, dict[str, str]]:
    """What the current role hears, by function and statement."""
    given = {"model": market.model, "since": market.since, "recommender": "market", "schema": "market"}
    return asking.asked(market.connection, given, public_only=public_only)


def test_no_function_tells_of_the_other_tenant(markets: Markets) -> None:
    with acting(markets[0].connection):
        said = asked(markets[0])
    assert leaks(said) == {}
    silent = {name for name, texts in said.items() if all(text.startswith("error") for text in texts.values())}
    assert {name for name in silent if PUBLIC.match(name)} == REFUSED, (
        "a function is asked nothing that it can answer: see asking.VALUES"
    )


def test_no_relation_tells_of_the_other_tenant(markets: Markets) -> None:
    markets[0].connection.execute("analyze")
    with acting(markets[0].connection):
        found = relations_read(markets[0].connection)
    assert {name: line for name, text in found.items() if (line := leaked(text, ""))} == {}
    told = {name for name, text in found.items() if "ant-" in text}
    assert {"dynrec_data.item_vector", "dynrec_data.item_content", "dynrec_data.item_popularity"} <= told


def test_without_row_level_security_it_tells(markets: Markets) -> None:
    # or the two tests before would find nothing whatever happened
    connection = markets[0].connection
    connection.execute("alter role tenant_ant bypassrls")
    with acting(connection):
        said, found = asked(markets[0], public_only=True), relations_read(markets[0].connection)
    connection.execute("alter role tenant_ant nobypassrls")
    # PostgreSQL 16 keeps the plans of a role within a session although its attributes have changed
    connection.execute("discard plans")
    assert len({statement.split("(")[0] for statement in leaks(said)}) > 10
    told = {name for name, text in found.items() if leaked(text, "")}
    assert {"dynrec_data.impression", "dynrec_data.exposure", "dynrec_data.change", "dynrec_data.dead_letter"} <= told
    assert {"dynrec_data.user_vector", "dynrec_data.item_vector", "dynrec.failures", asking.STATISTICS[0]} <= told


def alike(one: str, other: str) -> bool:
    """Whether answers are the same but for moments, made-up keys, and what a second of decay makes of numbers."""
    one, other = CHANCE.sub("?", one), CHANCE.sub("?", other)
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-2, abs_tol=1e-3) for a, b in pairs)


def test_answers_are_those_of_a_database_without_the_other_tenant(markets: Markets) -> None:
    both, alone = markets
    with acting(both.connection), acting(alone.connection):
        answers, expected = asked(both, public_only=True), asked(alone, public_only=True)
        found, rows = relations_read(both.connection), relations_read(alone.connection)
    learned = f"=> {both.model}::integer"
    for function, said in answers.items():
        alone_said = dict(zip(said, expected[function].values(), strict=True))
        for statement, text in said.items():
            if not function.startswith("dynrec.log_") and learned not in statement:
                assert alike(text, alone_said[statement]), f"{statement}\n{text}\n\nalone:\n{alone_said[statement]}"
    assert {name for name in rows if name not in asking.STATISTICS and not alike(found[name], rows[name])} <= OF_ALL


def test_personal_lists_are_those_of_a_database_without_the_other_tenant(markets: Markets) -> None:
    lists = []
    for market in markets:
        with acting(market.connection):
            lists.append(
                market.connection.execute(
                    """
                    select u, l.item_id, round(l.score::numeric, 5), l.source
                    from unnest('{ant-user1,ant-user2,ant-user3}'::text[]) u, dynrec.recommend('market', u, k => 12) l order by u, l.rank
                    """
                ).fetchall()
            )
    assert lists[0] == lists[1]
    assert sum(source == "personal" for *_, source in lists[0]) > 10


def test_row_security_off_is_an_error(markets: Markets) -> None:
    connection = markets[0].connection
    with acting(connection):
        connection.execute("set row_security = off")
        for statement in (
            "select * from dynrec.recommend('market', 'ant-user1')",
            "select * from dynrec.trending('market')",
            "select * from dynrec_data.item_vector",
            "select * from dynrec.status",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                connection.execute(statement.encode())


@pytest.mark.parametrize(
    "setting",
    [
        "plan_cache_mode = force_generic_plan",
        "plan_cache_mode = force_custom_plan",
        "enable_seqscan = off",
        "enable_indexscan = off",
        "enable_hashjoin = off",
        "enable_nestloop = off",
        "search_path = market, pg_temp, public",
        "role = dynrec_reader",
        "jit_above_cost = 0",
        "client_min_messages = debug5",
    ],
)
def test_no_setting_makes_it_tell(markets: Markets, setting: str) -> None:
    connection = markets[0].connection
    # plans that the owner made first must not serve the tenant
    connection.execute("select * from dynrec.recommend('market', 'ant-user1'), dynrec.trending('market')")
    with acting(connection):
        try:
            connection.execute(f"set {setting}".encode())
        except psycopg.errors.InsufficientPrivilege:
            return
        statements = [
            f"select f::text from dynrec.{call} f"
            for call in (
                "recommend('market', 'ant-user1', k => 50)",
                "recommend('market', 'bee-user1', k => 50, filter => 'price > 0')",
                "trending('market', k => 50, as_of => now())",
                "search('market', 'title or lamp', k => 50)",
                "similar_items('market', 'ant-01', k => 50)",
            )
        ]
        said = {statement: heard(connection, statement) for statement in statements}
    assert leaks({"": said}) == {}
