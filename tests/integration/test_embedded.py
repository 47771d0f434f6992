"""The embedded server: made once, attached to, killed, and started again."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from dynrec_store import binaries, postmaster
from dynrec_store.embedded import EmbeddedPostgres
from dynrec_store.exceptions import ConfigurationError, EmbeddedServerError

SETTINGS = {"shared_buffers": "16MB", "fsync": "off"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def data_dir(open_folder: Path) -> Iterator[Path]:
    """A data folder of this test's own; what still runs there at the end is stopped."""
    folder = open_folder / "embedded"
    yield folder
    postmaster.stop(folder / "pgdata")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def embedded(data_dir: Path, postgres_package: str) -> EmbeddedPostgres:
    """A server that nobody has started yet."""
    return EmbeddedPostgres(data_dir, package=postgres_package, settings=SETTINGS)


def answer(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def pid_of(server: EmbeddedPostgres) -> int:
    found = postmaster.running(server.pgdata)
    assert found is not None
    return found.pid


def remember(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table kept as select 42 as answer")


def remembered(url: str) -> bool:
    return answer(url, "select answer from kept") == 42


def test_data_and_url_survive_a_restart(embedded: EmbeddedPostgres) -> None:
    with embedded as server:
        url = server.url
        remember(url)
        assert answer(url, "show server_encoding") == "UTF8"
        assert answer(url, "select lower('ÄÉ')") == "äé"
        assert answer(url, "show shared_buffers") == "16MB"
        assert answer(url, "show synchronous_commit") == "on"
    assert postmaster.running(embedded.pgdata) is None
    with embedded as server:
        assert server.url == url
        assert remembered(url)


def test_the_last_user_out_stops_the_server(embedded: EmbeddedPostgres, data_dir: Path) -> None:
    with embedded as first:
        pid = pid_of(first)
        with EmbeddedPostgres(data_dir) as second:
            assert pid_of(second) == pid
        assert pid_of(first) == pid
    assert postmaster.running(first.pgdata) is None


def test_a_process_that_dies_leaves_a_server_to_attach_to(
    embedded: EmbeddedPostgres, data_dir: Path, postgres_package: str
) -> None:
    script = (
        "import os, pathlib, signal; from dynrec_store.embedded import EmbeddedPostgres; "
        f"EmbeddedPostgres(pathlib.Path({str(data_dir)!r}), package={postgres_package!r}).start(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    pid = pid_of(embedded)
    with embedded as server:
        assert pid_of(server) == pid
    assert postmaster.running(server.pgdata) is None


def test_many_starts_at_once_make_one_server(embedded: EmbeddedPostgres, data_dir: Path, postgres_package: str) -> None:
    script = (
        "import pathlib; from dynrec_store.embedded import EmbeddedPostgres; "
        f"server = EmbeddedPostgres(pathlib.Path({str(data_dir)!r}), package={postgres_package!r}); server.start(); "
        "print(server.url); input()"
    )
    starters = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    urls = {starter.stdout.readline().strip() for starter in starters if starter.stdout}
    for starter in starters:
        starter.communicate("\n")
    assert urls == {embedded.url}


def test_killing_everything_loses_nothing(embedded: EmbeddedPostgres) -> None:
    with embedded as server:
        url = server.url
        remember(url)
        family = [psutil.Process(pid_of(server)), *psutil.Process(pid_of(server)).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # they end by themselves once the first is gone
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family)
        assert (server.pgdata / "postmaster.pid").exists()
        server.start()
        assert server.url == url
        assert remembered(url)


def test_a_server_that_leaves_processes_behind_is_started_again(embedded: EmbeddedPostgres) -> None:
    with embedded as server, psycopg.connect(server.url, autocommit=True) as connection:
        remember(server.url)
        server_process = psutil.Process(pid_of(server))
        server_process.kill()
        server_process.wait()
        server.start()
        assert remembered(server.url)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


def test_a_stale_pid_that_is_somebody_elses_today_does_not_matter(embedded: EmbeddedPostgres) -> None:
    with embedded as server:
        remember(server.url)
        pid_file = server.pgdata / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    bystander = subprocess.Popen(["sleep", "60"], user=server.pgdata.owner())
    try:
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        binaries.own(pid_file)
        with embedded as server:
            assert remembered(server.url)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_half_made_cluster_is_made_again(embedded: EmbeddedPostgres, data_dir: Path) -> None:
    half_made = data_dir / "making-12345678" / "pgdata"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with embedded as server:
        assert answer(server.url, "select 1") == 1
    assert not half_made.exists()


def test_a_port_that_was_taken_meanwhile_is_given_up(embedded: EmbeddedPostgres) -> None:
    with embedded as server:
        port = urlsplit(server.url).port
    with socket.create_server(("127.0.0.1", port or 0)), embedded as server:
        assert urlsplit(server.url).port != port
        assert answer(server.url, "select 1") == 1


def test_nobody_gets_in_without_the_password(embedded: EmbeddedPostgres, data_dir: Path) -> None:
    with embedded as server:
        parts = urlsplit(server.url)
        for host in ("127.0.0.1", str(data_dir / "run")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(host=host, port=parts.port, user=parts.username, dbname="dynrec", password="guess")
            with psycopg.connect(host=host, port=parts.port, user="postgres", dbname="dynrec", password=parts.password):
                pass
        for private in (server.pgdata, data_dir / "run"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_failed_start_shows_the_log(embedded: EmbeddedPostgres) -> None:
    with embedded as server:
        configuration = server.pgdata / "postgresql.conf"
    configuration.write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        embedded.start()


def test_a_missing_package_is_named(data_dir: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'no-such-postgres' is not installed: install dynrec-store\[embedded\]"
    ):
        EmbeddedPostgres(data_dir, package="no_such_postgres").start()


@as_root
def test_unreachable_binaries_are_copied_and_nobodys_rights_change(
    open_folder: Path, data_dir: Path, postgres_package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = binaries.locate(postgres_package, data_dir).root.parent
    hidden = open_folder / "hidden"
    hidden.mkdir(mode=0o700)
    for part in (f"{postgres_package}/pginstall", f"{postgres_package}.libs"):
        shutil.copytree(original.parent / part, hidden / part, symlinks=True)
    (hidden / postgres_package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(hidden))
    with EmbeddedPostgres(data_dir, package=postgres_package, settings=SETTINGS) as server:
        assert answer(server.url, "select 1") == 1
        program = Path(psutil.Process(pid_of(server)).exe())
    assert program.is_relative_to(data_dir)
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700


@as_root
def test_a_data_folder_that_cannot_be_reached_is_refused(open_folder: Path, postgres_package: str) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match="choose a data_dir"):
        EmbeddedPostgres(closed / "data", package=postgres_package).start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_long_path_goes_without_a_socket(open_folder: Path, postgres_package: str) -> None:
    deep = open_folder / ("x" * 90)
    with EmbeddedPostgres(deep, package=postgres_package, settings=SETTINGS) as server:
        assert answer(server.url, "select 1") == 1
    shutil.rmtree(deep)


@as_root
def test_a_strict_umask_does_not_lock_the_server_out(embedded: EmbeddedPostgres) -> None:
    before = os.umask(0o077)
    try:
        with embedded as server:
            assert answer(server.url, "select 1") == 1
    finally:
        os.umask(before)


def test_stopping_what_never_ran_is_nothing(embedded: EmbeddedPostgres) -> None:
    embedded.stop()
    embedded.release()
