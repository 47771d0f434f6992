"""Workers that do what real ones do, one committed statement after another, and that fail in every way."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from dynrec_store import queue
from dynrec_store.queue import Connection, ItemRow, Kind
from tests.property import shop
from workers.encoders import content_hash
from workers.encoders.hashing import HashingEncoder

_encoder = HashingEncoder(shop.DIMENSION)
LONG = timedelta(minutes=10)


def publish(connection: Connection, token: UUID, rows: list[ItemRow]) -> dict[str, queue.Published]:
    """Encode what needs it and publish."""
    texts = list(dict.fromkeys(row.content for row in rows if row.needs_vector and row.content is not None))
    vectors = list(_encoder.encode(texts))
    return queue.publish_items(connection, token, rows, [content_hash(text) for text in texts], vectors)


def work(connection: Connection, kind: Kind, *, batch_size: int = 100) -> bool:
    """Claim, read and publish one batch; False if there was none."""
    token = queue.claim(connection, shop.NAME, kind, batch_size, LONG)
    if token is None:
        return False
    finish(connection, kind, token)
    return True


def finish(connection: Connection, kind: Kind, token: UUID) -> None:
    """Read and publish what is leased."""
    if kind == "user":
        queue.publish_users(connection, token)
    elif queue.encoding(connection, shop.NAME).adopted:
        queue.publish_adopted(connection, token)
    else:
        publish(connection, token, queue.read_items(connection, token))


def drain(connection: Connection, *, seconds: float = 30.0) -> None:
    """Work until nothing is left; leases of others are waited for until they expire."""
    until = time.monotonic() + seconds
    while True:
        queue.expire_leases(connection)
        connection.execute("select dynrec.retry_failed(%s)", [shop.NAME])
        busy = [work(connection, "item"), queue.run_task(connection) is not None, work(connection, "user")]
        if not any(busy):
            left = connection.execute(
                "select count(*) from (select from dynrec_data.lease union all select from dynrec_data.change"
                " union all select from dynrec_data.task union all select from dynrec_data.retry"
                " union all select from dynrec_data.dead_letter) l"
            ).fetchone()
            if left == (0,) or time.monotonic() > until:
                return
            time.sleep(0.02)


@dataclass(frozen=True)
class UnreliableWorker:
    """Works with random delays, forgets leases, publishes late or in parts, and says that rows failed."""

    connection: Connection
    random: random.Random
    longest_lease: float = 0.2  # seconds

    def act(self) -> str:
        """One random piece of work; returns its name."""
        action = self.random.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        action(self)
        return action.__name__

    def pause(self) -> None:
        time.sleep(self.random.choice([0, 0, 0, 0.001, 0.005, 0.03]))

    def claim(self, kind: Kind) -> UUID | None:
        lease = timedelta(seconds=self.random.choice([0.005, 0.05, self.longest_lease]))
        return queue.claim(self.connection, shop.NAME, kind, self.random.choice([1, 2, 5, 50]), lease)


def recompute_items(worker: UnreliableWorker) -> None:
    token = worker.claim("item")
    if token is None:
        return
    worker.pause()
    if queue.encoding(worker.connection, shop.NAME).adopted:
        queue.publish_adopted(worker.connection, token)
        return
    rows = queue.read_items(worker.connection, token)
    worker.pause()
    middle = worker.random.randint(0, len(rows))
    for part in (rows[:middle], rows[middle:]):
        if part:
            publish(worker.connection, token, part)
        worker.pause()


def recompute_users(worker: UnreliableWorker) -> None:
    token = worker.claim("user")
    if token is not None:
        worker.pause()
        queue.publish_users(worker.connection, token)


def publish_twice(worker: UnreliableWorker) -> None:
    token = worker.claim("item")
    if token is not None and not queue.encoding(worker.connection, shop.NAME).adopted:
        rows = queue.read_items(worker.connection, token)
        publish(worker.connection, token, rows)
        again = publish(worker.connection, token, rows)
        assert {item.outcome for item in again.values()} <= {"superseded"}, again


def forget_lease(worker: UnreliableWorker) -> None:
    worker.claim(worker.random.choice(["item", "user"]))


def publish_late(worker: UnreliableWorker) -> None:
    kind: Kind = worker.random.choice(["item", "user"])
    token = worker.claim(kind)
    if token is None:
        return
    read = kind == "item" and not queue.encoding(worker.connection, shop.NAME).adopted
    rows = queue.read_items(worker.connection, token) if read else []
    time.sleep(worker.longest_lease * worker.random.uniform(0.2, 1.5))
    if read:
        publish(worker.connection, token, rows)
    else:
        finish(worker.connection, kind, token)


def fail(worker: UnreliableWorker) -> None:
    kind: Kind = worker.random.choice(["item", "user"])
    token = worker.claim(kind)
    if token is None:
        return
    entities = queue.leased_entities(worker.connection, token)
    some = [entity for entity in entities if worker.random.random() < 0.5]
    worker.pause()
    queue.fail(worker.connection, token, some, "made to fail", charge=worker.random.random() < 0.5)
    finish(worker.connection, kind, token)


def run_task(worker: UnreliableWorker) -> None:
    queue.run_task(worker.connection)


def sweep(worker: UnreliableWorker) -> None:
    queue.expire_leases(worker.connection)
    queue.release_retries(worker.connection)
    queue.seconds_until_due(worker.connection)


def retry_failed(worker: UnreliableWorker) -> None:
    worker.connection.execute("select dynrec.retry_failed(%s)", [shop.NAME])


def maintain(worker: UnreliableWorker) -> None:
    queue.maintain(worker.connection)
    queue.pending_work(worker.connection)


ACTIONS: dict[Callable[[UnreliableWorker], None], int] = {
    recompute_items: 30,
    recompute_users: 30,
    publish_twice: 3,
    forget_lease: 4,
    publish_late: 4,
    fail: 4,
    run_task: 15,
    sweep: 10,
    retry_failed: 2,
    maintain: 2,
}
