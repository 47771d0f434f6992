"""`dynrec health`: what a health check of a container asks."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from dynrec_store.settings import Settings
from tests.workers.support import Connection, Fussy, until
from workers.background import Background, beating
from workers.celery_app import make_app
from workers.context import Context, process_name
from workers.dispatcher import Dispatcher
from workers.exceptions import DeviceFault
from workers.health import OLD, OLD_PROOF, Unhealthy, check_health
from workers.proof import Proof


@pytest.fixture(autouse=True)
def _declared(products: Connection) -> None:
    """Something to encode for."""


@pytest.fixture
def health(settings: Settings, database_url: str) -> Callable[[str], str]:
    """What the health check says of a process of this machine, the error included."""
    found = settings.model_copy(update={"database_url": SecretStr(database_url)})

    def say(role: str) -> str:
        try:
            return check_health(found, role)
        except Unhealthy as error:
            return str(error)

    return say


def note(connection: Connection, role: str, age: timedelta, **details: object) -> None:
    """A heartbeat of some time ago."""
    connection.execute(
        "insert into dynrec_data.heartbeat (process, role, details, beat_at) values (%s, %s, %s, clock_timestamp() - %s)",
        [process_name(role), role, Jsonb(details), age],
    )


def test_a_dispatcher_is_healthy_while_it_runs(
    settings: Settings, database_url: str, health: Callable[[str], str]
) -> None:
    assert "ever" in health("dispatcher")
    dispatcher = Dispatcher(settings, database_url, make_app(settings))
    with Background("dispatcher", dispatcher.run, stop=dispatcher.stop):
        until(lambda: "alive" in health("dispatcher") and "ever" not in health("dispatcher"))
    assert "no worker" in health("worker")


def test_an_old_heartbeat_is_none(connection: Connection, health: Callable[[str], str]) -> None:
    note(connection, "dispatcher", OLD + timedelta(seconds=1))
    assert "last alive 31 s ago" in health("dispatcher")


def test_a_worker_without_models_needs_a_heartbeat_only(context: Context, health: Callable[[str], str]) -> None:
    with beating(context):
        until(lambda: health("worker").startswith("the worker was alive"))


def test_a_worker_is_healthy_if_it_can_encode(context: Context, fussy: Fussy, health: Callable[[str], str]) -> None:
    proof = Proof(context)
    with beating(context, proof.details):
        pass
    assert "no model is loaded yet" in health("worker")
    with Background("proof", proof.keep, stop=context.stopping.set):
        until(lambda: bool(fussy.texts))
    with beating(context, proof.details):
        pass
    assert health("worker").startswith("the worker was alive")


def test_a_worker_whose_device_fails_is_not(context: Context, fussy: Fussy, health: Callable[[str], str]) -> None:
    fussy.fault = DeviceFault("the device burns")
    proof = Proof(context)
    with Background("proof", proof.keep, stop=context.stopping.set):
        until(lambda: bool(fussy.texts))
    with beating(context, proof.details):
        pass
    assert health("worker") == "the worker cannot encode: the device burns"


def test_a_model_that_hangs_is_noticed(connection: Connection, health: Callable[[str], str]) -> None:
    note(connection, "worker", timedelta(0), trouble=None, proved=OLD_PROOF.total_seconds() + 5)
    assert "for the last time 125 s ago" in health("worker")


def test_members_of_dynrec_worker_may_ask(connection: Connection) -> None:
    name = f"asks_{os.getpid()}"
    note(connection, "dispatcher", timedelta(0))
    connection.execute(sql.SQL("create role {} login password 'x' in role dynrec_worker").format(sql.Identifier(name)))
    try:
        connection.execute(sql.SQL("set role {}").format(sql.Identifier(name)))
        assert connection.execute("select age is not null from dynrec._last_beat('dynrec-dispatcher-')").fetchone() == (
            True,
        )
    finally:
        connection.execute("reset role")
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_the_command_says_it_by_its_status(connection: Connection, database_url: str) -> None:
    command = [sys.executable, "-m", "dynrec_store", "health", "dispatcher", "--database-url", database_url]
    before = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (before.returncode, before.stderr.startswith("error: no dispatcher")) == (1, True)
    note(connection, "dispatcher", timedelta(0))
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0
