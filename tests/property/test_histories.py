"""Random histories, one statement at a time: writers in open transactions, workers between any two of their steps.

Whatever happens, when everything has settled the database holds what a computation from scratch gives, and answers
questions about the past as it answered them then.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import IsolationLevel
from psycopg.errors import DeadlockDetected, LockNotAvailable, SerializationFailure, UniqueViolation

from dynrec_store import queue
from dynrec_store.queue import ItemRow, Kind
from tests.property import answers, labour, oracle, shop
from tests.property.answers import Answers
from tests.property.shop import Writer

REFUSALS = (DeadlockDetected, LockNotAvailable, SerializationFailure, UniqueViolation)

dice = st.integers(0, 2**32).map(random.Random)
kinds: st.SearchStrategy[Kind] = st.sampled_from(["item", "user"])
levels = st.sampled_from([IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
actions = st.sampled_from(list(shop.ACTIONS)) | st.just(shop.insert_events)


@dataclass
class Lease:
    """What a worker knows of a claim."""

    token: UUID
    kind: Kind
    rows: list[ItemRow] = field(default_factory=list)


class Histories(RuleBasedStateMachine):
    """Every rule is a statement that commits, or a step in the second writer's transaction."""

    leases = Bundle("leases")

    def __init__(self, url: str, drop: Callable[[str], None]) -> None:
        super().__init__()
        self.url, self._drop = url, drop
        self.first = self._connect()
        self.second = self._connect()
        self.worker = queue.connect(self.url, application_name="worker")
        self.remembered: list[Answers] = []

    def _connect(self) -> shop.Connection:
        connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(self.url, autocommit=True)
        connection.execute("set lock_timeout = '30ms'")
        return connection

    @initialize(layout=st.sampled_from(shop.LAYOUTS), attempts=st.sampled_from([1, 2, 100]), dice=dice)
    def declare(self, layout: str, attempts: int, dice: random.Random) -> None:
        writer = Writer(self.first, dice)
        shop.declare(self.first, layout, max_attempts=attempts)
        shop.upsert_items(writer)
        shop.insert_events(writer)

    @rule(action=actions, dice=dice)
    def write(self, action: Callable[[Writer], None], dice: random.Random) -> None:
        with suppress(*REFUSALS):
            action(Writer(self.first, dice))

    @rule(level=levels)
    @precondition(lambda self: not self.in_transaction)
    def begin(self, level: IsolationLevel) -> None:
        self.second.isolation_level = level
        self.second.autocommit = False
        self.second.execute("select 1")  # it begins here, and what follows are parts of it

    @rule(action=actions, dice=dice)
    @precondition(lambda self: self.in_transaction)
    def write_in_transaction(self, action: Callable[[Writer], None], dice: random.Random) -> None:
        with suppress(*REFUSALS), self.second.transaction():
            action(Writer(self.second, dice))

    @rule(commit=st.booleans())
    @precondition(lambda self: self.in_transaction)
    def end(self, *, commit: bool) -> None:
        with suppress(*REFUSALS):
            if commit:
                self.second.commit()
        self.second.rollback()
        self.second.autocommit = True

    @property
    def in_transaction(self) -> bool:
        return not self.second.autocommit

    @rule(target=leases, kind=kinds, batch_size=st.sampled_from([1, 3, 50]))
    def claim(self, kind: Kind, batch_size: int) -> Lease | None:
        token = queue.claim(self.worker, shop.NAME, kind, batch_size, labour.LONG)
        return Lease(token, kind) if token else None

    @rule(lease=leases)
    def read(self, lease: Lease | None) -> None:
        """Read items; vectors that are adopted are published at once."""
        if lease and lease.kind == "item" and not lease.rows and self._unlocked():
            if oracle.is_adopted(self.first):
                queue.publish_adopted(self.worker, lease.token)
            else:
                lease.rows = queue.read_items(self.worker, lease.token)

    @rule(lease=leases, share=st.sampled_from([0.3, 1.0, 1.0]))
    def publish(self, lease: Lease | None, share: float) -> None:
        """Publish items that were read, maybe some at first, maybe all for a second time."""
        if lease and lease.kind == "item" and lease.rows:
            labour.publish(self.worker, lease.token, lease.rows[: max(1, round(share * len(lease.rows)))])

    @rule(lease=leases)
    def publish_users(self, lease: Lease | None) -> None:
        if lease and lease.kind == "user" and self._unlocked():
            queue.publish_users(self.worker, lease.token)

    @rule(lease=consumes(leases), share=st.sampled_from([0.5, 1.0]), charge=st.booleans())
    def fail(self, lease: Lease | None, share: float, *, charge: bool) -> None:
        if lease:
            entities = queue.leased_entities(self.worker, lease.token)
            some = entities[: round(share * len(entities))]
            queue.fail(self.worker, lease.token, some, "made to fail", charge=charge)

    @rule(lease=leases)
    def expire(self, lease: Lease | None) -> None:
        """The lease runs out; its worker may still publish."""
        if lease:
            self.worker.execute("update dynrec_data.lease set deadline = now() where token = %s", [lease.token])
            queue.expire_leases(self.worker)

    @rule()
    def retry(self) -> None:
        self.worker.execute("update dynrec_data.retry set not_before = now() where not_before < 'infinity'")
        queue.release_retries(self.worker)

    @rule()
    def retry_failed(self) -> None:
        self.first.execute("select dynrec.retry_failed()")

    @rule()
    @precondition(lambda self: self._unlocked())
    def run_task(self) -> None:
        queue.run_task(self.worker)

    @rule()
    def maintain(self) -> None:
        queue.maintain(self.worker)

    @rule()
    @precondition(lambda self: not self.in_transaction)
    def settle(self) -> None:
        """Every worker finishes; then the state is the one computed from scratch."""
        self.worker.execute("update dynrec_data.lease set deadline = now()")
        labour.drain(self.worker)
        assert list(oracle.differences(self.first)) == []
        self.remembered.append(answers.now(self.first))

    @rule()
    @precondition(lambda self: self._unlocked() and self.remembered)
    def look_back(self) -> None:
        for then in self.remembered:
            assert answers.differences(then, answers.as_of(self.first, then.at)) == []

    def _unlocked(self) -> bool:
        """Whether no table is held by a truncate of the open transaction."""
        return self.first.execute(
            """
            select not exists (select from pg_locks l join pg_database d on d.oid = l.database
              where d.datname = current_database() and l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
                and l.pid <> pg_backend_pid())
            """
        ).fetchone() == (True,)

    def teardown(self) -> None:
        try:
            if self.in_transaction:
                self.end(commit=True)
            self.settle()
            self.look_back()
        finally:
            for connection in (self.first, self.second, self.worker):
                connection.close()
            self._drop(self.url)


@pytest.mark.slow
def test_histories(make_database: Callable[..., str], drop_database: Callable[[str], None], template: str) -> None:
    class Here(Histories):
        def __init__(self) -> None:
            super().__init__(make_database(template), drop_database)

    run_state_machine_as_test(Here)
