"""A model that misbehaves in every way, under load: its rows fail or wait, and all is right once it is repaired."""

import random
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import psycopg
import pytest

from dynrec_store.settings import Settings
from tests.faults.load import Load, settled, until, wait_for
from tests.property import shop
from tests.property.shop import Connection
from workers import context as worker_context
from workers.encoders import Encoder, Vectors
from workers.encoders.hashing import HashingEncoder
from workers.inprocess import running

pytestmark = [pytest.mark.faults, pytest.mark.slow]

Mood = Callable[["Moody", Sequence[str]], Vectors]


class Moody:
    """The hashing encoder, unless it is in some mood."""

    device = "cpu"
    name = "moody"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.well = HashingEncoder(dimension)

    def encode(self, texts: Sequence[str]) -> Vectors:
        return Moody.mood(self, texts)

    mood: Mood


def in_health(model: Moody, texts: Sequence[str]) -> Vectors:
    return model.well.encode(texts)


def raises(_: Moody, texts: Sequence[str]) -> Vectors:
    raise RuntimeError(f"I cannot stand {len(texts)} texts")


def gives_nan(model: Moody, texts: Sequence[str]) -> Vectors:
    return np.full((len(texts), model.dimension), np.nan, dtype=np.float32)


def gives_other_dimension(model: Moody, texts: Sequence[str]) -> Vectors:
    return HashingEncoder(model.dimension + 1).encode(texts)


def gives_too_few(model: Moody, texts: Sequence[str]) -> Vectors:
    return model.well.encode(texts)[1:]


def gives_too_many(model: Moody, texts: Sequence[str]) -> Vectors:
    return model.well.encode([*texts, "one more"])


def lacks_memory(_: Moody, texts: Sequence[str]) -> Vectors:
    raise MemoryError(f"for {len(texts)} texts")


OF_ROWS = [raises, gives_nan]
OF_NOBODY = [gives_other_dimension, gives_too_few, gives_too_many, lacks_memory]


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, lease_seconds=2, sweep_seconds=0.2)  # type: ignore[call-arg]


@pytest.fixture
def shop_connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """The shop, where two failures make a dead letter, with models that are in health to begin with."""

    def load(_family: str, _model: str, dimension: int, _settings: Settings) -> Encoder:
        return Moody(dimension)

    monkeypatch.setattr(worker_context, "load_encoder", load)
    monkeypatch.setattr(Moody, "mood", in_health, raising=False)
    connection = psycopg.connect(database_url, autocommit=True)
    connection.execute("select dynrec.alter_recommender(%s, options => '{\"max_attempts\": 2}')", [shop.NAME])
    return connection


def repaired(connection: Connection) -> list[str]:
    """Bring back what failed until nothing does; returns what is not as computed from scratch then."""

    def nothing_fails() -> bool:
        connection.execute("select dynrec.retry_failed(%s)", [shop.NAME])
        time.sleep(0.2)
        return connection.execute("select not exists (select from dynrec.failures)").fetchone() == (True,)

    wait_for(nothing_fails)
    return settled(connection)


def test_a_model_misbehaves(
    shop_connection: Connection, settings: Settings, load: Load, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(load.seed)
    with running(settings, load.url), load.going_on(writers=2, readers=1):
        for mood in dice.sample(OF_ROWS + OF_NOBODY, 6) * rounds:
            time.sleep(dice.uniform(0.2, 0.5))
            monkeypatch.setattr(Moody, "mood", mood)
            load.ledger.inflict(f"model {mood.__name__}")
            until(shop_connection, "select exists (select from dynrec.failures)")
            time.sleep(dice.uniform(0.2, 0.5))
            monkeypatch.setattr(Moody, "mood", in_health)
    with running(settings, load.url):
        assert repaired(shop_connection) == []
    assert load.differences() == []
    shop_connection.close()


@pytest.mark.parametrize("mood", OF_NOBODY)
def test_a_fault_of_the_model_is_charged_to_no_row(
    shop_connection: Connection, settings: Settings, mood: Mood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Moody, "mood", mood)
    shop_connection.execute("insert into item (id, title) select g, 'item ' || g from generate_series(1, 50) g")
    with running(settings, str(shop_connection.info.dsn) + f" password={shop_connection.info.password}"):
        until(shop_connection, "select count(*) = 50 from dynrec.failures")
        time.sleep(3)  # it is tried again a few times
        assert shop_connection.execute("select max(attempts) from dynrec.failures").fetchone() == (0,)
        monkeypatch.setattr(Moody, "mood", in_health)
        assert repaired(shop_connection) == []
    shop_connection.close()


def test_a_model_hangs_for_longer_than_a_lease(
    shop_connection: Connection, settings: Settings, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    cured = threading.Event()

    def hangs(model: Moody, texts: Sequence[str]) -> Vectors:
        cured.wait()
        return model.well.encode(texts)

    with running(settings, load.url), load.going_on(writers=2, readers=1):
        monkeypatch.setattr(Moody, "mood", hangs)
        load.ledger.inflict("model hangs")
        # a second attempt needs a thread that does not hang, too
        until(
            shop_connection,
            "select exists (select from dynrec_data.retry) or exists (select from dynrec_data.dead_letter)",
        )
        cured.set()
        monkeypatch.setattr(Moody, "mood", in_health)
    with running(settings, load.url):
        assert repaired(shop_connection) == []
    assert load.differences() == []
    shop_connection.close()
