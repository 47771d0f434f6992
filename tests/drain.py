"""What the dispatcher and the workers do, in one thread: everything that waits is done when `drain` returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg

from workers.encoders.base import content_hash
from workers.encoders.hashing import HashingEncoder

Session: TypeAlias = psycopg.Connection[tuple[Any, ...]]

ROUNDS = 100  # far more than anything needs; a queue that never empties is a bug


class Encodes(Protocol):
    """As much of an encoder as draining needs."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One vector for each text."""


class CountingEncoder:
    """The hashing encoder, remembering every text that it was asked for."""

    def __init__(self) -> None:
        self._encoder = HashingEncoder()
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One vector of 256 dimensions for each text."""
        self.texts += texts
        return self._encoder.encode(texts)


@dataclass(frozen=True)
class Row:
    """A leased item as `_read_items` gave it."""

    item_id: str
    content: str | None
    features: str | None
    needs_vector: bool


def claim(connection: Session, recommender: str, kind: str, batch_size: int = 256, lease: str = "1 hour") -> str | None:
    """Lease a batch and commit."""
    row = connection.execute(
        "select dynrec._claim(%s, %s, %s, %s::interval)::text", [recommender, kind, batch_size, lease]
    ).fetchone()
    assert row is not None
    token: str | None = row[0]
    return token


def read(connection: Session, token: str) -> list[Row]:
    """The source rows of a lease."""
    statement = "select item_id, content, features::text, needs_vector from dynrec._read_items(%s)"
    return [Row(*row) for row in connection.execute(statement, [token]).fetchall()]


def publish(connection: Session, token: str, rows: Sequence[Row], encoder: Encodes) -> dict[str, str]:
    """Encode what needs a vector and publish; the outcome for each item."""
    texts = sorted({row.content for row in rows if row.content is not None and row.needs_vector})
    return publish_vectors(connection, token, rows, texts, encoder.encode(texts) if texts else [])


def publish_vectors(
    connection: Session,
    token: str,
    rows: Sequence[Row],
    texts: Sequence[str],
    vectors: Sequence[npt.NDArray[np.float32]] | npt.NDArray[np.float32],
) -> dict[str, str]:
    """Publish with these vectors for these texts; the outcome for each item."""
    outcomes = connection.execute(
        "select item_id, outcome from dynrec._publish_items(%s, %s::text[], %s::text[], %s::text[]::jsonb[], %s::bytea[], %s::text[]::vector[])",
        [
            token,
            [row.item_id for row in rows],
            [row.content for row in rows],
            [row.features for row in rows],
            [content_hash(text) for text in texts],
            [as_text(vector) for vector in vectors],
        ],
    ).fetchall()
    return dict(outcomes)


def publish_users(connection: Session, token: str) -> int:
    """Fold the pending interactions of a lease of users."""
    row = connection.execute("select dynrec._publish_users(%s)", [token]).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def run_tasks(connection: Session) -> list[str]:
    """Run the tasks that can run now; what each did."""
    done = []
    while (row := connection.execute("select dynrec._run_task()").fetchone()) != (None,):
        assert row is not None
        done.append(row[0])
    return done


def drain(connection: Session, encoder: Encodes | None = None, batch_size: int = 256) -> None:
    """Do everything that waits for any recommender that is not paused."""
    encoder = encoder or HashingEncoder()
    for _ in range(ROUNDS):
        run_tasks(connection)
        waiting = connection.execute(
            "select p.recommender, p.work, e.adopted "
            "from dynrec._pending_work() p, dynrec._recommender_encoder(p.recommender) e where p.work in ('item', 'user') and p.backlog > 0"
        ).fetchall()
        # of what is leased to others nothing can be claimed
        done = [
            _drain_kind(connection, recommender, work, encoder=None if adopted else encoder, batch_size=batch_size)
            for recommender, work, adopted in waiting
        ]
        if not any(done) and not _bring_back_the_blameless(connection):
            return
    raise AssertionError(f"the queue does not empty: {connection.execute('select * from dynrec.queue').fetchall()}")


def _bring_back_the_blameless(connection: Session) -> bool:
    # they back off for a second only because others of their batch failed
    connection.execute("update dynrec_data.retry set not_before = now() where attempts = 0 and not_before < 'infinity'")
    return connection.execute("select dynrec._release_retries()").fetchone() != (0,)


def _drain_kind(connection: Session, recommender: str, kind: str, *, encoder: Encodes | None, batch_size: int) -> bool:
    """Do what can be claimed; whether there was something."""
    for done in range(ROUNDS):
        token = claim(connection, recommender, kind, batch_size)
        if token is None:
            return done > 0
        if kind == "user":
            publish_users(connection, token)
        elif encoder is None:
            _adopt(connection, token)
        else:
            publish(connection, token, read(connection, token), encoder)
    return True


def _adopt(connection: Session, token: str) -> None:
    # a row that the server refuses is found by halving, as the workers do
    while True:
        try:
            connection.execute("select dynrec._publish_adopted(%s)", [token])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            ((entities,),) = connection.execute("select dynrec._leased_entities(%s)", [token]).fetchall()
            blamed = entities[len(entities) // 2 :]
            fail(connection, token, blamed, str(error), charge=len(entities) == 1)
            if len(entities) > 1:
                continue
        return


def fail(connection: Session, token: str, entities: Sequence[str], error: str, *, charge: bool) -> None:
    """Give leased entities back."""
    connection.execute("select dynrec._fail(%s, %s::text[], %s, %s)", [token, list(entities), error, charge])


def as_text(vector: npt.NDArray[np.float32]) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def from_text(text: str | None) -> npt.NDArray[np.float32] | None:
    """A vector as pgvector writes it."""
    return None if text is None else np.array(text.strip("[]").split(","), dtype=np.float32)
