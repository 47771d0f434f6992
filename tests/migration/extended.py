"""A server that finds the scripts of extension dynrec, and what a database holds once it is no extension any more."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from dynrec_store.binaries import Binaries
from dynrec_store.embedded import EmbeddedPostgres
from tests.conftest import SETTINGS
from tests.migration.lived import Session

MEMBERS = """
    select i.type, i.identity from pg_depend d cross join pg_identify_object(d.classid, d.objid, 0) i
    where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and i.type <> 'type'
      and d.refobjid = (select e.oid from pg_extension e where e.extname = 'dynrec')
    order by 1, 2
"""

# what partitions get from their parents, which the extension has made: as docs/extension.md leaves it out
FROM_PARENTS = re.compile(r" [0-9]+ (CONSTRAINT dynrec_data|INDEX( ATTACH)? dynrec_data [a-z_]+_[0-9]{4}_[0-9]{2}_)")


@contextmanager
def running(package: str, folder: Path) -> Iterator[tuple[EmbeddedPostgres, Path]]:
    """A server on a copy of the package's programs, and the folder where it looks for extensions."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    original, copy = Path(spec.submodule_search_locations[0]), folder / f"{package}_extended"
    shutil.copytree(original, copy, symlinks=True)
    libraries = original.with_name(f"{package}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        with EmbeddedPostgres(folder / "server", package=copy.name, settings=SETTINGS) as server:
            yield server, next(copy.glob("pginstall/share/**/vector.control")).parent


def members(connection: Session) -> list[tuple[str, str]]:
    """The kind and name of everything that belongs to extension dynrec."""
    return connection.execute(MEMBERS.encode()).fetchall()


def forget(url: str) -> None:
    """Let everything stay, and the extension go: what is left is what pg_dump writes of any database."""
    with psycopg.connect(url, autocommit=True) as connection:
        for kind, name in members(connection):
            connection.execute(f"alter extension dynrec drop {kind} {name}".encode())
        connection.execute("drop extension dynrec")


def dump(binaries: Binaries, url: str, file: Path) -> None:
    subprocess.run([binaries.program("pg_dump"), "--format=custom", f"--file={file}", url], check=True)


def restore(binaries: Binaries, file: Path, url: str) -> None:
    """As docs/extension.md says."""
    program = str(binaries.program("pg_restore"))
    listing = subprocess.run([program, "--list", str(file)], check=True, capture_output=True, text=True).stdout
    entries = file.with_suffix(".entries")
    entries.write_text("".join(line for line in listing.splitlines(True) if not FROM_PARENTS.search(line)))
    subprocess.run([program, "--exit-on-error", f"--use-list={entries}", f"--dbname={url}", str(file)], check=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select dynrec._regenerate()")
