"""Writers, workers and readers at once, in threads: what only real concurrency shows.

A failure prints the seed; the threads' timing is not replayed, so run it again with `--hypothesis-profile long`.
"""

from collections.abc import Callable

import psycopg
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.property import shop
from tests.property.turmoil import Turmoil

SECONDS = 4.0  # of writing and working in each example


@pytest.mark.slow
@pytest.mark.timeout(0)
@settings(max_examples=max(4, settings().max_examples // 10), phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**32),
    layout=st.sampled_from(shop.LAYOUTS),
    attempts=st.sampled_from([2, 3, 100]),
    writers=st.sampled_from([2, 4]),
    workers=st.sampled_from([1, 3]),
)
def test_everybody_at_once(
    make_database: Callable[..., str],
    drop_database: Callable[[str], None],
    template: str,
    seed: int,
    layout: str,
    attempts: int,
    writers: int,
    workers: int,
) -> None:
    url = make_database(template)
    with psycopg.connect(url, autocommit=True) as connection:
        shop.declare(connection, layout, max_attempts=attempts)
    turmoil = Turmoil(url, seed)
    turmoil.run(SECONDS, writers=writers, workers=workers)
    wrong = turmoil.settle()
    note(f"{sum(turmoil.done.values())} steps: {dict(turmoil.done)}")
    assert wrong == [], "\n".join(wrong)
    drop_database(url)
