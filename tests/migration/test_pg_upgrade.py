"""The cluster of an older PostgreSQL, taken over by a newer one with pg_upgrade."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dynrec_store import migrate
from dynrec_store.binaries import as_server_user, locate, own
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import PACKAGES, SETTINGS
from tests.migration import released
from tests.migration.lived import assert_goes_on, live


@pytest.fixture
def old(open_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    """A server whose cluster is going to be taken over."""
    if postgres_package == PACKAGES["16"]:
        pytest.skip("there is no older server than 16")
    with EmbeddedPostgres(open_folder / "old", package=PACKAGES["16"], settings=SETTINGS) as running:
        yield running


@pytest.fixture
def new(open_folder: Path, postgres_package: str, old: EmbeddedPostgres) -> EmbeddedPostgres:
    """A server with an empty cluster and the old one's password, stopped."""
    with EmbeddedPostgres(open_folder / "new", package=postgres_package, settings=SETTINGS) as running:
        with psycopg.connect(running.url_of("postgres"), autocommit=True) as connection:
            connection.execute("drop database dynrec")
            connection.execute(sql.SQL("alter role postgres password {}").format(password(old)))
        (running.pgdata / "dynrec.password").write_text(password(old))
    return running


def password(server: EmbeddedPostgres) -> str:
    return (server.pgdata / "dynrec.password").read_text()


def take_over(old: EmbeddedPostgres, new: EmbeddedPostgres, folder: Path) -> None:
    """Run pg_upgrade in a folder; both servers are stopped."""
    folder.mkdir(mode=0o700)
    own(folder)
    before, after = locate(PACKAGES["16"], old.data_dir), locate(PACKAGES["18"], new.data_dir)
    clusters = {"old-bindir": before.root / "bin", "new-bindir": after.root / "bin"}
    clusters |= {"old-datadir": old.pgdata, "new-datadir": new.pgdata, "socketdir": folder}
    as_server_user(
        [
            *("env", f"--chdir={folder}", f"PGPASSWORD={password(old)}"),
            *(str(after.program("pg_upgrade")), "--username=postgres"),
            *(f"--{option}={path}" for option, path in clusters.items()),
        ]
    )


def test_a_database_goes_on(old: EmbeddedPostgres, new: EmbeddedPostgres, open_folder: Path) -> None:
    with psycopg.connect(old.url, autocommit=True) as connection:
        connection.execute("create database release template template0")
    released.restore(locate(PACKAGES["16"], old.data_dir), old.url_of("release"))
    migrate.upgrade(old.url)
    before = live(old.url)
    old.stop()
    take_over(old, new, open_folder / "taking-over")
    with new:
        state, _ = migrate.upgrade(new.url)
        assert state.is_current
        assert_goes_on(new.url, before)
        release = new.url_of("release")
        released.clear_the_way(release)
        migrate.upgrade(release)
        assert released.work_off(release) == []
