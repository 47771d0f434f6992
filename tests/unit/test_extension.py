"""dynrec extension build, as far as it needs no server."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynrec_store import extension
from dynrec_store.cli import app
from dynrec_store.resources import resource_folder

NOW = extension.version(resource_folder("sql"))
EARLIER = NOW[:-8] + "0" * 8

runner = CliRunner()


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


ALWAYS = {"dynrec.control", f"dynrec--{NOW}.sql", "dynrec.pg_tle.install.sql", "dynrec.pg_tle.update.sql"}


def test_updates_begin_at_the_versions_that_are_there_and_those_that_are_named(tmp_path: Path) -> None:
    (tmp_path / f"dynrec--{EARLIER}.sql").touch()
    named = f"0.0.9-0001-{'f' * 8}"
    result = runner.invoke(app, ["extension", "build", str(tmp_path), "--from", named])
    assert result.exit_code == 0, result.output
    updates = {f"dynrec--{one}--{NOW}.sql" for one in (EARLIER, named)}
    assert names(tmp_path) == ALWAYS | updates | {f"dynrec--{EARLIER}.sql"}
    assert set(result.stdout.split()) == {str(tmp_path / name) for name in ALWAYS | updates}


def test_the_same_files_make_the_same_scripts(tmp_path: Path) -> None:
    for place in ("one", "another", "one"):  # into the folder of the same version, too
        extension.build(tmp_path / place)
    assert names(tmp_path / "one") == ALWAYS
    for name in ALWAYS:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "another" / name).read_bytes()


@pytest.mark.parametrize("version", ["1.0", "", "0.1.0-9999-00000000", "0.1.0-0001-00000000--0.1.0", "../x"])
def test_what_is_no_version_is_refused(tmp_path: Path, version: str) -> None:
    result = runner.invoke(app, ["extension", "build", str(tmp_path / "new"), "--from", version])
    assert result.exit_code == 1
    assert repr(version) in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = runner.invoke(app, ["extension", "build", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
