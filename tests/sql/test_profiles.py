"""Profiles of model versions: what they are taken of, when, and that they stay as they were."""

from datetime import datetime, timedelta

import psycopg
import pytest

from tests.learned import backfill, stage
from tests.sql import drifting
from tests.sql.drifting import MIDNIGHT, drifts, learned, profiled, profiles, take_profiles
from tests.sql.shop import NOON, Event, Shop

catalogue = drifting.catalogue


def test_a_content_model_was_fed_with_all_that_was_there(shop: Shop) -> None:
    now = shop.value("select clock_timestamp()")
    shop.add_events(
        Event("u", str(1 + n % 3), moment, kind, 1)
        for n, (moment, kind) in enumerate(
            [(NOON, "old"), (NOON, "old"), (now, "new"), (now + timedelta(days=9), "then")]
        )
    )
    shop.drain()
    take_profiles(shop.connection)
    assert profiled(shop, 1)["interactions: kind"] == {"old": 2, "new": 1, "others": 0, "missing": 0}
    assert profiled(shop, 1)["items met: category"] == {"c1": 1, "c2": 1, "c3": 1, "others": 0, "missing": 0}
    got = drifts(shop.connection)["interactions: kind"]
    assert (got.n, got.observed) == (1, [0, 0, 1, 0]), "the one of the future is yet to come"
    shop.add_events([Event("u", "2", NOON, "late")])
    shop.add_events([Event("v", "77", shop.value("select clock_timestamp()"), "old")])
    got = drifts(shop.connection)["interactions: kind"]
    assert (got.n, got.observed) == (2, [0.5, 0, 0.5, 0] if got.bins[0] == "old" else [0, 0.5, 0.5, 0])
    assert drifts(shop.connection)["items met: category"].observed[-1] == 0.5, "there is no item 77"


@pytest.mark.parametrize("since", [None, NOON], ids=["all", "from noon on"])
def test_a_learned_model_was_fed_with_its_training_data(shop: Shop, since: datetime | None) -> None:
    """Its data begin with data_from and end before data_until; what came from then on is compared with them."""
    instant = timedelta(microseconds=1)
    shop.add_events(
        Event("u", str(n + 1), moment, kind, 1)
        for n, (moment, kind) in enumerate(
            [
                (NOON - instant, "before"),
                (NOON, "first"),
                (MIDNIGHT - instant, "last"),
                (MIDNIGHT, "after"),
                (MIDNIGHT + timedelta(days=3), "first"),
            ]
        )
    )
    shop.drain()
    model = learned(shop, since, MIDNIGHT)
    assert take_profiles(shop.connection) == 2
    known = {"first": 1, "last": 1} | ({} if since else {"before": 1})
    assert profiled(shop, model)["interactions: kind"] == known | {"others": 0, "missing": 0}
    got = drifts(shop.connection, by_model=model)["interactions: kind"]
    assert dict(zip(got.bins, got.observed, strict=True)) == dict.fromkeys(known, 0) | {
        "first": 0.5,
        "others": 0.5,
        "missing": 0,
    }
    assert (got.model, got.n) == (model, 2)
    assert "interactions: kind" not in drifts(shop.connection), "none since the content model's profile"


def test_each_model_version_has_a_drift_of_its_own(shop: Shop) -> None:
    take_profiles(shop.connection)
    shop.execute("update shop.products set price = price + 100")
    shop.drain()
    model = learned(shop, None, NOON)
    take_profiles(shop.connection)
    assert drifts(shop.connection)["items: price"].psi > 1
    assert drifts(shop.connection, by_model=1) == drifts(shop.connection)
    assert drifts(shop.connection, by_model=model)["items: price"].psi == 0
    shop.execute("select dynrec.promote_model('shop')")
    assert {row.model for row in drifts(shop.connection).values()} == {model}
    shop.execute("select dynrec.rollback_model('shop')")
    shop.execute("select dynrec.retire_model('shop', %s)", [model])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"model version {model} has no vectors"):
        drifts(shop.connection, by_model=model)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="99"):
        drifts(shop.connection, by_model=99)
    with pytest.raises(psycopg.errors.UndefinedObject, match="'shp'"):
        drifts(shop.connection, "shp")


def test_no_profile_before_the_vectors_are_complete(shop: Shop) -> None:
    """A backfill that waits, is queued or is leased."""
    connection = shop.connection
    shop.execute("select dynrec.refresh('shop')")
    assert take_profiles(connection) == 0, "the scan waits"
    while shop.execute("select dynrec._run_task()") != [(None,)]:
        pass
    assert take_profiles(connection) == 0, "the items wait"
    shop.execute("select dynrec._claim('shop', 'item', 1000, '1 hour')")
    shop.execute("delete from dynrec_data.change")
    assert take_profiles(connection) == 0, "a worker has them"
    assert drifts(connection) == {}
    shop.execute("delete from dynrec_data.lease")
    shop.drain()
    assert take_profiles(connection) == 1


def test_a_live_change_does_not_hold_a_profile_up(shop: Shop) -> None:
    shop.execute("update shop.products set title = 'another' where id = 1")
    assert ("item", "1") in shop.queued()
    assert take_profiles(shop.connection) == 1


def test_no_profile_of_what_cannot_answer_yet(shop: Shop) -> None:
    model = stage(shop.connection)
    shop.execute("delete from dynrec_data.task")
    assert take_profiles(shop.connection) == 1
    assert {one for one, profile in profiles(shop.connection).items() if profile} == {model - 1}
    shop.execute("select dynrec._begin_backfill(r) from dynrec_data.recommender r")
    backfill(shop.connection)
    assert take_profiles(shop.connection) == 1
    assert None not in profiles(shop.connection).values()


def test_a_profile_is_taken_once_and_stays(shop: Shop) -> None:
    model = learned(shop, None, NOON)
    assert take_profiles(shop.connection) == 2
    kept = profiles(shop.connection)
    assert kept.keys() == {1, model}
    shop.execute("update shop.products set price = 1, category = 'new', title = 'same'")
    shop.add_events(Event("u", str(n), NOON, "view") for n in range(1, 9))
    shop.drain()
    backfill(shop.connection)
    assert take_profiles(shop.connection) == 0
    shop.execute("select dynrec.promote_model('shop')")
    shop.execute("select dynrec.refresh('shop')")
    backfill(shop.connection)
    assert take_profiles(shop.connection) == 0
    assert profiles(shop.connection) == kept
    assert drifts(shop.connection)["items: price"].psi > 1


def test_two_who_take_profiles_at_once(shop: Shop, database_url: str) -> None:
    """The second waits for the first and has nothing left to do."""
    with psycopg.connect(database_url) as first, psycopg.connect(database_url, autocommit=True) as second:
        first.execute("select dynrec._take_profiles()")
        second.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("select dynrec._take_profiles()")
        first.commit()
        kept = profiles(shop.connection)
        assert take_profiles(second) == 0
        assert profiles(shop.connection) == kept


def test_only_the_last_hundred_thousand_interactions_are_looked_at(shop: Shop) -> None:
    shop.execute(
        "alter table shop.events disable trigger user; "
        "insert into shop.events (user_id, item_id, kind, occurred_at) "
        "select 'u' || n, 1, case when n <= 100000 then 'late' else 'early' end, '2024-03-01'::timestamptz - n * interval '1 second' "
        "from generate_series(1, 100010) n"
    )
    take_profiles(shop.connection)
    assert profiled(shop, 1)["interactions: kind"] == {"late": 100_000, "others": 0, "missing": 0}
