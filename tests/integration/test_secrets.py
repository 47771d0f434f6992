"""The password of the database is told to nobody: not by process lists, logs, errors, the server's views or those of dynrec."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

PASSWORD = "p@ss/w%rd:'\"; #ünd?x=1&"  # what a URL has to escape
PARTS = ("p@ss", "w%rd", quote("p@ss/w%rd", safe=""), "%C3%BCnd")
PATIENCE = 60.0  # seconds


def with_password(url: str, user: str, password: str) -> str:
    """The URL for another user."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{parts.hostname}:{parts.port}"))


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """The database for a superuser with a password of odd characters."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role odd superuser login password {}").format(sql.Literal(PASSWORD)))
        yield with_password(database_url, "odd", PASSWORD)
        connection.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'odd'")
        connection.execute("drop owned by odd; drop role odd")


def environment(url: str) -> dict[str, str]:
    """That of a process which is given the URL as a setting."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DYNREC_", "PG"))}
    return inherited | {"DYNREC_DATABASE_URL": url, "PYTHONPATH": str(Path.cwd()), "DYNREC_LOG_LEVEL": "DEBUG"}


def dynrec(*arguments: str, url: str) -> str:
    """All that a command says."""
    done = subprocess.run(
        [sys.executable, "-m", "dynrec_store", *arguments],
        env=environment(url), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def assert_silent(said: str, about: str) -> None:
    """Nothing of the password is in it, escaped or not."""
    assert not any(part in said for part in PARTS), f"{about} tells: {said[:2000]}"


def processes(pid: int) -> list[int]:
    """A process and its descendants."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(one for child in children for one in processes(child))]


def test_a_running_system_does_not_tell_it(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table product (id int primary key, title text)")
        connection.execute(
            "select dynrec.create_recommender('shop', 'public.product', text_columns => '{title}', encoder => 'hashing')"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "dynrec_store", "up"], env=environment(url), stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + PATIENCE
            connection.execute("insert into product values (1, 'a hat')")
            while connection.execute("select items from dynrec.model_versions").fetchall() != [(1,)]:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            for pid in processes(process.pid):
                assert_silent(Path(f"/proc/{pid}/cmdline").read_text(), "the process list")
            for statement in (
                "select string_agg(a::text, ' ') from pg_stat_activity a where usename = 'odd' and pid <> pg_backend_pid()",
                "select string_agg(h::text, ' ') from dynrec_data.heartbeat h",
                "select string_agg(d::text, ' ') from dynrec.doctor() d",
                "select string_agg(s::text, ' ') from dynrec.status s",
            ):
                ((told,),) = connection.execute(statement.encode()).fetchall()
                assert_silent(str(told), statement)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert_silent(log.read_text(), "the log")


@pytest.mark.parametrize("command", ["status", "migrate", "up"])
@pytest.mark.parametrize("broken", ["password", "port", "scheme", "percent"])
def test_no_error_tells_it(database_url: str, command: str, broken: str) -> None:
    url = with_password(database_url, "nobody_of_a_test", PASSWORD)
    parts = urlsplit(url)
    url = {
        "password": url,
        "port": url.replace(f":{parts.port}/", ":1/"),
        "percent": url.replace("%25", "%"),
        "scheme": url.replace("postgresql://", "mysql://"),
    }[broken]
    said = dynrec(command, url=url)
    assert "settings cannot be used" not in said
    assert said.strip()
    assert_silent(said, f"dynrec {command}")
