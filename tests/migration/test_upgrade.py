"""From the first release to this version, with data in place."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dynrec_store import migrate
from dynrec_store.binaries import Binaries
from dynrec_store.exceptions import DependentObjectsError
from tests.migration import released
from tests.property import answers


def catalog(dump_schema: Callable[..., str], url: str) -> str:
    """The dump of a catalog, but for what time and the way of the first release into this server make different."""
    dump = dump_schema(url, "--exclude-table=dynrec_data.*_20*")  # partitions of the months that have passed since
    # of a partition that comes out of a dump, PostgreSQL 18 names these after the partition, otherwise after its parent
    return re.sub(r"CONSTRAINT \w+_not_null NOT NULL", "NOT NULL", dump)


def ask(url: str, question: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchall()


@pytest.fixture
def upgraded_url(release_url: str) -> str:
    """The database of the first release, migrated."""
    released.clear_the_way(release_url)
    migrate.upgrade(release_url)
    return release_url


@pytest.fixture
def app_role(release_url: str) -> Iterator[str]:
    """A role with no rights yet."""
    name = f"app_of_{release_url.rpartition('/')[2]}"
    with psycopg.connect(release_url, autocommit=True) as connection:
        connection.execute(f"create role {name}".encode())
        yield name
        connection.execute(f"drop owned by {name}; drop role {name}".encode())


def test_what_a_user_built_stops_the_upgrade_by_name(release_url: str, dump_schema: Callable[..., str]) -> None:
    before = dump_schema(release_url)
    with pytest.raises(DependentObjectsError, match="Drop them, migrate, and create them again") as caught:
        migrate.upgrade(release_url)
    assert {by for _, by in caught.value.dependents} == released.IN_THE_WAY.keys()
    assert dump_schema(release_url) == before


def test_what_a_user_built_on_the_rest_survives(upgraded_url: str) -> None:
    assert ask(upgraded_url, "select count(*) > 10 and bool_and(item_id <> id::text) from app.alike") == [(True,)]
    assert ask(upgraded_url, "select count(*) from app.trends") == [(5,)]
    assert ask(upgraded_url, "select * from app.state order by 1") == [("shop", 19, 5), ("store", 1, 0)]


def test_an_upgraded_database_equals_a_fresh_one(
    upgraded_url: str, empty_database_url: str, dump_schema: Callable[..., str]
) -> None:
    released.declare_anew(empty_database_url)
    for url in (upgraded_url, empty_database_url):
        assert released.work_off(url) == []
        released.maintain(url)
    assert released.declarations(upgraded_url) == released.declarations(empty_database_url)
    assert catalog(dump_schema, upgraded_url) == catalog(dump_schema, empty_database_url)


def test_what_was_known_is_known(release_url: str) -> None:
    with psycopg.connect(release_url, autocommit=True) as connection:
        ((moment,),) = connection.execute("select max(created_at) from dynrec_data.user_vector").fetchall()
        now, then = answers.now(connection), answers.as_of(connection, moment)
    assert now.lists
    assert then.lists
    released.clear_the_way(release_url)
    migrate.upgrade(release_url)
    with psycopg.connect(release_url, autocommit=True) as connection:
        assert answers.differences(now, answers.now(connection)) == []
        assert answers.differences(then, answers.as_of(connection, moment)) == []
    assert released.work_off(release_url) == []
    with psycopg.connect(release_url, autocommit=True) as connection:
        assert answers.differences(then, answers.as_of(connection, moment)) == []


def test_nothing_is_evaluated_before_the_first_release_had_vectors(upgraded_url: str) -> None:
    evaluate = "select from dynrec.evaluate('shop', (select min(created_at) - interval '1 day' from dynrec.model_versions), now())"
    with pytest.raises(psycopg.Error, match="had no vectors at"):
        ask(upgraded_url, evaluate)


def test_who_could_read_still_can(release_url: str, app_role: str) -> None:
    with psycopg.connect(release_url, autocommit=True) as connection:
        connection.execute(
            f"""
            grant usage on schema public, shop, dynrec, dynrec_data to {app_role};
            grant select on all tables in schema public, shop, dynrec, dynrec_data to {app_role};
            alter default privileges in schema dynrec_data grant select on tables to {app_role};
            revoke execute on function dynrec.recommend, dynrec.trending from public;
            grant execute on function dynrec.recommend, dynrec.trending to {app_role}
            """.encode()
        )
        views = [name for (name,) in connection.execute("select viewname from pg_views where schemaname = 'dynrec'")]
    assert len(views) > 5
    released.clear_the_way(release_url)
    migrate.upgrade(release_url)
    with psycopg.connect(release_url, autocommit=True) as connection:
        connection.execute(f"set role {app_role}".encode())
        for view in views:
            connection.execute(f"select from dynrec.{view}".encode())
        assert len(connection.execute("select from dynrec.trending('store', 3)").fetchall()) == 3
        assert len(connection.execute("select from dynrec.recommend('store', 'c1', 3)").fetchall()) == 3


def test_an_owner_without_superuser_can_upgrade(
    empty_database_url: str, app_role: str, binaries: Binaries, dump_schema: Callable[..., str]
) -> None:
    name = empty_database_url.rpartition("/")[2]
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            f"""
            create extension vector;
            alter database {name} set session_preload_libraries = 'vector';
            alter database {name} owner to {app_role};
            alter role {app_role} login password 'of a test'
            """.encode()
        )
    url = f"postgresql://{app_role}:of%20a%20test@{empty_database_url.rpartition('@')[2]}"
    released.restore(binaries, url, owned=True)
    released.clear_the_way(url)
    migrate.upgrade(url)
    assert released.work_off(url) == []
    assert "OWNER TO postgres" not in dump_schema(url, "--schema=dynrec", "--schema=dynrec_data")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"alter database {name} owner to postgres; drop owned by {app_role} cascade".encode())
