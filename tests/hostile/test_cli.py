"""Every command and option with hostile values: status 1 or 2, one line that names the value and no traceback, or an answer."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from hypothesis import event, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from dynrec_store.cli import app
from tests.hostile.canary import FRAGMENTS, has_sung
from tests.hostile.conftest import open_session
from tests.hostile.values import ODD, Value

LONG_JOBS = {
    "up",
    "dispatcher",
    "worker",
    "metrics",
    "stream",
    "publish",
    "demo",
    "bench",
    "train",
    "downgrade",
    "add",
    "build",
}  # they start or load something, take everything away, or write into the folder that is named
ENDLESS = {"watch", "help", "install_completion", "show_completion"}
PARTS = {"database_url", "data_dir", "output"}  # below, with values of their own

ARGUMENTS: dict[str, str] = {
    "recommender": "shop", "user": "u1", "item": "1", "text": "lamp", "model": "1", "baseline": "1", "name": "new", "begin": "2024-03-02", "model_version": "1", "role": "worker",
}  # fmt: skip
NUMBERS = [
    "0",
    "-1",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "9" * 400,
    "1.5",
    "0x10",
    "1_0",
    "\u0661",
    "2147483648",
    "-9223372036854775809",
]
TIMES = [
    "0001-01-01",
    "9999-12-31T23:59:59.999999-14:00",
    "10000-01-01",
    "infinity",
    "now",
    "2024-02-30",
    "2024-03-02T00:00:00+99:99",
]
JSONS = [
    "{",
    "[" * 50_000,
    '{"a":' * 50_000,
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": "\\u0000"}',
    '{"\\ud800": 1}',
    "null",
    "5",
    '{"top": ' + "9" * 5_000 + "}",
]
LONG = ["x" * 100_000, "\u00e9" * 50_000]
BYTES = ["\udcff", "a\udc80b"]  # how Python shows arguments that are no UTF-8

values = st.one_of(*map(st.sampled_from, (ODD, FRAGMENTS, NUMBERS, TIMES, JSONS, LONG, BYTES))).map(Value)

runner = CliRunner()


def every_command() -> dict[str, Any]:
    def below(path: str, command: Any) -> dict[str, Any]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return {path: command}
        return {key: one for name in inner for key, one in below(f"{path} {name}".strip(), inner[name]).items()}

    return below("", typer.main.get_command(app))


SHORT_COMMANDS = {path: command for path, command in every_command().items() if path.split()[-1] not in LONG_JOBS}


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    handlers = logging.root.handlers[:]
    monkeypatch.chdir(tmp_path)  # no .env, and whatever is written is written there
    monkeypatch.setenv("DYNREC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    yield
    logging.root.handlers[:] = handlers
    structlog.reset_defaults()


def check(result: Result, *given: str) -> None:
    """An answer, or one line and a hint that name one of the values or say which option it was."""
    assert result.exit_code in {0, 1, 2}, result.exit_code
    assert "Traceback" not in result.output
    assert "a mistake in dynrec" not in result.output, result.stderr[:2_000]
    if result.exit_code == 0 or (result.exit_code == 1 and "error: " not in result.stderr):
        return  # answered; doctor and alerts have found something
    first = next(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert len(result.stderr) < 5_000
    assert any(names(result.stderr, value) for value in given), first


def names(message: str, value: str) -> bool:
    words = re.findall(r"\w+", value)
    return not words or any(word[:20].lower() in message.lower() for word in words[:50])


@pytest.mark.parametrize("path", sorted(SHORT_COMMANDS))
def test_hostile_values(busy_url: str, path: str) -> None:
    parameters = {one.name: one for one in SHORT_COMMANDS[path].params if one.name not in ENDLESS | PARTS}
    right = {name: ARGUMENTS[name] for name, one in parameters.items() if one.required}
    names_of_options = [max(one.opts, key=len) for one in parameters.values()]

    @settings(max_examples=settings().max_examples // 2)
    @given(st.dictionaries(st.sampled_from(sorted(parameters)), values, min_size=1, max_size=2))
    def call(hostile: dict[str, str]) -> None:
        chosen = right | hostile
        options = [
            part
            for name, value in chosen.items()
            if parameters[name].param_type_name == "option"
            for part in given_as(parameters[name], value)
        ]
        arguments = [
            chosen[name] for name, one in parameters.items() if one.param_type_name == "argument" and name in chosen
        ]
        logging.root.handlers.clear()  # those of the call before write to where it wrote
        result = runner.invoke(app, [*path.split(), *options, "--database-url", busy_url, "--", *arguments])
        event(f"{path}: {result.exit_code}")
        check(result, *chosen.values(), *names_of_options, "model version")

    if parameters:
        call()
    with open_session(busy_url) as connection:
        assert not has_sung(connection)


def given_as(parameter: Any, value: str) -> list[str]:
    option = max(parameter.opts, key=len)
    return [option] if parameter.is_flag else [f"{option}={value}"]


SECRET = "s3cret"
URLS = {
    f"mysql://a:{SECRET}@h/d": "postgresql://",
    f"http://a:{SECRET}@h": "postgresql://",
    f"postgresql://u:{SECRET} x@127.0.0.1:9/d": "%20",
    f"postgresql://u:{SECRET}%zz@127.0.0.1:9/d": "%25",
    f"postgresql://u:x@{SECRET}@127.0.0.1:9/d": "%40",
    f"postgresql://u:x/{SECRET}@127.0.0.1:9/d?{SECRET}": "%2F",
    f"postgresql://u:x?{SECRET}=@127.0.0.1:9/d": "127.0.0.1",
    f"postgresql://u:{SECRET}@127.0.0.1:9/d?no_such_option=1": "option",
    f"postgresql://u:{SECRET}\udcff@127.0.0.1:9/d": "postgresql://",
    f"postgresql://u:{SECRET}@127.0.0.1:99999/d": "99999",
    f"postgresql://u:{SECRET}@127.0.0.1:9/d?connect_timeout=soon": "soon",
    f"postgresql://u:{SECRET}@127.0.0.1:9/d?sslmode=odd": "odd",
    f"postgresql://u:{SECRET}%2F%40%3A@127.0.0.1:9/d": "127.0.0.1",
    f"postgresql://u:{SECRET}@no-such-host.invalid/d": "no-such-host.invalid",
    f"host=127.0.0.1 port=9 password={SECRET}": "127.0.0.1",
    f"host=127.0.0.1 {SECRET}": "postgresql://",
    "nonsense": "postgresql://",
}


WAYS = [("option", url) for url in URLS] + [(way, url) for way in ("variable", "file") for url in list(URLS)[:4]]


@pytest.mark.parametrize(("way", "url"), WAYS)
def test_bad_urls_are_explained_and_passwords_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, way: str, url: str
) -> None:
    options = ["--database-url", url] if way == "option" else []
    if way == "variable":
        monkeypatch.setenv("DYNREC_DATABASE_URL", url)
    elif way == "file":
        Path(".env").write_text(f"DYNREC_DATABASE_URL='{url}'\n", encoding="utf-8", errors="replace")
    for command in (["status"], ["migrate"]):
        result = runner.invoke(app, [*command, *options])
        assert result.exit_code == 1
        assert URLS[url] in result.stderr
        assert SECRET not in result.output


@pytest.fixture
def guarded_url(busy_url: str) -> str:
    """The database for a role that there is not, with a password of odd characters."""
    return re.sub("//[^@]*@", f"//nobody_here:{SECRET}%2F%3A%40%23%25%3F%20%C3%A9@", busy_url)


def test_a_role_that_may_not_connect_is_named_without_its_password(guarded_url: str) -> None:
    result = runner.invoke(app, ["status", "--database-url", guarded_url])
    assert result.exit_code == 1
    check(result, "nobody_here")
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DYNREC_BATCH_SIZE", "1e3"), ("DYNREC_BATCH_SIZE", "0"), ("DYNREC_BATCH_SIZE", "99999999999999999999"), ("DYNREC_LEASE_SECONDS", "nan"), ("DYNREC_LEASE_SECONDS", "inf"),
        ("DYNREC_LEASE_SECONDS", "1e300"), ("DYNREC_POLL_SECONDS", "-1"), ("DYNREC_SWEEP_SECONDS", "soon"), ("DYNREC_LOG_LEVEL", "info; drop"), ("DYNREC_PRECISION", "float8"),
        ("DYNREC_MAX_PARALLEL_HINTS", "-0"), ("DYNREC_LOG_FORMAT", "\u202e"),
    ],
)  # fmt: skip
def test_bad_variables_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    result = runner.invoke(app, ["status"])
    assert result.exit_code == 1
    check(result, value)
    assert f"{variable}={value!r}" in result.stderr


@pytest.mark.parametrize("folder", ["x" * 5_000, "/dev/null", "/dev/null/x", "/proc/nothing"])
def test_bad_folders_are_named(folder: str) -> None:
    result = runner.invoke(app, ["status", "--data-dir", folder])
    assert result.exit_code == 1
    check(result, folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--batch-size", "0"], ["up", "--precision", "float8"], ["up", "--lease-seconds", "inf"], ["up", "--log-level", "x" * 100_000], ["demo", "--households", "-1"],
        ["worker", "--concurrency", "0"], ["worker", "--device", "'; --", "--lease-seconds", "nan"], ["dispatcher", "--log-format", "\u202e"], ["train", "shop", "--option", "epochs"],
        ["metrics", "--listen", "x" * 1_000 + ":1"], ["metrics", "--listen", "127.0.0.1:" + "1" * 5_000], ["metrics", "--listen", "a\0b:1"], ["metrics", "--listen", "\u202e:\u0663"],
        ["bench", "--no-such-option"], ["bench", "x" * 1_000], ["no-such-command"], ["--no-such-option"], ["\udcff"],
    ],
)  # fmt: skip
def test_long_jobs_do_not_begin(arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert any(names(result.stderr, value) for value in arguments[1:] or arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [b"recommend", b"shop", b"\xff\xfe"], [b"recommend", b"\xff", b"u1"], [b"search", b"shop", b"\xff", b"--text-only"], [b"recommend", b"shop", b"u1", b"--filter", b"title = '\xff'"],
        [b"recommend", b"shop", b"u1", b"--args", b'{"a": "\xff"}'],
    ],
)  # fmt: skip
def test_real_processes_with_bytes_that_are_no_text(busy_url: str, arguments: list[bytes]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dynrec_store", *arguments, "--database-url", busy_url],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, 1, 2}
    assert b"Traceback" not in done.stderr
    assert b"mistake in dynrec" not in done.stderr
    assert done.returncode == 0 or done.stderr.startswith(b"error: ")
