"""The roles: what each may do, that it is enough for its work, and that it is not more."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.drain import Session
from tests.sql.privileges import EXPECTED, privileges
from tests.sql.shop import NOON, Event, Shop

READS = """
    select * from dynrec.recommend('shop', 'u'); select * from dynrec.recommend('shop', 'u', filter => 'price > 2', diversity => 0.5);
    select * from dynrec.recommend('shop', 'u', as_of => clock_timestamp());
    select * from dynrec.recommend_for_items('shop', '{1,2}'); select * from dynrec.similar_items('shop', '1');
    select * from dynrec.trending('shop'); select * from dynrec.search('shop', 'lamp', dynrec.item_vector_at('shop', '1'));
    select * from dynrec.explain('shop', 'u', '2'); select dynrec.item_vector_at('shop', '1'), dynrec.user_vector_at('shop', 'u');
    select * from dynrec.item_history('shop', '1'); select * from dynrec.drift('shop', '1');
    select * from dynrec.item_features_at('shop', '1'); select * from dynrec.user_features_at('shop', 'u');
    select * from dynrec.training_examples('shop', '2024-01-01', now()); select * from dynrec.data_drift('shop');
    select * from dynrec.online_metrics('shop', now() - interval '1 day', now()); select * from dynrec.attributed_impressions('shop', now() - interval '1 day', now());
    select dynrec.precision_at_k('{1}', '{1}', 1); select dynrec.wait_until_fresh('shop', '0 s'); select * from dynrec.index_recall('shop');
    select * from dynrec.status, dynrec.freshness; select * from dynrec.queue; select * from dynrec.failures; select * from dynrec.model_versions;
    select * from dynrec.features; select * from dynrec.encoders; select * from dynrec.experiments; select * from dynrec.experiment_arms;
    select * from dynrec.measurements; select * from dynrec.alerts; select * from dynrec.doctor();
    select * from dynrec.metrics
"""
OPERATES = """
    select dynrec.pause('shop'); select dynrec.resume('shop'); select dynrec.refresh('shop', '{1}'); select dynrec.retry_failed('shop');
    select dynrec.register_encoder('small', 'hashing', '', 16); select dynrec.stage_model('shop', encoder => 'small');
    select * from dynrec.alter_recommender('shop', options => '{"retention": "10 days"}'); select dynrec.create_experiment('shop', 'e', '[{"arm": "a"}, {"arm": "b"}]');
    select dynrec.stop_experiment('shop', 'e'); select dynrec.watch('shop'); select dynrec.export_user('shop', 'u');
    select dynrec.verify_forgotten('shop', 'u', dynrec.forget_user('shop', 'u')); select dynrec.drop_recommender('shop');
    select * from dynrec.create_recommender('again', 'shop.products', text_columns => '{title}', encoder => 'hashing')
"""


@pytest.fixture
def bought(shop: Shop) -> Shop:
    """Two users have bought something."""
    shop.add_events([Event("u", str(n), NOON, "purchase") for n in (1, 2, 3)])
    shop.add_events([Event("v", str(n), NOON, "purchase") for n in range(1, 13)])
    shop.drain()
    return shop


@contextmanager
def acting(shop: Shop, role: str, tables: str = "select") -> Iterator[Session]:
    """The shop's connection as a member of a role, with a right on the application's tables."""
    name = sql.Identifier(f"a_{role}")
    for statement in (
        "create role {0}; grant {1} to {0}; grant usage on schema shop to {0}",
        "grant " + tables + " on all tables in schema shop to {0}" if tables else "select 1",
        "set role {0}",
    ):
        shop.connection.execute(sql.SQL(statement).format(name, sql.Identifier(role)))
    try:
        yield shop.connection
    finally:
        shop.connection.execute(sql.SQL("reset role; drop owned by {0}; drop role {0}").format(name))


def each(statements: str) -> list[bytes]:
    return [
        one.strip().encode()
        for one in statements.split(";\n" if ";\n" in statements else ";")
        for one in one.split("; ")
    ]


def test_privileges_are_as_expected(bought: Shop, tmp_path: Path) -> None:
    found = tmp_path / EXPECTED.name
    found.write_text(privileges(bought.connection))
    assert found.read_text() == EXPECTED.read_text(), f"if this is as it should be: cp {found} {EXPECTED}"


def test_a_reader_reads(bought: Shop) -> None:
    with acting(bought, "dynrec_reader") as connection:
        for statement in each(READS):
            connection.execute(statement)


@pytest.mark.parametrize("role", ["dynrec_reader", "dynrec_writer"])
def test_a_reader_changes_nothing(bought: Shop, role: str) -> None:
    with acting(bought, role, "all") as connection:
        for statement in [
            *each(OPERATES),
            b"select dynrec._claim('shop', 'item', 1, '1 s')",
            b"select dynrec._maintain()",
            b"update dynrec_data.recommender set paused = true",
            b"delete from dynrec_data.change",
            b"insert into dynrec_data.exposure values (1, 'u', 1, now())"
            if role == "dynrec_reader"
            else b"delete from dynrec_data.exposure",
        ]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_a_writer_logs(bought: Shop) -> None:
    bought.execute("""select dynrec.create_experiment('shop', 'e', '[{"arm": "a"}, {"arm": "b"}]')""")
    with acting(bought, "dynrec_writer") as connection:
        connection.execute("select dynrec.log_impressions('shop', 'u', '{1,2}')")
        connection.execute("select dynrec.log_impressions('shop', 'u', '{1,2}', experiment => 'e')")
        connection.execute("select dynrec.log_exposure('shop', 'e', 'v')")
        assert connection.execute("select * from dynrec.recommend('shop', 'u', experiment => 'e')").fetchall()
    assert bought.value("select count(*) from dynrec_data.impression") == 2
    assert bought.value("select count(*) from dynrec_data.exposure") == 2


def test_an_administrator_operates_without_a_right_on_the_applications_tables(bought: Shop) -> None:
    with acting(bought, "dynrec_admin", "") as connection:
        for statement in each(OPERATES):
            connection.execute(statement)
        assert connection.execute("select recommender from dynrec.status").fetchall() == [("again",)]
        for forbidden in (
            b"delete from dynrec_data.change",
            b"select * from shop.products",
            b"select * from dynrec_data.model_artefact",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(forbidden)
    bought.drain()


def test_what_runs_as_its_owner_is_for_nobody_but_workers_and_administrators(bought: Shop) -> None:
    definers = bought.execute(
        """
        select p.oid::regprocedure::text, p.proconfig from pg_proc p
        where p.pronamespace in ('dynrec'::regnamespace, 'dynrec_data'::regnamespace) and p.prosecdef
        """
    )
    assert len(definers) > 50
    for name, settings in definers:
        assert any(setting.startswith("search_path=") and setting.endswith("pg_temp") for setting in settings), name
        for role in ("public", "dynrec_reader", "dynrec_writer"):
            assert not bought.value("select has_function_privilege(%s, %s::regprocedure, 'execute')", [role, name]), (
                name
            )
