"""Writers, workers, readers and operators at once, in threads: what only real concurrency shows.

A failure prints the seed; the threads' timing is not replayed, so run it again with `--hypothesis-profile long`.
"""

import random
from collections.abc import Callable

import numpy as np
import psycopg
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.property import oracle, shop
from tests.property.shop import Connection, Writer
from tests.property.turmoil import Turmoil

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

SECONDS = 4.0  # of writing and working in each example
few = settings(max_examples=max(4, settings().max_examples // 10), phases=[Phase.generate])
seeds = st.integers(0, 2**32)


@pytest.fixture
def declared(
    make_database: Callable[..., str], drop_database: Callable[[str], None], template: str
) -> Callable[..., str]:
    """Make a database with a shop; the one before is dropped."""
    made: list[str] = []

    def make(layout: str = "plain", *, max_attempts: int = 100) -> str:
        while made:
            drop_database(made.pop())
        made.append(make_database(template))
        with psycopg.connect(made[0], autocommit=True) as connection:
            shop.declare(connection, layout, max_attempts=max_attempts)
        return made[0]

    return make


@few
@given(
    seed=seeds,
    layout=st.sampled_from(shop.LAYOUTS),
    attempts=st.sampled_from([2, 3, 100]),
    writers=st.sampled_from([2, 4]),
    workers=st.sampled_from([1, 3]),
)
def test_everybody_at_once(
    declared: Callable[..., str], seed: int, layout: str, attempts: int, writers: int, workers: int
) -> None:
    turmoil = Turmoil(declared(layout, max_attempts=attempts), seed)
    turmoil.run(SECONDS, writers=writers, workers=workers)
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)


@few
@given(seed=seeds, layout=st.sampled_from(shop.LAYOUTS))
def test_while_it_is_altered_and_migrated(declared: Callable[..., str], seed: int, layout: str) -> None:
    turmoil = Turmoil(declared(layout), seed)
    turmoil.run(SECONDS, writers=2, workers=2, operators=1)
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)


class Folding(Turmoil):
    """Readers compare a user's vector with the one from scratch, in the middle of everything."""

    def _read_once(self, connection: Connection, dice: random.Random) -> None:
        user = dice.choice(shop.USERS)
        row = connection.execute("select dynrec.user_vector_at(%s, %s)::real[]", [shop.NAME, user]).fetchone()
        assert row is not None
        known = oracle.users(connection).get(user, oracle.User())
        total = known.state.sum(axis=0)
        length = np.linalg.norm(total)
        if length > 1e-3 * known.gross:  # or what is left is rounding
            np.testing.assert_allclose(row[0], total / length, atol=1e-3)


@few
@given(seed=seeds)
def test_the_last_interaction_counts_at_once(declared: Callable[..., str], seed: int) -> None:
    turmoil = Folding(declared(), seed, only=shop.OF_EVENTS)
    with psycopg.connect(turmoil.url, autocommit=True) as connection:
        for _ in range(5):
            shop.upsert_items(Writer(connection, random.Random(seed)))
    assert turmoil.settle() == []
    turmoil.run(SECONDS, writers=2, workers=2, readers=2)
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)
