"""Whoever waits until all is fresh finds everything as computed from scratch, with the real dispatcher and workers."""

import random
from contextlib import suppress

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dynrec_store.settings import Settings
from tests.property import oracle, shop
from tests.property.shop import Writer
from workers.inprocess import running

WRITES = 60


@pytest.mark.slow
@settings(max_examples=3, phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_fresh_is_as_from_scratch(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("select dynrec.drop_recommender(name) from dynrec_data.recommender")
        connection.execute("drop table if exists item, event")
        shop.declare(connection)
        writer = Writer(connection, dice)
        with running(Settings(database_url=None), database_url):
            for _ in range(WRITES):
                with suppress(psycopg.errors.UniqueViolation):
                    done = writer.act()
                fresh = connection.execute("select dynrec.wait_until_fresh(%s, '60 s')", [shop.NAME]).fetchone()
                assert fresh == (True,), done
                assert list(oracle.differences(connection)) == [], done
