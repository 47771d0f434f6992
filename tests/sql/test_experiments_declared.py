"""Experiments: what is refused, who alters them side by side, and the model versions that they need."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from dynrec_store import database
from tests.learned import backfill, make_config, stage
from tests.sql import lab as _lab
from tests.sql.lab import TWO, Lab, create
from tests.sql.shop import Shop

lab = _lab.lab


def arm(**fields: Any) -> dict[str, Any]:
    """Arguments with a second arm like this."""
    return {"arms": [{"arm": "red"}, {"arm": "blue"} | fields]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": None}, "name is not a name: null"),
        ({"name": ""}, "name is not a name: ''"),
        ({"name": "n" * 201}, "name is not a name: 'nnn"),
        ({"arms": None}, "arms: .*: null"),
        ({"arms": {"arm": "red"}}, "not a JSON array of 2 to 20 arms: .*red"),
        ({"arms": [{"arm": "red"}]}, "not a JSON array of 2 to 20 arms: .*red"),
        ({"arms": [{"arm": f"{n}"} for n in range(21)]}, "not a JSON array of 2 to 20 arms"),
        ({"arms": [{"arm": "red"}, None]}, "arm 2 is not a JSON object: 'null'"),
        ({"arms": [["red"], {"arm": "blue"}]}, "arm 1 is not a JSON object: .*red"),
        ({"arms": [{"arm": "red"}, {"arm": "red"}]}, "a name is there twice: 'red'"),
        ({"arms": [{"arm": "red"}, {}]}, "arm 2: arm is not a name: null"),
        (arm(arm=None), "arm 2: arm is not a name: null"),
        (arm(arm=5), "arm 2: arm is not a name: '5'"),
        (arm(arm=""), "arm 2: arm is not a name: ''"),
        (arm(arm="a" * 201), "arm 2: arm is not a name: 'aaa"),
        (arm(colour="blue"), "arm 2: unknown field: 'colour'"),
        (arm(share=0), "arm 2: share is out of range: '0'"),
        (arm(share=1001), "share is out of range: '1001'"),
        (arm(share="1"), "share is out of range: '1'"),
        (arm(share=None), "share is out of range: null"),
        (arm(diversity=1.5), "diversity is out of range: '1.5'"),
        (arm(diversity=-1), "diversity is out of range: '-1'"),
        (arm(diversity=[0]), r"diversity is out of range: '\[0\]'"),
        (arm(exclude_seen=1), "exclude_seen is not a boolean: '1'"),
        (arm(exclude_seen=None), "exclude_seen is not a boolean: null"),
        (arm(model_version=999), "model_version cannot answer: '999'"),
        (arm(model_version=1.5), "model_version cannot answer: '1.5'"),
        (arm(model_version=10**30), "model_version cannot answer: '10000"),
        (arm(model_version="1"), "model_version cannot answer: '1'"),
        (arm(model_version=None), "model_version cannot answer: null"),
        ({"metric": "clicks"}, "metric: unknown name: 'clicks'"),
        ({"metric": None}, "metric: unknown name: null"),
        ({"within": "0.5 seconds"}, "within is out of range: '00:00:00.5'"),
        ({"within": "366 days"}, "within is out of range: '366 days'"),
        ({"within": "infinity"}, "within is out of range"),
        ({"within": None}, "within is out of range: null"),
        ({"traffic": 0}, "traffic is out of range: '0'"),
        ({"traffic": 1.01}, "traffic is out of range: '1.01'"),
        ({"traffic": float("nan")}, "traffic is out of range: 'NaN'"),
        ({"traffic": None}, "traffic is out of range: null"),
        ({"planned_users": 99}, "planned_users is out of range: '99'"),
        ({"planned_users": None}, "planned_users is out of range: null"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_bad_arguments_create_nothing(lab: Lab, given: dict[str, Any], message: str) -> None:
    if given.get("within") == "infinity" and lab.shop.connection.info.server_version < 170000:
        pytest.skip("an interval cannot be infinite before PostgreSQL 17")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        create(lab.shop, **({"name": "bad"} | given))
    assert lab.shop.value("select count(*) from dynrec.experiment_arms where experiment = 'bad'") == 0
    assert lab.shop.value("select count(*) from dynrec_data.experiment where name = 'bad' or length(name) = 0") == 0


def behind(url: str, first: str, second: str, isolation: str = "read committed") -> BaseException | None:
    """What comes of a statement that is run while another transaction has run the first and commits after a while."""
    with (
        database.connect(url, autocommit=False) as ahead,
        database.connect(url, autocommit=False) as later,
        database.connect(url) as watching,
        ThreadPoolExecutor(1) as pool,
    ):
        later.execute(f"set transaction isolation level {isolation}".encode())
        later.execute("select count(*) from dynrec_data.experiment")
        ahead.execute(first.encode())

        def run() -> None:
            later.execute(second.encode())
            later.commit()

        running = pool.submit(run)
        waiting = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
        while not running.done() and not watching.execute(waiting, [later.info.backend_pid]).fetchone():
            time.sleep(0.01)
        ahead.commit()
        return running.exception()


def test_of_two_that_declare_the_same_name_one_hears_why_not(lab: Lab) -> None:
    creation = """select dynrec.create_experiment('shop', 'twice', '[{"arm": "a"}, {"arm": "b"}]')"""
    error = behind(lab.url, creation, creation)
    assert isinstance(error, psycopg.errors.InvalidParameterValue)
    assert "had an experiment of that name already: 'twice'" in str(error)
    with ThreadPoolExecutor(6) as pool:
        made = [pool.submit(lab.store.create_experiment, "shop", "six times", TWO) for _ in range(6)]
        errors = [error for one in made if (error := one.exception())]
    assert len(errors) == 5
    assert all("had an experiment of that name already: 'six times'" in str(error) for error in errors)
    assert len(lab.store.experiment("shop", "twice").arms) == 2


def test_a_transaction_that_sees_the_past_declares_no_name_twice(lab: Lab) -> None:
    creation = """select dynrec.create_experiment('shop', 'past', '[{"arm": "a"}, {"arm": "b"}]')"""
    error = behind(lab.url, creation, creation, "repeatable read")
    assert isinstance(error, psycopg.errors.InvalidParameterValue | psycopg.errors.SerializationFailure), error


def test_traffic_does_not_fall_between_two_who_raise_it(lab: Lab) -> None:
    lab.create("raised", traffic=0.1)
    raising = "select dynrec.alter_experiment('shop', 'raised', {})"
    error = behind(lab.url, raising.format(0.9), raising.format(0.5))
    assert lab.store.experiment("shop", "raised").traffic == 0.9
    assert isinstance(error, psycopg.errors.InvalidParameterValue)


def test_a_whole_model_version_may_have_a_point(lab: Lab) -> None:
    arms = f'[{{"arm": "a"}}, {{"arm": "b", "model_version": {lab.model}.0}}]'
    lab.shop.execute("select dynrec.create_experiment('shop', 'point', %s)", [arms])
    assert lab.store.experiment("shop", "point").arms[1].model_version == lab.model


def test_dropping_a_recommender_takes_its_experiments_along(lab: Lab) -> None:
    lab.shop.execute(
        "select dynrec.create_recommender('gone', 'shop.products', text_columns => '{title}', interactions => 'shop.events', encoder => 'hashing')"
    )
    experiment = lab.create("gone", TWO, "gone")
    lab.arms("log_exposure", experiment, range(50))
    assert len(lab.exposures("gone")) == 50
    before = lab.shop.value("select count(*) from dynrec_data.exposure")
    lab.shop.execute("select dynrec.drop_recommender('gone')")
    assert lab.shop.value("select count(*) from dynrec_data.experiment where name = 'gone'") == 0
    assert lab.shop.value("select count(*) from dynrec_data.exposure") == before - 50
    orphans = "select count(*) from dynrec_data.experiment_arm a where not exists (select from dynrec_data.experiment e where e.id = a.experiment_id)"
    assert lab.shop.value(orphans) == 0


def test_a_model_version_stays_while_an_experiment_needs_it(shop: Shop) -> None:
    """Also one that was to be retired when the experiment began."""
    models = []
    for seed in range(3):
        models.append(stage(shop.connection, make_config(seed)))
        backfill(shop.connection)
        shop.execute("select dynrec.promote_model('shop')")
        if seed == 1:
            create(shop, "old", [{"arm": "a"}, {"arm": "b", "model_version": models[0]}])
    create(shop, "late", [{"arm": "a"}, {"arm": "b", "model_version": models[1]}])
    shop.execute(
        "insert into dynrec_data.task (recommender_id, action, entity) "
        "select r.id, 'retire', m::text from dynrec_data.recommender r, unnest(%s) m",
        [models[:2]],
    )
    shop.drain()
    states = "select state from dynrec.model_versions where model_version = any (%s) order by model_version"
    assert shop.execute(states, [models]) == [("standby",), ("standby",), ("active",)]
    for model, name in zip(models, ["old", "late"], strict=False):
        with pytest.raises(
            psycopg.errors.InvalidParameterValue, match=f"experiment '{name}' has an arm of it: '{model}'"
        ):
            shop.execute("select dynrec.retire_model('shop', %s)", [model])
        shop.execute("select dynrec.stop_experiment('shop', %s)", [name])
        shop.execute("select dynrec.retire_model('shop', %s)", [model])
        assert len(shop.recommend("u1", experiment=name)) == 10
    assert shop.value("select count(*) from dynrec.experiments where verdict like 'too early%%'") == 2


def test_no_experiment_begins_with_a_model_version_that_is_being_retired(shop: Shop, database_url: str) -> None:
    model = stage(shop.connection)
    backfill(shop.connection)
    shop.execute("select dynrec.promote_model('shop'); select dynrec.rollback_model('shop')")
    stage(shop.connection)
    backfill(shop.connection)
    shop.execute("select dynrec.promote_model('shop')")
    assert shop.queued() == {("task", "retire")}
    arms = f'[{{"arm": "a"}}, {{"arm": "b", "model_version": {model}}}]'
    error = behind(database_url, "select dynrec._run_task()", f"select dynrec.create_experiment('shop', 'x', '{arms}')")
    retired = shop.value("select state = 'retired' from dynrec.model_versions where model_version = %s", [model])
    assert retired == (error is not None), (
        f"the model version is retired: {retired}; the experiment is refused: {error}"
    )
