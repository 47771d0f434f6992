"""`dynrec migrate` with the project's own sql/."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dynrec_store import migrate
from dynrec_store.exceptions import (
    BusyError,
    ConnectionFailedError,
    MigrationError,
    PermissionDeniedError,
    UnsupportedServerError,
)

OLDER_CODE = """
    create or replace function dynrec.recommend(recommender text) returns int return 1;
    create or replace function dynrec.gone(a int) returns int return a;
    create or replace view dynrec.status as select dynrec.gone(1) as nothing;
"""

NEWER_CODE = "create or replace view dynrec.status as select 'another column' as something;"

# The same, replaced in place.
LONGER_CODE = OLDER_CODE.replace("as nothing", "as nothing, 2 as more")

WITHOUT_COMMENT = """
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'dynrec'::regnamespace and obj_description(p.oid, 'pg_proc') is null
    union all
    select c.oid::regclass::text from pg_class c
    where c.relnamespace in ('dynrec'::regnamespace, 'dynrec_data'::regnamespace)
        and c.relkind in ('v', 'r', 'p', 'i', 'I') and not c.relispartition
        and c.relname !~ '_(pkey|key)$' and c.relname !~ '^alembic_version'
        and obj_description(c.oid, 'pg_class') is null
"""


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.fixture
def role(empty_database_url: str) -> Iterator[str]:
    """A role that may log in and nothing else; its password is its name."""
    name = f"role_of_{empty_database_url.rpartition('/')[2]}"
    execute(empty_database_url, f"create role {name} login password '{name}'")
    yield name
    execute(empty_database_url, f"drop owned by {name} cascade; drop role {name}")


def execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def as_role(url: str, role: str) -> str:
    return f"postgresql://{role}:{role}@{url.rpartition('@')[2]}"


def test_a_second_run_does_nothing(database_url: str) -> None:
    written = "select max(xmin::text::bigint) from pg_proc union all select max(xmin::text::bigint) from pg_class"
    before = rows(database_url, written)
    first, last = migrate.upgrade(database_url)
    assert first == last
    assert first.is_current
    assert rows(database_url, written) == before


def test_upgraded_equals_fresh(
    empty_database_url: str, database_url: str, dump_schema: Callable[..., str], write_sql: Callable[[str], Path]
) -> None:
    migrate.upgrade(empty_database_url, sql_folder=write_sql(OLDER_CODE))
    before, after = migrate.upgrade(empty_database_url)
    assert (before.code_is_current, after.code_is_current) == (False, True)
    assert dump_schema(empty_database_url) == dump_schema(database_url)


def test_downgrade_leaves_nothing_and_can_be_undone(
    empty_database_url: str, database_url: str, dump_schema: Callable[..., str]
) -> None:
    execute(empty_database_url, "create extension vector")
    empty, full = dump_schema(empty_database_url), dump_schema(database_url)
    migrate.downgrade(database_url)
    assert dump_schema(database_url) == empty
    assert migrate.current(database_url).revision is None
    migrate.upgrade(database_url)
    assert dump_schema(database_url) == full


def test_downgrade_of_nothing_is_nothing(empty_database_url: str) -> None:
    migrate.downgrade(empty_database_url)
    assert migrate.current(empty_database_url).revision is None


def test_everything_has_a_comment(database_url: str) -> None:
    assert rows(database_url, WITHOUT_COMMENT) == []


def test_migrates_at_the_same_time_do_not_collide(empty_database_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        states = list(pool.map(migrate.upgrade, [empty_database_url] * 3))
    assert sorted(before.revision is None for before, _ in states) == [False, False, True]
    assert all(after.is_current for _, after in states)


def test_functions_find_a_vector_that_lives_elsewhere(vector_elsewhere_url: str) -> None:
    paths = rows(
        vector_elsewhere_url,
        "select distinct option from pg_proc, unnest(proconfig) as option "
        "where pronamespace = 'dynrec'::regnamespace and option like 'search_path=%'",
    )
    assert paths == [("search_path=pg_catalog, extensions, pg_temp",)]


def test_a_moved_vector_extension_is_followed(database_url: str) -> None:
    execute(database_url, "create schema extensions; alter extension vector set schema extensions")
    assert not migrate.current(database_url).is_current
    migrate.upgrade(database_url)
    test_functions_find_a_vector_that_lives_elsewhere(database_url)


def test_an_old_pgvector_is_refused(empty_database_url: str) -> None:
    execute(
        empty_database_url,
        "create extension vector; update pg_extension set extversion = '0.7.4' where extname = 'vector'",
    )
    with pytest.raises(UnsupportedServerError, match=r"pgvector here is 0\.7\.4.*alter extension vector update"):
        migrate.upgrade(empty_database_url)


def test_an_unknown_revision_asks_for_the_newer_version(database_url: str) -> None:
    execute(database_url, "update dynrec_data.alembic_version set version_num = '9999'")
    with pytest.raises(MigrationError, match=r"9999.*newer dynrec_store"):
        migrate.upgrade(database_url)


def test_a_role_that_may_not_create_the_extension_is_told(empty_database_url: str, role: str) -> None:
    name = empty_database_url.rpartition("/")[2]
    execute(empty_database_url, f"alter database {name} owner to {role}")
    with pytest.raises(PermissionDeniedError, match=r"have a superuser run 'create extension vector'"):
        migrate.upgrade(as_role(empty_database_url, role))
    execute(empty_database_url, f"alter database {name} owner to postgres")


def test_an_owner_without_superuser_can_migrate(empty_database_url: str, role: str) -> None:
    name = empty_database_url.rpartition("/")[2]
    execute(empty_database_url, f"create extension vector; alter database {name} owner to {role}")
    _, after = migrate.upgrade(as_role(empty_database_url, role))
    assert after.is_current
    execute(empty_database_url, f"alter database {name} owner to postgres")


@pytest.mark.parametrize("newer", [NEWER_CODE, LONGER_CODE])
def test_a_lock_that_is_not_to_be_had_ends_the_migration(
    empty_database_url: str, write_sql: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(migrate, "ATTEMPTS", 2)
    older = write_sql(OLDER_CODE)
    migrate.upgrade(empty_database_url, sql_folder=older)
    with psycopg.connect(empty_database_url) as reader:
        reader.execute("select from dynrec.status")
        with pytest.raises(BusyError, match="Nothing was changed"):
            migrate.upgrade(empty_database_url, sql_folder=write_sql(newer))
    assert migrate.current(empty_database_url, sql_folder=older).is_current


def test_an_unreachable_server_is_an_error_of_ours() -> None:
    with pytest.raises(ConnectionFailedError):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/nothing")
