"""Dumps of a database's catalog, databases of released versions, and small folders in place of sql/."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dynrec_store.binaries import Binaries, locate
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import PACKAGES, SETTINGS, MakeDatabase
from tests.migration import released

Dump = Callable[..., str]
WriteSql = Callable[..., Path]


@pytest.fixture(scope="session")
def binaries(open_folder: Path, postgres_package: str) -> Binaries:
    """The programs of the server that is tested: they read older servers, too."""
    return locate(postgres_package, open_folder)


@pytest.fixture(scope="session")
def older_server(open_folder: Path, postgres_package: str) -> Iterator[EmbeddedPostgres]:
    """A server of the oldest version that is supported."""
    if postgres_package == PACKAGES["16"]:
        pytest.skip("there is no older server than 16")
    with EmbeddedPostgres(open_folder / "older", package=PACKAGES["16"], settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def dump_schema(binaries: Binaries) -> Dump:
    """Everything but the data of a database, owners and rights included, as pg_dump writes it; the options go to it."""

    def dump(url: str, *options: str) -> str:
        command = [str(binaries.program("pg_dump")), "--schema-only", *options, url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        # The remarks and the session's random key differ from dump to dump.
        return "\n".join(line for line in text.splitlines() if line and not line.startswith(("--", "\\")))

    return dump


@pytest.fixture(scope="session")
def release(make_database: MakeDatabase, binaries: Binaries) -> str:
    """The name of a database as the first release left it, with data; nobody is connected to it."""
    url = make_database("template0")
    released.restore(binaries, url)
    return url.rpartition("/")[2]


@pytest.fixture
def release_url(make_database: MakeDatabase, give_up_database: Callable[[str], None], release: str) -> Iterator[str]:
    """A database of this test's own as the first release left it."""
    url = make_database(release)
    yield url
    give_up_database(url)


@pytest.fixture
def write_sql(tmp_path: Path) -> WriteSql:
    """Write a folder with one file and that content, to migrate with instead of sql/."""

    def write(content: str) -> Path:
        folder = tmp_path / f"sql-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "10_all.sql").write_text(content)
        return folder

    return write
