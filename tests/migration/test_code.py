"""What happens to users' objects when the code of schema dynrec changes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dynrec_store import migrate
from dynrec_store.exceptions import DependentObjectsError, MigrationError

WriteSql = Callable[[str], Path]
Session = psycopg.Connection[tuple[Any, ...]]

ADD = "create or replace function dynrec.add(a int, b int) returns int immutable return a + b;"
ADD_OTHERWISE = "create or replace function dynrec.add(a int, b int) returns int immutable return b + a + 100;"
ADD_WITH_DEFAULT = "create or replace function dynrec.add(a int, b int default 5) returns int immutable return a + b;"
ADD_RENAMED = "create or replace function dynrec.add(x int, y int) returns int immutable return x + y;"
ADD_THREE = "create or replace function dynrec.add(a int, b int, c int default 0) returns int return a + b + c;"
ADD_BIG = "create or replace function dynrec.add(a int, b int) returns bigint immutable return a + b;"
NOTHING = "create or replace function dynrec.nothing() returns int return 0;"
STATUS = "create or replace view dynrec.status as select 1 as one, 2 as two;"
STATUS_LONGER = "create or replace view dynrec.status as select 1 as one, 2 as two, 3 as three;"
STATUS_SHORTER = "create or replace view dynrec.status as select 1 as one;"
SUM = f"{ADD} create or replace view dynrec.sum as select dynrec.add(1, 2) as total;"
SUM_OF_BIG = f"{ADD_BIG} create or replace view dynrec.sum as select dynrec.add(1, 2)::int as total;"
ON_EVENT = "create or replace function dynrec.on_event() returns trigger language plpgsql as 'begin return new; end';"
TRIGGER = """
    create table public.t (a int);
    create trigger mine before insert on public.t for each row execute function dynrec.on_event()
"""


@pytest.fixture
def session(empty_database_url: str) -> Iterator[Session]:
    with psycopg.connect(empty_database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def migrate_to(empty_database_url: str, write_sql: WriteSql) -> Callable[[str], None]:
    """Bring the empty database to this code."""

    def to(content: str) -> None:
        migrate.upgrade(empty_database_url, sql_folder=write_sql(content))

    return to


@pytest.mark.parametrize("changed", [ADD_OTHERWISE, ADD_WITH_DEFAULT])
def test_an_equal_signature_keeps_grants_and_dependents(
    session: Session, migrate_to: Callable[[str], None], changed: str
) -> None:
    migrate_to(ADD)
    session.execute("revoke execute on function dynrec.add from public")
    session.execute("create view public.mine as select dynrec.add(1, 2) as total")
    migrate_to(changed)
    expected = 103 if changed == ADD_OTHERWISE else 3
    assert session.execute("select total from public.mine").fetchone() == (expected,)
    assert session.execute(
        "select count(*) from pg_proc, aclexplode(proacl) where proname = 'add' and grantee = 0"
    ).fetchone() == (0,)


@pytest.fixture
def someone(empty_database_url: str, session: Session) -> Iterator[str]:
    """A role whose name needs quotes."""
    name = f'"Some One of {empty_database_url.rpartition("/")[2]}"'
    session.execute(f"create role {name}".encode())
    yield name
    session.execute(f"drop owned by {name}; drop role {name}".encode())


def rights(session: Session) -> list[tuple[Any, ...]]:
    return session.execute(
        """
        select p.proname, r.rolname, g.privilege_type, g.is_grantable
        from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g left join pg_roles r on r.oid = g.grantee
        where p.pronamespace = 'dynrec'::regnamespace
        union all
        select c.relname, r.rolname, g.privilege_type, g.is_grantable
        from pg_class c cross join aclexplode(c.relacl) g left join pg_roles r on r.oid = g.grantee
        where c.relnamespace = 'dynrec'::regnamespace
        order by 1, 2, 3
        """
    ).fetchall()


def test_a_replaced_object_keeps_what_was_granted_and_revoked(
    session: Session, migrate_to: Callable[[str], None], someone: str
) -> None:
    migrate_to(ADD + STATUS + NOTHING)
    session.execute(
        f"""
        revoke execute on function dynrec.add from public;
        grant execute on function dynrec.add to {someone} with grant option;
        grant select on dynrec.status to {someone};
        grant insert, select on dynrec.status to public
        """.encode()
    )
    before = rights(session)
    migrate_to(ADD_BIG + STATUS_SHORTER + NOTHING)
    assert rights(session) == before


@pytest.mark.parametrize("changed", [ADD_RENAMED, ADD_THREE, ADD_BIG])
def test_a_changed_signature_replaces_the_function(
    session: Session, migrate_to: Callable[[str], None], changed: str
) -> None:
    migrate_to(ADD)
    migrate_to(changed)
    assert session.execute("select dynrec.add(1, 2)").fetchone() == (3,)
    assert session.execute("select count(*) from pg_proc where proname = 'add'").fetchone() == (1,)


def test_what_sql_no_longer_has_is_removed(session: Session, migrate_to: Callable[[str], None]) -> None:
    migrate_to(ADD + STATUS)
    migrate_to(NOTHING)
    left = session.execute("select proname from pg_proc where pronamespace = 'dynrec'::regnamespace").fetchall()
    assert left == [("nothing",)]
    assert session.execute("select to_regclass('dynrec.status')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("before", "mine", "after", "used", "named"),
    [
        (ADD, "create view public.mine as select dynrec.add(1, 2)", ADD_BIG, "dynrec.add(", "view public.mine"),
        (ADD, "create view public.mine as select dynrec.add(1, 2)", NOTHING, "dynrec.add(", "view public.mine"),
        (
            ADD,
            "create materialized view public.mine as select dynrec.add(1, 2)",
            ADD_THREE,
            "dynrec.add(",
            "materialized view public.mine",
        ),
        (
            ADD,
            "create function public.mine() returns int return dynrec.add(1, 2)",
            ADD_RENAMED,
            "dynrec.add(",
            "function public.mine()",
        ),
        (ADD, "create table public.mine (a int default dynrec.add(1, 2))", ADD_BIG, "dynrec.add(", "public.mine"),
        (ADD, "create table public.mine (a int check (dynrec.add(a, 1) > 0))", ADD_BIG, "dynrec.add(", "public.mine"),
        (
            ON_EVENT,
            TRIGGER,
            NOTHING,
            "dynrec.on_event()",
            "trigger mine on public.t",
        ),
        (
            STATUS,
            "create view public.mine as select one from dynrec.status",
            STATUS_SHORTER,
            "dynrec.status",
            "view public.mine",
        ),
        (
            STATUS,
            "create function public.mine() returns setof dynrec.status language sql as 'select 1, 2'",
            STATUS_SHORTER,
            "dynrec.status",
            "function public.mine()",
        ),
        (SUM, "create view public.mine as select total from dynrec.sum", SUM_OF_BIG, "dynrec.sum", "view public.mine"),
    ],
)
def test_a_users_object_in_the_way_stops_the_upgrade_by_name(
    session: Session,
    migrate_to: Callable[[str], None],
    before: str,
    mine: str,
    after: str,
    used: str,
    named: str,
) -> None:
    migrate_to(before)
    session.execute(mine.encode())
    with pytest.raises(DependentObjectsError, match="Drop them") as caught:
        migrate_to(after)
    assert [(u.startswith(used), named in by) for u, by in caught.value.dependents] == [(True, True)]
    migrate_to(before)  # nothing was changed: this finds everything as it was


def test_a_view_can_grow_under_a_users_view(session: Session, migrate_to: Callable[[str], None]) -> None:
    migrate_to(STATUS)
    session.execute("create view public.mine as select two from dynrec.status")
    migrate_to(STATUS_LONGER)
    assert session.execute("select mine.two, three from public.mine, dynrec.status").fetchone() == (2, 3)


def test_views_of_dynrec_follow_the_functions_that_they_use(
    session: Session, migrate_to: Callable[[str], None]
) -> None:
    migrate_to(SUM)
    migrate_to(SUM_OF_BIG)
    assert session.execute("select total from dynrec.sum").fetchone() == (3,)


def test_an_error_names_the_file_and_line_and_changes_nothing(
    session: Session, migrate_to: Callable[[str], None]
) -> None:
    migrate_to(ADD)
    with pytest.raises(MigrationError, match=r"sql/10_all\.sql:3: syntax error"):
        migrate_to(f"{ADD_OTHERWISE}\n\ncreate or repair function dynrec.add();")
    assert session.execute("select dynrec.add(1, 2)").fetchone() == (3,)


def test_percent_signs_and_colons_are_left_alone(session: Session, migrate_to: Callable[[str], None]) -> None:
    migrate_to("create or replace function dynrec.odd() returns text return '100%s :x ' || 1::text;")
    assert session.execute("select dynrec.odd()").fetchone() == ("100%s :x 1",)


def test_users_schemas_are_not_in_the_functions_search_path(
    session: Session, migrate_to: Callable[[str], None]
) -> None:
    migrate_to(
        "create or replace function dynrec.path() returns text language sql set search_path from current "
        "as 'select current_setting(''search_path'')';"
    )
    assert session.execute("select dynrec.path()").fetchone() == ("pg_catalog, public, pg_temp",)
