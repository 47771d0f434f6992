"""Experiments: who is in which arm, what an arm is served, what is refused, and who counts as exposed."""

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dynrec_store import database
from dynrec_store.exceptions import UnknownNameError
from dynrec_store.experiments import Experiment
from dynrec_store.store import FeatureStore
from tests.conftest import MakeDatabase
from tests.learned import backfill, make_config, stage
from tests.sql.shop import NOON, Event, Shop, create_shop

TWO = [{"arm": "red"}, {"arm": "blue"}]
HOUR = timedelta(hours=1)


@dataclass
class Lab:
    """A shop whose experiments have names of their own, each used by one test."""

    shop: Shop
    url: str
    store: FeatureStore
    model: int  # in the shadow

    def create(self, name: str, arms: Any = TWO, recommender: str = "shop", ago: timedelta | None = None, **more: Any) -> Experiment:  # fmt: skip
        """The experiment as Python sees it; it began so long `ago`."""
        create(self.shop, name, arms, recommender, **more)
        if ago is not None:
            self.shop.execute(
                """
                with moved as (update dynrec_data.experiment set started_at = started_at - %s where name = %s returning id)
                update dynrec_data.experiment_traffic t set since = since - %s from moved where t.experiment_id = moved.id
                """,
                [ago, name, ago],
            )
        return self.store.experiment(recommender, name)

    def now(self) -> datetime:
        moment: datetime = self.shop.value("select clock_timestamp()")
        return moment

    def arms(self, function: str, experiment: Experiment, users: Sequence[object]) -> list[str | None]:
        """What a function of recommender, experiment and user says for each user."""
        rows = self.shop.execute(
            f"select dynrec.{function}(%s, %s, u) from unnest(%s::text[]) with ordinality as a (u, n) order by n",
            [experiment.recommender, experiment.name, list(map(str, users))],
        )
        return [arm for (arm,) in rows]

    def exposures(self, name: str) -> dict[str, tuple[int, datetime]]:
        """Arm and time of each user."""
        rows = self.shop.execute(
            "select x.user_id, x.arm, x.exposed_at from dynrec_data.exposure x join dynrec_data.experiment e on e.id = x.experiment_id where e.name = %s",
            [name],
        )
        return {user: (arm, moment) for user, arm, moment in rows}

    def answer(self, user: str, **arguments: Any) -> list[tuple[Any, ...]]:
        """Item, source, model version and score of each row."""
        named = "".join(f", {name} => %({name})s" for name in arguments)
        return self.shop.execute(
            f"select item_id, source, model_version, score from dynrec.recommend('shop', %(user)s, 8{named}) order by rank",
            {"user": user, **arguments},
        )


def about(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same rows, scores a moment later."""
    return [(*row, pytest.approx(score, abs=1e-4)) for *row, score in rows]


def create(shop: Shop, name: Any, arms: Any = TWO, recommender: str = "shop", **more: Any) -> None:
    named = "".join(f", {option} => %({option})s" for option in more)
    given = {"recommender": recommender, "name": name, "arms": None if arms is None else Jsonb(arms), **more}
    shop.execute(f"select dynrec.create_experiment(%(recommender)s, %(name)s, %(arms)s{named})", given)


def log(shop: Shop, *impressions: dict[str, Any]) -> None:
    given = [{"item_ids": ["1", "2"], **shown} for shown in impressions]
    assert shop.value("select dynrec.log_impressions('shop', %s)", [Jsonb(given)]) == len(given)


def shown(shop: Shop, user: str) -> list[tuple[str | None, str | None]]:
    """Experiment and arm of each list of a user."""
    return shop.execute("select experiment, arm from dynrec_data.impression where user_id = %s order by shown_at", [user])  # fmt: skip


@pytest.fixture(scope="module")
def lab(make_database: MakeDatabase, template: str) -> Iterator[Lab]:
    url = make_database(template)
    with database.connect(url) as connection, FeatureStore.connect(url) as store:
        shop = create_shop(connection, products=12)
        shop.add_events(Event(f"u{n % 20}", str(1 + n * 5 % 12), NOON + n * HOUR, "view") for n in range(60))
        for key in ("bigint", "uuid"):
            shop.execute(f"create table shop.{key} (user_id {key}, item_id bigint, occurred_at timestamptz)")
            shop.execute(
                "select dynrec.create_recommender(%s, 'shop.products', text_columns => '{title}', interactions => %s, encoder => 'hashing')",
                [key, f"shop.{key}"],
            )
        shop.drain()
        model = stage(connection)
        backfill(connection)
        yield Lab(shop, url, store, model)


KEYS: dict[str, list[object]] = {
    "shop": ["", "ü", "u\u0308", "日本", "🙂", "a b", "'; --", "7", "007", " 7", "A\x1fB", *(f"u{n}" for n in range(2000))],
    "bigint": [*range(-500, 1500), 2**63 - 1, "session 5", ""],
    "uuid": [*(UUID(int=n**9) for n in range(2000)), "no uuid"],
}  # fmt: skip


@pytest.mark.parametrize("recommender", KEYS)
@pytest.mark.parametrize(("weights", "traffic"), [([1, 1], 1), ([1, 0.001, 30, 2], 0.37), (range(1, 21), 0.9)], ids=str)
def test_sql_and_python_agree_on_the_arm(lab: Lab, recommender: str, weights: Sequence[float], traffic: float) -> None:
    arms = [{"arm": f"ä {n}", "share": weight} for n, weight in enumerate(weights)]
    experiment = lab.create(f"agree {weights} {recommender} 'é'", arms, recommender, traffic=traffic)
    assert [arm.share for arm in experiment.arms] == pytest.approx([weight / sum(weights) for weight in weights])
    users = KEYS[recommender]
    expected = [experiment.arm_of(user) for user in users]
    assert (None in expected) == (traffic < 1)
    assert lab.arms("experiment_arm", experiment, users) == expected
    assert lab.arms("log_exposure", experiment, users) == expected
    places = {arm.name: place for place, arm in enumerate(experiment.arms, 1)}
    found = {user: arm for user, (arm, _) in lab.exposures(experiment.name).items()}
    assert found == {str(user): places[arm] for user, arm in zip(users, expected, strict=True) if arm is not None}


def test_keys_are_compared_as_their_source_writes_them(lab: Lab) -> None:
    whole, long = (lab.create("spelt", [{"arm": f"{n}"} for n in range(20)], key) for key in ("bigint", "uuid"))
    key = UUID(int=12**30)
    assert set(lab.arms("log_exposure", whole, ["7", "007", " 7", "+7"])) == {whole.arm_of(7)}
    assert set(lab.arms("log_exposure", long, [f"{{{str(key).upper()}}}", key.hex, key])) == {long.arm_of(key)}
    assert lab.exposures("spelt").keys() == {"7", str(key)}


def test_traffic_grows_and_nobody_moves(lab: Lab) -> None:
    users = [f"u{n}" for n in range(2000)]
    experiment = lab.create("grows", traffic=0.1)
    before = lab.arms("experiment_arm", experiment, users)
    for traffic in (0.1, 0.5, 1.0):
        lab.store.alter_experiment("shop", "grows", traffic=traffic)
        after = lab.arms("experiment_arm", experiment, users)
        assert after == [*map(lab.store.experiment("shop", "grows").arm_of, users)]
        assert {(a, b) for a, b in zip(before, after, strict=True) if a != b and a is not None} == set()
        before = after
    for wrong in (0.9, 0, 1.1, float("nan"), -1):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"(?i)traffic can only grow: '{wrong}'"):
            lab.shop.execute("select dynrec.alter_experiment('shop', 'grows', %s)", [wrong])
    assert lab.store.experiment("shop", "grows").traffic == 1


def test_nobody_has_an_arm_after_the_end(lab: Lab) -> None:
    experiment = lab.create("ends")
    plain = lab.answer("u1")
    for _ in range(2):
        lab.store.stop_experiment("shop", "ends")
        assert lab.arms("experiment_arm", experiment, ["u1", "u2"]) == [None, None]
        assert lab.arms("log_exposure", experiment, ["u1", "u2"]) == [None, None]
    assert lab.store.experiment("shop", "ends").arm_of("u1") is None
    assert lab.exposures("ends") == {}
    assert lab.answer("u1", experiment="ends") == about(plain)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the experiment has ended: 'ends'"):
        lab.shop.execute("select dynrec.alter_experiment('shop', 'ends', 1)")


def test_an_arm_is_served_as_it_says(lab: Lab) -> None:
    """Whatever the call says besides; and as of a moment as it was then."""
    given: dict[str, dict[str, Any]] = {
        "plain": {},
        "deep": {"by_model": lab.model},
        "mixed": {"diversity": 0.8},
        "again": {"exclude_seen": False},
        "all": {"by_model": lab.model, "diversity": 0.4, "exclude_seen": False},
    }
    before = lab.now()
    arms = [{"arm": n} | {k.replace("by_model", "model_version"): v for k, v in a.items()} for n, a in given.items()]
    experiment = lab.create("served", arms, traffic=0.8)
    users = [f"u{n}" for n in range(24)]
    during = lab.now()
    assert {experiment.arm_of(user) for user in users} == {*given, None}
    for call in ({}, {"diversity": 0.5}, {"exclude_seen": True, "filter": "price > 2"}, {"as_of": during}):
        for user in users:
            wanted = call | given.get(experiment.arm_of(user) or "", {})
            assert lab.answer(user, experiment="served", **call) == about(lab.answer(user, **wanted))
    lab.shop.execute("select dynrec.stop_experiment('shop', 'served')")
    for user in users:
        for moment in (before, lab.now()):
            assert lab.answer(user, experiment="served", as_of=moment) == about(lab.answer(user, as_of=moment))
        wanted = given.get(experiment.arm_of(user) or "", {})
        assert lab.answer(user, experiment="served", as_of=during) == about(lab.answer(user, as_of=during, **wanted))


def test_what_recommend_refuses(lab: Lab) -> None:
    lab.create("refuses")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"by_model and experiment .*: '{lab.model}'"):
        lab.answer("u1", experiment="refuses", by_model=lab.model)
    with pytest.raises(psycopg.errors.UndefinedObject, match="no experiment named 'colour'") as caught:
        lab.answer("u1", experiment="colour")
    assert "'refuses'" in (caught.value.diag.message_hint or "")
    with pytest.raises(UnknownNameError, match="'colour'"):
        lab.store.experiment("shop", "colour")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="user_id is missing"):
        lab.shop.execute("select * from dynrec.recommend('shop', null, experiment => 'refuses')")


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
        "insert into dynrec_data.task (recommender_id, action, entity) select id, 'retire', %s from dynrec_data.recommender",
        [models[1]],
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
    shop.execute(
        "select dynrec.promote_model('shop'); select dynrec.rollback_model('shop'); delete from dynrec_data.task"
    )
    shop.execute(
        "insert into dynrec_data.task (recommender_id, action, entity) select id, 'retire', %s from dynrec_data.recommender",
        [model],
    )
    arms = f'[{{"arm": "a"}}, {{"arm": "b", "model_version": {model}}}]'
    error = behind(database_url, "select dynrec._run_task()", f"select dynrec.create_experiment('shop', 'x', '{arms}')")
    retired = shop.value("select state = 'retired' from dynrec.model_versions where model_version = %s", [model])
    assert retired == (error is not None), (
        f"the model version is retired: {retired}; the experiment is refused: {error}"
    )


def test_a_list_that_was_shown_is_an_exposure(lab: Lab) -> None:
    experiment = lab.create("seen", [{"arm": "red"}, {"arm": "blue", "share": 2}], ago=HOUR, traffic=0.7)
    users = [f"seen {n}" for n in range(60)]
    before = lab.now()
    log(lab.shop, *({"user_id": user, "experiment": "seen"} for user in users))
    arms = {user: experiment.arm_of(user) for user in users}
    assert {*arms.values()} == {"red", "blue", None}
    for user, arm_name in arms.items():
        assert shown(lab.shop, user) == [("seen", arm_name) if arm_name else (None, None)]
    found = lab.exposures("seen")
    assert {user: ["red", "blue"][arm - 1] for user, (arm, _) in found.items()} == {u: a for u, a in arms.items() if a}
    assert all(before < moment < lab.now() for _, moment in found.values())
    # the arm may be said, if it is right; the other function and Python note the same
    inside = next(user for user, arm_name in arms.items() if arm_name == "blue")
    log(lab.shop, {"user_id": inside, "experiment": "seen", "arm": "blue"})
    single = "select dynrec.log_impressions('shop', %s, '{1}', experiment => 'seen', arm => 'blue')"
    assert lab.shop.value(single, [inside]) == 1
    assert shown(lab.shop, inside) == [("seen", "blue")] * 3
    assert lab.exposures("seen") == found


def test_a_wrong_arm_and_nothing_is_noted(lab: Lab) -> None:
    experiment = lab.create("wrong", traffic=0.5)
    users = [f"wrong {n}" for n in range(40)]
    right = {"user_id": next(user for user in users if experiment.arm_of(user)), "experiment": "wrong"}
    for user in users:
        arm_name = experiment.arm_of(user)
        for given in sorted({"red", "blue", "green", "Red", "red "} - {arm_name}):
            with pytest.raises(
                psycopg.errors.InvalidParameterValue, match=f"impression 2: at .* not in the arm: '{given}'"
            ):
                log(lab.shop, right, {"user_id": user, "experiment": "wrong", "arm": given})
    assert lab.exposures("wrong") == {}
    assert lab.shop.value("select count(*) from dynrec_data.impression where user_id like 'wrong %%'") == 0


def test_an_arm_without_a_name_is_a_wrong_arm(lab: Lab) -> None:
    experiment = lab.create("nameless", traffic=0.5)
    for user in [f"nameless {n}" for n in range(10)]:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not in the arm: ''"):
            log(lab.shop, {"user_id": user, "experiment": "nameless", "arm": ""})
    assert lab.exposures(experiment.name) == {}


def test_lists_outside_the_time_of_an_experiment_have_no_arm(lab: Lab) -> None:
    experiment = lab.create("timed", ago=HOUR)
    began = lab.now() - HOUR - timedelta(minutes=1)
    user = "timed 1"
    lists = [
        {"user_id": user, "experiment": "timed", "shown_at": began.isoformat()},
        {"user_id": user, "experiment": "timed"},
    ]
    log(lab.shop, *lists)
    lab.shop.execute("select dynrec.stop_experiment('shop', 'timed')")
    ended = lab.now()
    log(
        lab.shop,
        {"user_id": user, "experiment": "timed"},
        {"user_id": user, "experiment": "timed", "shown_at": (ended - HOUR / 2).isoformat()},
    )
    arm_name = experiment.arm_of(user)
    assert shown(lab.shop, user) == [(None, None), ("timed", arm_name), ("timed", arm_name), (None, None)]
    assert lab.exposures("timed")[user][1] == ended - HOUR / 2
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"not in the arm: '{arm_name}'"):
        log(lab.shop, {"user_id": user, "experiment": "timed", "arm": arm_name})


def test_the_first_list_is_the_exposure_in_whatever_order_lists_come(lab: Lab) -> None:
    """Eight connections note shuffled batches at the same time; some of their lists are of one user."""
    experiment = lab.create("order", ago=24 * HOUR)
    rng = random.Random(7)
    begin = lab.now() - 23 * HOUR
    lists = [
        {
            "user_id": f"order {rng.randrange(40)}",
            "experiment": "order",
            "shown_at": (begin + timedelta(seconds=rng.randrange(80_000))).isoformat(),
        }
        for _ in range(800)
    ]
    batches = [lists[n : n + 20] for n in range(0, len(lists), 20)]
    with ThreadPoolExecutor(8) as pool:
        assert (
            sum(
                pool.map(
                    lambda batch: lab.store.log_impressions("shop", [{"item_ids": [1]} | one for one in batch]), batches
                )
            )
            == 800
        )
    expected = {
        user: (
            1 + (experiment.arm_of(user) == "blue"),
            min(datetime.fromisoformat(one["shown_at"]) for one in lists if one["user_id"] == user),
        )
        for user in {one["user_id"] for one in lists}
    }
    assert lab.exposures("order") == expected
    lab.arms("log_exposure", experiment, list(expected))
    assert lab.exposures("order") == expected


def test_an_exposure_by_a_clock_that_is_ahead_gives_way_to_an_earlier_one(lab: Lab) -> None:
    experiment = lab.create("ahead")
    later = (lab.now() + HOUR).isoformat()
    log(lab.shop, *({"user_id": user, "experiment": "ahead", "shown_at": later} for user in ("ahead 1", "ahead 2")))
    log(lab.shop, {"user_id": "ahead 1", "experiment": "ahead"})
    lab.arms("log_exposure", experiment, ["ahead 2"])
    assert {user: moment <= lab.now() for user, (_, moment) in lab.exposures("ahead").items()} == {
        "ahead 1": True,
        "ahead 2": True,
    }


def test_who_joins_later_was_not_exposed_before(lab: Lab) -> None:
    """Lists from before traffic was raised, noted afterwards, were served as without the experiment."""
    experiment = lab.create("joins", traffic=0.001, ago=HOUR)
    user = next(user for user in (f"joins {n}" for n in range(99)) if experiment.arm_of(user) is None)
    moment = lab.now()
    lab.store.alter_experiment("shop", "joins", traffic=1)
    log(lab.shop, {"user_id": user, "experiment": "joins", "shown_at": moment.isoformat()})
    assert shown(lab.shop, user) == [(None, None)]
    assert lab.exposures("joins") == {}


def test_an_experiment_of_elsewhere_needs_an_arm(lab: Lab) -> None:
    given = {"user_id": "theirs", "experiment": "theirs"}
    before = lab.shop.value("select count(*) from dynrec_data.exposure")
    log(lab.shop, given | {"arm": "any"}, given | {"arm": ""})
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"impression 2: .* without an arm: 'theirs'"):
        log(lab.shop, given | {"arm": "any"}, given)
    assert shown(lab.shop, "theirs") == [("theirs", "any"), ("theirs", "")]
    assert lab.shop.value("select count(*) from dynrec_data.exposure") == before
