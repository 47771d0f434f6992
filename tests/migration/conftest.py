"""Dumps of a database's catalog, and small folders in place of sql/."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dynrec_store.binaries import locate

Dump = Callable[..., str]
WriteSql = Callable[..., Path]


@pytest.fixture(scope="session")
def dump_schema(postgres_package: str, open_folder: Path) -> Dump:
    """Everything but the data of a database, as pg_dump writes it; the options go to pg_dump."""
    program = locate(postgres_package, open_folder).program("pg_dump")

    def dump(url: str, *options: str) -> str:
        command = [str(program), "--schema-only", "--no-owner", *options, url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        # The remarks and the session's random key differ from dump to dump.
        return "\n".join(line for line in text.splitlines() if line and not line.startswith(("--", "\\")))

    return dump


@pytest.fixture
def write_sql(tmp_path: Path) -> WriteSql:
    """Write a folder with one file and that content, to migrate with instead of sql/."""

    def write(content: str) -> Path:
        folder = tmp_path / f"sql-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "10_all.sql").write_text(content)
        return folder

    return write
