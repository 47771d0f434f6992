"""dynrec migrate against a real database."""

import json

import pytest
from typer.testing import CliRunner

from dynrec_store.cli import app

runner = CliRunner()


def test_up_and_down(empty_database_url: str) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        result = runner.invoke(app, ["migrate", *arguments, "--database-url", empty_database_url])
        assert result.exit_code == status, result.output
        return result.stdout + result.stderr

    def state() -> tuple[bool, bool]:
        (found,) = json.loads(run("current", "--json"))
        return found["revision"] == found["head"], found["code_is_current"]

    assert state() == (False, False)
    assert "migrated from nothing" in run()
    assert state() == (True, True)
    assert "up to date" in run("upgrade")
    run("downgrade", "base")
    assert state() == (False, False)


def test_options_may_stand_before_the_sub_command(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNREC_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    result = runner.invoke(app, ["migrate", "--database-url", empty_database_url, "upgrade"])
    assert result.exit_code == 0, result.output
