"""Dumps of a database's catalog, databases of released versions, and small folders in place of sql/."""

import gzip
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dynrec_store.binaries import Binaries, locate
from tests.conftest import MakeDatabase

Dump = Callable[..., str]
WriteSql = Callable[..., Path]

RELEASES = Path(__file__).parent / "releases"


@pytest.fixture(scope="session")
def binaries(open_folder: Path, postgres_package: str) -> Binaries:
    """The programs of the server that is tested: they read older servers, too."""
    return locate(postgres_package, open_folder)


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
    quiet = ["--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1"]
    dump = gzip.decompress((RELEASES / "0001.sql.gz").read_bytes())
    subprocess.run([binaries.program("psql"), *quiet, f"--dbname={url}"], input=dump, check=True)
    return url.rpartition("/")[2]


@pytest.fixture
def release_url(make_database: MakeDatabase, drop_database: Callable[[str], None], release: str) -> Iterator[str]:
    """A database of this test's own as the first release left it."""
    url = make_database(release)
    yield url
    drop_database(url)


@pytest.fixture
def write_sql(tmp_path: Path) -> WriteSql:
    """Write a folder with one file and that content, to migrate with instead of sql/."""

    def write(content: str) -> Path:
        folder = tmp_path / f"sql-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "10_all.sql").write_text(content)
        return folder

    return write
