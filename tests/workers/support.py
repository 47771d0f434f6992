"""What the tests of the workers share."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psycopg

from dynrec_store.settings import Settings
from workers.context import Context, Tally
from workers.encoders import Vectors
from workers.encoders.hashing import HashingEncoder
from workers.exceptions import EncodingFailed
from workers.maintenance import build_indexes, run_tasks
from workers.recompute import recompute_items, recompute_users

Connection = psycopg.Connection[tuple[Any, ...]]

PATIENCE = 60.0  # seconds until something that should happen is missed


class Fussy:
    """The hashing encoder, with texts and moments at which it fails."""

    name = "fussy"
    device = "cpu"
    dimension = 256

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.fault: Exception | None = None
        self.before: Callable[[], object] = lambda: None
        self._encoder = HashingEncoder(self.dimension)

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.before()
        self.texts += texts
        if self.fault is not None:
            raise self.fault
        if any("poison" in text for text in texts):
            raise ValueError("I cannot stand poison")
        if broken := [position for position, text in enumerate(texts) if "nan" in text]:
            raise EncodingFailed(self.name, broken)
        return self._encoder.encode(texts)


def quick_settings() -> Settings:
    """Leases that run out soon, and looks for them that follow one another closely."""
    return Settings(_env_file=None, lease_seconds=5, sweep_seconds=0.2)  # type: ignore[call-arg]


def url_of(connection: Connection) -> str:
    """The URL that a connection was made with."""
    there = connection.info
    return f"postgresql://{there.user}:{there.password}@{there.host}:{there.port}/{there.dbname}"


def fresh(connection: Connection) -> bool:
    row = connection.execute("select dynrec.wait_until_fresh('shop', %s::interval)", [f"{PATIENCE} s"]).fetchone()
    return row == (True,)


def stored(connection: Connection) -> dict[str, np.ndarray]:
    rows = connection.execute("""
        select v.item_id, v.embedding
        from dynrec_data.item_vector v join dynrec_data.recommender r on r.active_model_id = v.model_id""")
    return {item: vector.to_numpy() for item, vector in rows}


def from_scratch(connection: Connection) -> dict[str, np.ndarray]:
    rows = connection.execute("select id, coalesce(btrim(title), '') from products").fetchall()
    return dict(zip([key for key, _ in rows], HashingEncoder(256).encode([t for _, t in rows]), strict=True))


def assert_as_from_scratch(connection: Connection) -> None:
    there, wanted = stored(connection), from_scratch(connection)
    assert there.keys() == wanted.keys()
    for key, vector in wanted.items():
        np.testing.assert_allclose(there[key], vector, atol=1e-6)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def failures(connection: Connection) -> dict[str, tuple[str, int, str]]:
    rows = connection.execute("select entity, state, attempts, error from dynrec.failures")
    return {entity: (state, attempts, error) for entity, state, attempts, error in rows}


def drained(context: Context) -> Tally:
    _run_tasks(context)
    tally, _ = recompute_items(context, "shop")
    _run_tasks(context)
    users, _ = recompute_users(context, "shop")
    return tally + users


def _run_tasks(context: Context) -> None:
    while run_tasks(context):
        pass
    context.call(build_indexes)
