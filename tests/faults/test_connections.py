"""Connections end in the middle of whatever they are used for: cut by the server, by the network, or unnoticed."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.load import Load, until, wait_for
from tests.faults.nursery import Nursery
from tests.faults.proxy import FORGOTTEN, RESET, STALLED, Proxy, may_forget
from tests.property.shop import Connection

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("broker_url", ["memory"], indirect=True)
def test_backends_are_terminated(nursery: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    for role in nursery.roles:
        nursery.start(role)
    with load.going_on(writers=2, readers=1), psycopg.connect(load.url, autocommit=True) as connection:
        for _ in range(30 * rounds):
            time.sleep(dice.uniform(0, 0.5))
            if dice.random() < 0.7:
                until(connection, "select exists (select from dynrec_data.lease)")
                time.sleep(dice.choice([0, 0.001, 0.005, 0.02]))
            for _ in range(terminate(connection, dice)):
                load.ledger.inflict("backend terminated")
    assert load.differences() == []
    assert nursery.complaints() == ""


def terminate(connection: Connection, dice: random.Random) -> int:
    """Terminate one backend of the workers and dispatchers, preferably a busy one, or all; returns how many."""
    backends = connection.execute(
        """
        select pid from pg_stat_activity where application_name like 'dynrec-%' and datname = current_database()
        order by state = 'active' desc, random()
        """
    ).fetchall()
    chosen = backends if dice.random() < 0.2 else backends[:1]
    return sum(connection.execute("select pg_terminate_backend(%s)", pid).fetchone() == (True,) for pid in chosen)


@pytest.fixture
def proxy(database_url: str, seed: int) -> Iterator[Proxy]:
    with Proxy(database_url, random.Random(seed)) as running:
        yield running


@pytest.fixture
def behind_proxy(proxy: Proxy, tmp_path: Path) -> Iterator[Nursery]:
    with Nursery(proxy.url, tmp_path, None) as running:
        yield running


def test_the_network_fails(proxy: Proxy, behind_proxy: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    behind_proxy.start("both")  # one alone: nobody takes over from what hangs
    with load.going_on(writers=2, readers=1):
        for _ in range(rounds):
            last = FORGOTTEN if may_forget() else RESET
            for fate, share in [(RESET, 0.3), (RESET, 1.0), (STALLED, 0.3), (RESET, 0.3), (last, 1.0)]:
                time.sleep(dice.uniform(0, 1))
                break_connections(proxy, fate, share, load)
    assert load.differences() == []
    assert behind_proxy.complaints() == ""
    # the server has let go of the connections that nobody closed, and of their locks
    wait_for(lambda: workers_connected(load.url) <= len(proxy.alive))


def break_connections(proxy: Proxy, fate: str, share: float, load: Load) -> None:
    """Break at least one."""
    broken = 0

    def some_broken() -> bool:
        nonlocal broken
        broken = proxy.inflict(fate, share)
        return broken > 0

    wait_for(some_broken)
    for _ in range(broken):
        load.ledger.inflict(fate)


def workers_connected(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "select from pg_stat_activity where application_name like 'dynrec-worker-%' and datname = current_database()"
        ).fetchall()
    return len(rows)
