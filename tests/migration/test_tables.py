"""The revisions lead exactly to the tables that the package dynrec_store.tables describes."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import create_engine

from dynrec_store.migrate import SCHEMA_COMMENT
from dynrec_store.schema import CONTEXT_OPTIONS
from dynrec_store.tables import metadata

MADE_AT_RUN_TIME = """
    create table dynrec_data.item_vector_7 partition of dynrec_data.item_vector for values in (7);
    create index on dynrec_data.item_vector_7 using hnsw ((embedding::public.vector(3)) public.vector_ip_ops);
    create table dynrec_data.user_vector_7 partition of dynrec_data.user_vector for values in (7);
    create table dynrec_data.item_vector_history_2030_01 partition of dynrec_data.item_vector_history
        for values from ('2030-01-01') to ('2030-02-01')
"""

# What a dump holds besides tables, columns, constraints and indexes; who sees which rows is tested elsewhere.
NOT_OF_TABLES = (
    "_default_pkey ATTACH PARTITION",
    "CREATE POLICY",
    "ENABLE ROW LEVEL SECURITY",
    "sees_item",
    "end$$",
    "GRANT ",
)


def engine_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def differences(url: str, search_path: str) -> list[Any]:
    engine = create_engine(engine_url(url), connect_args={"options": f"-c search_path={search_path}"})
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts=CONTEXT_OPTIONS), metadata)
    engine.dispose()
    return list(found)


def test_autogenerate_finds_no_difference(database_url: str, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute(MADE_AT_RUN_TIME.encode())
    assert differences(database_url, "public") == []


def test_autogenerate_finds_no_difference_with_vector_elsewhere(vector_elsewhere_url: str) -> None:
    assert differences(vector_elsewhere_url, "extensions") == []


def test_metadata_makes_the_same_tables(
    empty_database_url: str, database_url: str, dump_schema: Callable[..., str]
) -> None:
    make_from_metadata(empty_database_url)
    of_tables = ("--schema=dynrec_data", "--exclude-table=*.alembic_version", "--exclude-table=*.*_default")
    # pg_dump puts a table earlier where a function needs its row type: the order says nothing.
    migrated, made = (
        set(f"{dump_schema(url, *of_tables)}\n".split(";\n")) for url in (database_url, empty_database_url)
    )
    assert {one for one in migrated - made if not any(words in one for words in NOT_OF_TABLES)} == set()
    assert made - migrated == set()


def make_from_metadata(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create extension vector; create schema dynrec_data")
        connection.execute(SCHEMA_COMMENT)
        engine = create_engine(engine_url(url))
        metadata.create_all(engine)
        engine.dispose()
        for table in metadata.tables.values():
            for index in table.indexes:
                connection.execute(
                    sql.SQL("comment on index {} is {}").format(
                        sql.Identifier("dynrec_data", str(index.name)), sql.Literal(index.info["comment"])
                    )
                )


@pytest.mark.parametrize(("name", "dimension"), [("all-MiniLM-L6-v2", 384), ("hashing", 256)])
def test_encoders_are_there_at_once(connection: psycopg.Connection[tuple[Any, ...]], name: str, dimension: int) -> None:
    found = connection.execute("select dimension from dynrec_data.encoder where name = %s", [name]).fetchone()
    assert found == (dimension,)
