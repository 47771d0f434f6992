"""A password that a file holds, as orchestrators hand secrets to processes."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings, load_settings
from dynrec_store.target import target_database


def url_with(file: Path | None, url: str = "postgresql://app@db:5433/shop?sslmode=require") -> str:
    with target_database(Settings.model_validate({"database_url": url, "database_password_file": file})) as found:
        return found


@pytest.mark.parametrize("password", ["plain", "a:b@c/d?e#f%g h", "wörter ✓", " blanks "])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_file_completes_the_url(tmp_path: Path, password: str, ending: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f"{password}{ending}".encode())
    found = conninfo_to_dict(url_with(file))
    expected = {"user": "app", "password": password, "host": "db", "port": "5433", "dbname": "shop"}
    assert {name: found[name] for name in expected} == expected
    assert found["sslmode"] == "require"


def test_several_hosts_keep_their_places(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p")
    found = conninfo_to_dict(url_with(file, "postgresql://app@one:1,two:2/shop"))
    assert (found["host"], found["port"], found["password"]) == ("one,two", "1,2", "p")


def test_a_password_in_the_url_stays(tmp_path: Path) -> None:
    assert url_with(tmp_path / "missing", "postgresql://app:own@db/shop") == "postgresql://app:own@db/shop"


def test_without_a_file_the_url_stays() -> None:
    assert url_with(None) == "postgresql://app@db:5433/shop?sslmode=require"


def test_the_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DYNREC_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    assert load_settings().database_password_file == tmp_path / "password"


def test_errors_name_the_variable_the_file_and_the_reason(tmp_path: Path) -> None:
    missing, empty, binary = (tmp_path / name for name in ("missing", "empty", "binary"))
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    for file, reason in ((missing, "No such file"), (empty, "is empty"), (binary, "no text"), (tmp_path, "directory")):
        with pytest.raises(ConfigurationError, match=f"DYNREC_DATABASE_PASSWORD_FILE='{file}'.*{reason}"):
            url_with(file)
    with pytest.raises(ConfigurationError, match="postgresql://user@host/database"):
        url_with(empty, "postgresql://db/shop")
