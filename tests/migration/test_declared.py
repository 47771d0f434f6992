"""Migrating a database that is in use: a recommender, its triggers, and what users built on it."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from dynrec_store import migrate

Session = psycopg.Connection[tuple[Any, ...]]

SHOP = """
    create table public.items (id int primary key, title text);
    create table public.events (user_id text, item_id int, occurred_at timestamptz default now());
    insert into public.items values (1, 'a green lamp'), (2, 'a red lamp')
"""

DECLARE = """
    select from dynrec.create_recommender('shop', 'public.items', text_columns => '{title}',
        interactions => 'public.events', encoder => 'hashing')
"""


@pytest.fixture
def shop(connection: Session) -> Session:
    """A connection to a database with a shop and its recommender."""
    connection.execute(SHOP.encode())
    connection.execute(DECLARE.encode())
    return connection


def make_stale(connection: Session) -> None:
    """As if sql/ had changed: the next upgrade applies it again."""
    connection.execute("update dynrec_data.code set hash = 'older'")


def test_downgrade_leaves_the_application_as_it_was(
    database_url: str, shop: Session, empty_database_url: str, dump_schema: Callable[..., str]
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create extension vector")
        connection.execute(SHOP.encode())
    migrate.downgrade(database_url)
    assert dump_schema(database_url) == dump_schema(empty_database_url)
    assert shop.execute("insert into public.items values (3, 'a lamp') returning id").fetchone() == (3,)


def test_applying_the_same_code_again_changes_nothing(
    database_url: str, shop: Session, dump_schema: Callable[..., str]
) -> None:
    before = dump_schema(database_url)
    make_stale(shop)
    migrate.upgrade(database_url)
    assert dump_schema(database_url) == before


def test_users_views_survive_an_upgrade(database_url: str, shop: Session) -> None:
    shop.execute("create view public.for_you as select * from dynrec.recommend('shop', 'u1', 2)")
    shop.execute("create view public.lag as select * from dynrec.status")
    make_stale(shop)
    migrate.upgrade(database_url)
    assert shop.execute("select count(*) from public.for_you").fetchone() == (2,)
    assert shop.execute("select recommender from public.lag").fetchone() == ("shop",)


def test_generated_functions_and_triggers_are_mended(database_url: str, shop: Session) -> None:
    triggers = "select count(*) from pg_trigger where tgrelid = 'public.events'::regclass and not tgisinternal"
    before = shop.execute(triggers.encode()).fetchone()
    shop.execute(
        "do $$ declare t name; begin for t in select tgname from pg_trigger "
        "where tgrelid = 'public.events'::regclass and not tgisinternal "
        "loop execute format('drop trigger %I on public.events', t); end loop; end $$"
    )
    make_stale(shop)
    migrate.upgrade(database_url)
    assert shop.execute(triggers.encode()).fetchone() == before


def test_an_upgrade_does_not_wait_for_a_long_read_of_the_application(database_url: str, shop: Session) -> None:
    with psycopg.connect(database_url) as reader:
        reader.execute("select from public.items, public.events")
        make_stale(shop)
        _, after = migrate.upgrade(database_url)
    assert after.is_current
