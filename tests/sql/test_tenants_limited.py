"""Rights on part of the sources: items or interactions alone, columns, none; policies that fail; code of the caller that listens."""

import re
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from tests.drain import Session, drain
from tests.sql import tenants
from tests.sql.asking import leaked
from tests.sql.tenants import ANT, BEE, acting, heard

CALLS = {
    "recommend": "recommend('market', 'ant-user1', k => 50)",
    "trending": "trending('market', k => 50)",
    "similar_items": "similar_items('market', 'ant-01', k => 50)",
    "recommend_for_items": "recommend_for_items('market', '{ant-02}', k => 50)",
    "search": "search('market', 'title or lamp', k => 50)",
}
LEAKY = """
    create schema spy;
    create table spy.heard (what text);
    create function spy.listen(text) returns boolean language plpgsql cost 0.0000001 as
      'begin raise notice ''heard %'', $1; insert into spy.heard values ($1); return true; exception when others then return true; end';
    create function spy.listen(text, text) returns boolean language sql cost 0.0000001 as 'select spy.listen($1)';
    create operator spy.=== (function = spy.listen, leftarg = text, rightarg = text, restrict = eqsel, join = eqjoinsel);
    grant usage on schema spy to public;
    grant all on spy.heard to public
"""


@pytest.fixture
def market(connection: Session) -> Iterator[Session]:
    """Both tenants' rows, published; neither role may read anything yet."""
    tenants.open_market(connection)
    connection.execute("set timezone = 'UTC'")
    with tenants.roles(connection, grants=["usage on schema market"]):
        yield connection


def listed(connection: Session, name: str, **arguments: str) -> list[tuple[str, str]]:
    """Item and source of each row of a read."""
    given = "".join(f", {key} => {value}" for key, value in arguments.items())
    call = CALLS[name][:-1] + given + ")"
    return connection.execute(f"select item_id, source from dynrec.{call} order by rank".encode()).fetchall()


def marks(connection: Session, name: str, **arguments: str) -> set[str]:
    """Whose items a read gives."""
    return {item[:4] for item, _ in listed(connection, name, **arguments)}


def grant(connection: Session, right: LiteralString) -> None:
    connection.execute(f"grant {right} to {ANT}, {BEE}".encode())


def test_items_by_tenant_and_interactions_of_all(market: Session) -> None:
    grant(market, "select on all tables in schema market")
    tenants.secure(market, ["products"])
    with acting(market):
        for name in CALLS:
            assert marks(market, name) == {"ant-"}, name
            assert marks(market, name, filter="'price > 0'") == {"ant-"}, name
        # he may read what bee's users did, and gets no item of theirs from it
        for statement in (
            "select item_id from dynrec.recommend('market', 'bee-user1', k => 50)",
            "select * from dynrec.explain('market', 'bee-user1', 'ant-01')",
        ):
            said = heard(market, statement)
            assert not re.search("bee-title|bee-class|80717", said), statement


def test_items_of_all_and_interactions_by_tenant(market: Session) -> None:
    grant(market, "select on all tables in schema market")
    tenants.secure(market, ["events"])
    with acting(market):
        assert marks(market, "recommend") == {"ant-", "bee-"}
        assert {source for _, source in listed(market, "recommend")} == {"personal"}
        assert market.execute("select count(*) from dynrec_data.user_vector").fetchone() == (0,)
        assert "personal" not in heard(market, "select source from dynrec.recommend('market', 'bee-user1')")
        explained = heard(market, "select * from dynrec.explain('market', 'bee-user1', 'bee-01')")
        assert "trending" in explained
        assert "because" not in explained
        assert market.execute("select dynrec.user_vector_at('market', 'bee-user1')").fetchall() == [(None,)]
        assert "bee-user" not in heard(
            market, "select f::text from dynrec.training_examples('market', '2024-01-01', now()) f"
        )


def test_no_right_on_interactions(market: Session) -> None:
    grant(market, "select on market.products")
    with acting(market):
        for name in ("trending", "similar_items", "recommend_for_items", "search"):
            assert listed(market, name), name
        for statement in (
            "select * from dynrec.recommend('market', 'ant-user1')",
            "select * from dynrec.explain('market', 'ant-user1', 'ant-01')",
            "select * from dynrec.training_examples('market', '2024-01-01', now())",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="events"):
                market.execute(statement.encode())
        for table in ("user_vector", "user_vector_history", "impression", "exposure"):
            assert market.execute(f"select count(*) from dynrec_data.{table}".encode()).fetchone() == (0,), table


def test_no_right_on_items(market: Session) -> None:
    grant(market, "select on market.events")
    with acting(market):
        for call in CALLS.values():
            with pytest.raises(psycopg.errors.UndefinedObject, match="no recommender named 'market'") as caught:
                market.execute(f"select * from dynrec.{call}".encode())
            assert "Declared are" not in str(caught.value)
        assert market.execute("select * from dynrec.status").fetchall() == []


def test_a_right_on_columns(market: Session) -> None:
    grant(market, "select (id, title, category, price) on market.products")
    grant(market, "select (user_id, item_id, occurred_at, kind, value) on market.events")
    with acting(market):
        for name in CALLS:
            # a text may be made from columns that are not his
            assert bool(listed(market, name)) == (name != "search"), name
        assert {source for _, source in listed(market, "recommend")} == {"personal"}
        for condition in (
            "secret = ''hidden''",
            "item.secret is not null",
            "item is not null",
            "(select count(secret) from market.products) > 0",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                listed(market, "trending", filter=f"'{condition}'")
        # the whole row is not his: neither is what was made from all of it, but for rows that he can name
        assert "hidden" not in heard(market, "select t::text from dynrec_data.item_content t")


def test_a_right_on_the_key_alone(market: Session) -> None:
    grant(market, "select (id) on market.products")
    with acting(market):
        for table in ("item_content", "item_content_history", "item_vector", "item_vector_history"):
            said = heard(market, f"select t::text from dynrec_data.{table} t")
            assert not re.search("title|class", said), f"{table}: {said[:200]}"
        for call in (
            "item_history('market', 'ant-01')",
            "search('market', 'title or lamp')",
            "item_features_at('market', 'ant-01')",
        ):
            said = heard(market, f"select f::text from dynrec.{call} f")
            assert not re.search("ant-title|ant-class", said), f"{call}: {said[:200]}"


@pytest.mark.parametrize("table", ["products", "events"])
def test_a_policy_that_fails_tells_nothing_and_hurts_nobody_else(market: Session, table: str) -> None:
    grant(market, "select on all tables in schema market")
    market.execute(
        f"""
        create function market.refuse(text) returns boolean language plpgsql as
          'begin if $1 = current_user then return true; end if; raise exception ''not yours''; end';
        alter table market.{table} enable row level security;
        create policy failing on market.{table} to {ANT} using (market.refuse(tenant));
        create policy fine on market.{table} to {BEE} using (tenant = current_user)
        """.encode()
    )
    with acting(market, ANT):
        for call in CALLS.values():
            said = heard(market, f"select f::text from dynrec.{call} f")
            assert leaked(said, call) is None or (table == "events" and "bee-user" not in said)
    with acting(market, BEE):
        assert listed(market, "trending")
        assert heard(market, "select source from dynrec.recommend('market', 'bee-user1')").count("personal") > 5
    drain(market)


def test_a_filter_that_listens_hears_of_nothing_hidden(market: Session) -> None:
    grant(market, "select on all tables in schema market")
    tenants.secure(market)
    market.execute(LEAKY)
    ways = {
        "function": "spy.listen(title)",
        "operator": "title operator(spy.===) category",
        "whole row": "spy.listen(item::text)",
        "under or": "price < 0 or spy.listen(title)",
        "subquery": "exists (select from market.products p where spy.listen(p.title))",
        "private tables": "exists (select from dynrec_data.item_content c where spy.listen(c.content))",
        "popularity": "exists (select from dynrec_data.item_popularity c where spy.listen(c.item_id))",
        "transitions": "exists (select from dynrec_data.item_transition c where spy.listen(c.item_id))",
        "users": "exists (select from dynrec_data.user_vector c where spy.listen(c.user_id))",
        "changes": "exists (select from dynrec_data.change c where spy.listen(c.entity))",
        "events": "exists (select from market.events e where spy.listen(e.user_id))",
    }
    market.execute("update market.products set title = title || '!'")
    with acting(market):
        for name in CALLS:
            for moment in ("null", "now()"):
                for way, condition in ways.items():
                    given = {"filter": f"$f${condition}$f$"} | ({} if name == "search" else {"as_of": moment})
                    arguments = "".join(f", {key} => {value}" for key, value in given.items())
                    said = heard(market, f"select f::text from dynrec.{CALLS[name][:-1]}{arguments}) f")
                    assert leaked(said, "") is None, f"{name} at {moment} by {way}: {said[:300]}"
    rows = market.execute("select distinct what from spy.heard").fetchall()
    assert rows, "nothing was heard at all"
    assert [what for (what,) in rows if "bee-" in what] == []


@pytest.mark.parametrize(
    "change", ["drop table market.products", "alter table market.products rename to goods", "drop table market.events"]
)
def test_a_source_that_is_gone(market: Session, change: str) -> None:
    grant(market, "select on all tables in schema market")
    tenants.secure(market)
    market.execute(change.encode())
    with acting(market):
        for call in CALLS.values():
            assert leaked(heard(market, f"select f::text from dynrec.{call} f"), call) is None
        for view in ("status", "queue", "failures", "model_versions", "freshness", "experiments", "alerts", "features"):
            market.execute(f"select * from dynrec.{view}".encode())
        assert leaked(heard(market, "select f::text from dynrec.doctor() f"), "") is None
