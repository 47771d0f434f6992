"""The backfill of a learned model: how far it is, what it survives, what goes before it."""

from datetime import timedelta

import numpy as np
import pytest

from dynrec_store import database
from tests.conftest import Prepare
from tests.drain import Session, claim, from_text, publish_users, run_tasks
from tests.learned import backfill, derive, derive_claimed, stage, towers
from tests.sql.shop import NOON, Event, Shop, open_shop

MODEL = 2


def begin(connection: Session) -> None:
    """A trained model, and its backfill of twelve items and four users, of which nothing is done yet."""
    shop = open_shop(connection)
    shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
    shop.drain()
    assert stage(connection) == MODEL
    run_tasks(connection)


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(begin).name


def how_far(shop: Shop) -> tuple[str, float | None, timedelta | None]:
    """State, progress and the time left."""
    ((state, progress, eta),) = shop.execute(
        "select state, progress, eta from dynrec.model_versions where model_version = %s", [MODEL]
    )
    return state, progress, eta


def assert_complete(shop: Shop) -> None:
    """Each item has the vector that the towers make of it, and the model answers."""
    rows = shop.execute(
        "select c.item_id, c.embedding::text, v.embedding::text from dynrec_data.item_vector c "
        "left join dynrec_data.item_vector v on v.item_id = c.item_id and v.model_id = %s where c.model_id = 1",
        [MODEL],
    )
    assert len(rows) == 12
    for item, content, derived in rows:
        vector, made_of = from_text(derived), from_text(content)
        assert vector is not None
        assert made_of is not None
        np.testing.assert_allclose(vector, towers(item, made_of)[0], atol=1e-5)
    assert how_far(shop) == ("shadow", None, None)
    assert {
        version
        for (version,) in shop.execute(
            "select model_version from dynrec.recommend('shop', 'u1', by_model => %s)", [MODEL]
        )
    } == {MODEL}


def test_progress_goes_from_0_to_1_and_the_time_left_is_known_between(shop: Shop) -> None:
    assert how_far(shop) == ("backfilling", 0, None)
    for done in (4, 8, 12):
        token = claim(shop.connection, "shop", "derived", 4)
        assert token is not None
        derive_claimed(shop.connection, token)
        state, progress, eta = how_far(shop)
        assert (state, progress) == ("backfilling", done / 16)
        assert eta is not None
        assert eta > timedelta(0)
    run_tasks(shop.connection)
    for done in (14, 16):
        token = claim(shop.connection, "shop", "user", 2)
        assert token is not None
        assert publish_users(shop.connection, token) == 2
        assert how_far(shop)[:2] == ("backfilling", done / 16)
    assert how_far(shop)[2] == timedelta(0)
    backfill(shop.connection)
    assert_complete(shop)


@pytest.mark.parametrize("stored", [False, True])
def test_what_a_killed_worker_had_claimed_is_done_by_another(shop: Shop, database_url: str, *, stored: bool) -> None:
    """Killed within the transaction that stores vectors, or after it, before the lease was ended."""
    with database.connect(database_url) as worker:
        token = claim(worker, "shop", "derived", 5)
        assert token is not None
        claimed = {entity for (entity,) in worker.execute("select unnest(dynrec._leased_entities(%s))", [token])}
        worker.execute("begin")
        derive_claimed(worker, token, release=False)
        worker.execute("commit" if stored else "rollback")
    assert how_far(shop)[1] == (5 / 16 if stored else 0)
    # the others do what is theirs, and wait for these
    derive(shop.connection, "shop")
    shop.execute("select dynrec._finish_backfills()")
    assert how_far(shop)[:2] == ("backfilling", 12 / 16 if stored else 7 / 16)
    assert ("task", "fill_users") in shop.queued()
    assert {entity for kind, entity in shop.queued() if kind == "derived"} == claimed
    shop.execute("update dynrec_data.lease set deadline = now() - interval '1 second'")
    assert shop.value("select dynrec._expire_leases()") == 5
    backfill(shop.connection)
    assert shop.queued() == set()
    assert_complete(shop)


def test_a_live_change_goes_before_the_backfill(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'another title' where id = 12")
    shop.drain()
    first = claim(shop.connection, "shop", "derived", 1)
    assert first is not None
    assert shop.value("select dynrec._leased_entities(%s)", [first]) == ["12"]
    derive_claimed(shop.connection, first)
    assert how_far(shop)[:2] == ("backfilling", 1 / 16)
    assert {entity for kind, entity in shop.queued() if kind == "derived"} == {str(n) for n in range(1, 12)}
    backfill(shop.connection)
    assert_complete(shop)
