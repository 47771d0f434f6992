"""The command line as far as it goes without a database: parsing, help, settings, errors."""

import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dynrec_store.cli import app
from dynrec_store.cli.options import settings_of
from dynrec_store.cli.output import shown
from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import load_extra

runner = CliRunner()

NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing?connect_timeout=1"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    monkeypatch.setenv("DYNREC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")


def every_command() -> list[tuple[str, Any]]:
    def below(path: str, command: Any) -> list[tuple[str, Any]]:
        inner = getattr(command, "commands", {})
        return [(path, command), *(found for name in inner for found in below(f"{path} {name}", inner[name]))]

    return below("dynrec", typer.main.get_command(app))


def test_no_command_prints_the_help() -> None:
    result = runner.invoke(app, [])
    assert "recommend" in result.stdout
    assert result.exit_code == 2
    assert "error" not in result.stderr


@pytest.mark.parametrize(("path", "command"), every_command())
def test_every_command_and_option_is_explained(path: str, command: Any) -> None:
    assert command.help, path
    for option in command.params:
        if option.param_type_name == "option" and option.name not in {"help", "install_completion", "show_completion"}:
            assert option.help, f"{path} --{option.name}"
            assert option.envvar or f"DYNREC_{option.name.upper()}" in option.help, f"{path} --{option.name}"


def test_help_shows_variables() -> None:
    result = runner.invoke(app, ["worker", "--help"])
    assert result.exit_code == 0
    for variable in ("DYNREC_DATABASE_URL", "DYNREC_BATCH_SIZE", "DYNREC_QUEUES", "DYNREC_CONCURRENCY"):
        assert f"[env var: {variable}]" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recomend"], "Did you mean 'recommend'"),
        (["recommend", "shop"], "Missing argument 'user'"),
        (["recommend", "shop", "42", "-k", "0"], "'-k'"),
        (["recommend", "shop", "42", "--args", "[1]"], "not a JSON object"),
        (["recommend", "shop", "42", "--args", "{"], "not JSON"),
        (["recommend", "shop", "42", "--as-of", "yesterday"], "'yesterday' is not a time"),
        (["recommend", "shop", "42", "--diversity", "2"], "'--diversity'"),
        (["worker", "--batch-size", "0"], "--batch-size: 0"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    first, hint = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert "--help" in hint
    assert result.stdout == ""


def test_failures_have_status_1_and_no_traceback() -> None:
    result = runner.invoke(app, ["status", "--database-url", NOWHERE])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_debug_shows_where() -> None:
    result = runner.invoke(app, ["--debug", "status", "--database-url", NOWHERE])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "ConnectionFailedError"


def test_without_any_database_says_what_to_do() -> None:
    result = runner.invoke(app, ["status"])
    assert result.exit_code == 1
    assert "DYNREC_DATABASE_URL" in result.stderr
    assert "dynrec up" in result.stderr


def test_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNREC_BATCH_SIZE", "many")
    result = runner.invoke(app, ["status"])
    assert result.exit_code == 1
    assert "DYNREC_BATCH_SIZE='many'" in result.stderr


def test_an_option_takes_the_place_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNREC_BATCH_SIZE", "17")
    monkeypatch.setenv("DYNREC_DEVICE", "cpu")
    settings = settings_of(batch_size=5, device=None)
    assert (settings.batch_size, settings.device) == (5, "cpu")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workers.encoders", None)
    with pytest.raises(ConfigurationError, match=r"workers.encoders.*\n.*dynrec-store\[worker\]"):
        load_extra("workers.encoders:load_encoder", "worker")


def test_publishing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("workers.publisher", "workers.kafka"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"'confluent_kafka'.*\n.*pip install 'dynrec-store\[kafka\]'"):
        load_extra("workers.publisher:run_publisher", "kafka")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), (0.123456, "0.1235"), (1200, "1200"), ("a [b]", "a [b]")]
)
def test_values_in_tables(value: object, text: str) -> None:
    assert shown(value) == text
