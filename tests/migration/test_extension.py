"""`create extension dynrec` is `dynrec migrate`: the same catalog, the same data, and each keeps off the other's."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from dynrec_store import extension, migrate, resources
from dynrec_store.binaries import Binaries
from dynrec_store.cli import app
from dynrec_store.embedded import EmbeddedPostgres
from dynrec_store.exceptions import MigrationError
from tests.migration import extended
from tests.migration.lived import assert_goes_on, live

Make = Callable[[], str]

CREATE = "create extension dynrec cascade"

# Of the first tables; more is not to be had, because later functions read later tables.
FIRST = """
    create schema dynrec;
    create function dynrec._regenerate() returns void language sql as '';
    create function dynrec.recommend(recommender text) returns int return 1;
    create function dynrec.gone(a int) returns int return a;
    create view dynrec.status as select dynrec.gone(1) as nothing;
"""

# Beside the project's own: what an earlier version had and this one has not, or has otherwise.
OUTDATED = """
    drop function dynrec.resume(text);
    create function dynrec.resume(name text, politely boolean default true) returns int return 1;
    create function dynrec.gone(a int) returns int return a;
    create view dynrec.leaving as select dynrec.gone(1) as one;
    drop view dynrec.failures;
    create view dynrec.failures as select 1 as nothing;
"""


@pytest.fixture(scope="module")
def served(open_folder: Path, postgres_package: str) -> Iterator[tuple[EmbeddedPostgres, Path]]:
    with extended.running(postgres_package, open_folder / "extended") as found:
        yield found
    shutil.rmtree(open_folder / "extended")


@pytest.fixture
def folder(served: tuple[EmbeddedPostgres, Path]) -> Iterator[Path]:
    """Where the server looks for extensions; dynrec's are gone afterwards."""
    yield served[1]
    for file in served[1].glob("dynrec*"):
        file.unlink()


numbers = count(1)


@pytest.fixture
def make(served: tuple[EmbeddedPostgres, Path]) -> Make:
    """Make an empty database; returns its URL."""

    def made() -> str:
        name = f"extended_{next(numbers)}"
        with psycopg.connect(served[0].url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        return served[0].url_of(name)

    return made


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def build_older(monkeypatch: pytest.MonkeyPatch, folder: Path, head: str, sources: Path, work: Path) -> None:
    """Build as a version did whose tables were at the revision `head`, with that code."""
    revisions = work / "migrations"
    shutil.copytree(resources.resource_folder("migrations"), revisions)
    for file in revisions.glob("versions/0*.py"):
        if file.name[:4] > head:
            file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(extension, "resource_folder", {"migrations": revisions}.__getitem__)
        extension.build(folder, sql_folder=sources)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> Path:
    """The folder with the scripts of an earlier version that worked; this version's have not been built."""
    sources = tmp_path / "sql"
    shutil.copytree(resources.resource_folder("sql"), sources)
    (sources / "89_outdated.sql").write_text(OUTDATED)
    build_older(monkeypatch, folder, "9999", sources, tmp_path)  # today's code needs today's tables
    return folder


def test_the_catalog_is_that_of_migrate(folder: Path, make: Make, dump_schema: Callable[..., str]) -> None:
    result = CliRunner().invoke(app, ["extension", "build", str(folder)])
    assert result.exit_code == 0, result.output
    installed, migrated = make(), make()
    execute(installed, CREATE)
    migrate.upgrade(migrated)
    before, after = migrate.upgrade(installed)  # finds that nothing is to be done
    assert before == after
    extended.forget(installed)
    assert dump_schema(installed) == dump_schema(migrated)


def test_pgvector_may_be_elsewhere(folder: Path, make: Make, dump_schema: Callable[..., str]) -> None:
    extension.build(folder)
    installed, migrated = make(), make()
    for url in (installed, migrated):
        execute(url, "create schema extensions; create extension vector schema extensions")
    execute(installed, CREATE)
    migrate.upgrade(migrated)
    extended.forget(installed)
    assert dump_schema(installed) == dump_schema(migrated)


def test_whoever_may_migrate_may_create_it(folder: Path, make: Make) -> None:
    extension.build(folder)
    url = make()
    name = url.rpartition("/")[2]
    execute(
        url,
        f"create extension vector; create role {name} login password '{name}'; grant create on database {name} to {name}",
    )
    execute(f"postgresql://{name}:{name}@{url.rpartition('@')[2]}", "create extension dynrec")
    assert migrate.current(url).is_current


def test_updated_from_the_first_tables_equals_fresh(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    make: Make,
    dump_schema: Callable[..., str],
    write_sql: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    build_older(monkeypatch, folder, "0001", write_sql(FIRST), tmp_path / "older")
    updated, fresh = make(), make()
    execute(updated, CREATE)
    extension.build(folder)
    execute(updated, "alter extension dynrec update")
    execute(fresh, CREATE)
    with psycopg.connect(updated) as one, psycopg.connect(fresh) as other:
        assert extended.members(one) == extended.members(other)
    for url in (updated, fresh):
        assert migrate.current(url).is_current
        extended.forget(url)
    assert dump_schema(updated) == dump_schema(fresh)


def test_lived_in_updated_dumped_and_restored(
    older: Path, make: Make, binaries: Binaries, dump_schema: Callable[..., str], tmp_path: Path
) -> None:
    url, restored = make(), make()
    execute(url, CREATE)
    before = live(url)
    extension.build(older)
    execute(url, "alter extension dynrec update")
    extended.dump(binaries, url, tmp_path / "dump")
    extended.restore(binaries, tmp_path / "dump", restored)
    with psycopg.connect(url) as one, psycopg.connect(restored) as other:
        assert extended.members(one) == extended.members(other)
    assert_goes_on(url, before)
    assert_goes_on(restored, before)
    for one_url in (url, restored):
        extended.forget(one_url)
    assert dump_schema(restored) == dump_schema(url)


# As far as the scripts see it. What is registered becomes the files of an extension, as it does there.
PG_TLE = """
    create schema pgtle;
    create table pgtle.script (part int generated always as identity, name text, content text);
    create function pgtle.install_extension(name text, version text, description text, ext text, requires text[] default null)
      returns boolean language sql as $$
      insert into pgtle.script (name, content) values (format('%s--%s.sql', name, version), ext), (format('%s.control', name),
        format(E'comment = %L\\ndefault_version = %L\\nrequires = %L\\nrelocatable = false\\nsuperuser = false\\n',
          description, version, array_to_string(requires, ',')));
      select true $$;
    create function pgtle.install_extension_version_sql(name text, version text, ext text) returns boolean language sql as $$
      insert into pgtle.script (name, content) values (format('%s--%s.sql', name, version), ext);
      select true $$;
    create function pgtle.install_update_path(name text, fromvers text, tovers text, ext text) returns boolean language sql as $$
      insert into pgtle.script (name, content) values (format('%s--%s--%s.sql', name, fromvers, tovers), ext);
      select true $$;
    create function pgtle.set_default_version(name text, version text) returns boolean language sql as $$
      update pgtle.script s set content = regexp_replace(s.content, 'default_version = \\S+', format('default_version = %L', version))
      where s.name = set_default_version.name || '.control';
      select true $$;
"""


def test_by_pg_tle_the_catalog_is_the_same(
    older: Path, make: Make, binaries: Binaries, dump_schema: Callable[..., str], tmp_path: Path
) -> None:
    registry, url, fresh = make(), make(), make()
    execute(registry, PG_TLE)
    (tmp_path / "older").mkdir()
    for file in older.glob("dynrec*"):
        shutil.move(file, tmp_path / "older")
    extension.build(tmp_path / "newer", before=[file.name[8:-4] for file in (tmp_path / "older").glob("dynrec--*.sql")])

    def register(file: Path) -> None:
        quiet = ["--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1"]
        subprocess.run([binaries.program("psql"), *quiet, f"--file={file}", f"--dbname={registry}"], check=True)
        with psycopg.connect(registry) as connection:
            for name, content in connection.execute("select name, content from pgtle.script"):
                (older / name).write_text(content)

    register(tmp_path / "older" / "dynrec.pg_tle.install.sql")
    execute(url, CREATE)
    register(tmp_path / "newer" / "dynrec.pg_tle.update.sql")
    execute(url, "alter extension dynrec update")
    created = make()
    execute(created, CREATE)
    migrate.upgrade(fresh)
    for one in (url, created):
        extended.forget(one)
        assert dump_schema(one) == dump_schema(fresh)


def test_an_update_that_would_break_a_view_changes_nothing(older: Path, make: Make) -> None:
    url = make()
    execute(url, CREATE)
    execute(url, "create schema app; create view app.mine as select * from dynrec.leaving")
    extension.build(older)
    with psycopg.connect(url, autocommit=True) as connection:
        before = extended.members(connection)
        with pytest.raises(psycopg.errors.DependentObjectsStillExist, match=r"view app\.mine uses dynrec\.leaving"):
            connection.execute("alter extension dynrec update")
        assert extended.members(connection) == before
        connection.execute("drop view app.mine")
        connection.execute("alter extension dynrec update")
        assert connection.execute("select to_regclass('dynrec.leaving')").fetchone() == (None,)


def test_what_was_granted_stays_granted(older: Path, make: Make) -> None:
    url = make()
    name = url.rpartition("/")[2]
    execute(url, CREATE)
    execute(
        url,
        f"create role {name}; grant execute on function dynrec.resume to {name} with grant option; grant select on dynrec.failures to {name}",
    )
    extension.build(older)
    execute(url, "alter extension dynrec update")
    with psycopg.connect(url) as connection:
        rights = "select has_function_privilege(%s, 'dynrec.resume(text)', 'execute with grant option'), has_table_privilege(%s, 'dynrec.failures', 'select'), has_function_privilege('public', 'dynrec.resume(text)', 'execute')"
        assert connection.execute(rights.encode(), [name, name]).fetchone() == (True, True, False)


@pytest.mark.usefixtures("older")
def test_migrate_leaves_an_extension_alone(make: Make) -> None:
    url = make()
    execute(url, CREATE)
    with pytest.raises(MigrationError, match="alter extension dynrec update"):
        migrate.upgrade(url)
    with pytest.raises(MigrationError, match="drop extension dynrec"):
        migrate.downgrade(url)


def test_an_extension_leaves_a_migrated_database_alone(folder: Path, make: Make) -> None:
    extension.build(folder)
    url = make()
    migrate.upgrade(url)
    with pytest.raises(psycopg.errors.DuplicateObject, match="by dynrec migrate"):
        execute(url, CREATE)
    assert migrate.current(url).is_current


def test_dropped_with_its_recommenders_only_if_asked_to(folder: Path, make: Make) -> None:
    extension.build(folder)
    url = make()
    execute(url, CREATE)
    live(url)
    with psycopg.connect(url, autocommit=True) as connection:
        items = connection.execute("select count(*) from public.item").fetchone()
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            connection.execute("drop extension dynrec")
        connection.execute("select dynrec.drop_recommender(name) from dynrec_data.recommender")
        connection.execute("drop extension dynrec")
        left = "select to_regnamespace('dynrec'), to_regnamespace('dynrec_data'), (select count(*) from pg_trigger where not tgisinternal)"
        assert connection.execute(left.encode()).fetchone() == (None, None, 0)
        connection.execute("update public.item set title = title || '!'")
        assert connection.execute("select count(*) from public.item").fetchone() == items


def test_cascade_takes_the_triggers(folder: Path, make: Make) -> None:
    extension.build(folder)
    url = make()
    execute(url, CREATE)
    live(url)
    execute(url, "drop extension dynrec cascade")
    execute(url, "update public.item set title = title || '!'")
