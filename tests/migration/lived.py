"""A database in the middle of its work, and whether it goes on elsewhere."""

import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from dynrec_store import queue
from tests.property import answers, labour, oracle, shop
from tests.property.shop import Writer

Session = psycopg.Connection[tuple[Any, ...]]

KINDS: tuple[queue.Kind, ...] = ("item", "user")


@dataclass(frozen=True)
class Memory:
    """What was known of a database when it was left."""

    quiet: answers.Answers  # when everything had been worked through
    busy: answers.Answers  # when it was left
    waiting: list[tuple[Any, ...]]  # changes, leases, retries, dead letters, tasks


def live(url: str) -> Memory:
    """Fill a database with history, and leave work of every sort undone."""
    dice = random.Random(7)
    with psycopg.connect(url, autocommit=True) as connection, queue.connect(url, application_name="worker") as worker:
        shop.declare(connection, max_attempts=1)
        writer = Writer(connection, dice)
        shop.upsert_items(writer)
        for _ in range(4):
            act(writer, 30)
            labour.drain(worker)
        quiet = answers.now(connection)
        for charge in (True, False):
            act(writer, 15)
            for kind in KINDS:
                if token := queue.claim(worker, shop.NAME, kind, 3, labour.LONG):
                    queue.fail(worker, token, queue.leased_entities(worker, token), "made to fail", charge=charge)
        queue.claim(worker, shop.NAME, "user", 3, labour.LONG)
        act(writer, 10)
        shop.refresh_all(writer)
        return Memory(quiet, answers.now(connection), waiting(connection))


def act(writer: Writer, times: int) -> None:
    for _ in range(times):
        with suppress(psycopg.errors.UniqueViolation):
            writer.act()


def waiting(connection: Session) -> list[tuple[Any, ...]]:
    return connection.execute(
        """
        select 'change', to_jsonb(c)::text from dynrec_data.change c
        union all select 'lease', to_jsonb(l)::text from dynrec_data.lease l
        union all select 'retry', to_jsonb(r)::text from dynrec_data.retry r
        union all select 'dead_letter', to_jsonb(d)::text from dynrec_data.dead_letter d
        union all select 'task', to_jsonb(t)::text from dynrec_data.task t
        order by 1, 2
        """
    ).fetchall()


def assert_goes_on(url: str, before: Memory) -> None:
    """This database knows what that one knew, and works."""
    with psycopg.connect(url, autocommit=True) as connection, queue.connect(url, application_name="worker") as worker:
        assert waiting(connection) == before.waiting
        assert {kind for kind, _ in before.waiting} == {"change", "lease", "retry", "dead_letter", "task"}
        assert answers.differences(before.busy, answers.now(connection)) == []
        assert answers.differences(before.quiet, answers.as_of(connection, before.quiet.at)) == []
        ailments = "select finding from dynrec.doctor() where severity = 'error' and subject = %s"
        assert connection.execute(ailments, [shop.NAME]).fetchall() == []
        act(Writer(connection, random.Random(8)), 40)
        connection.execute("update dynrec_data.lease set deadline = now()")
        labour.drain(worker)
        assert list(oracle.differences(connection)) == []
        assert answers.differences(before.quiet, answers.as_of(connection, before.quiet.at)) == []
