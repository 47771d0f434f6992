"""Alerts: each kind comes when its condition is there and goes with it; what they advise can be done."""

import re

import psycopg
import pytest

from tests.learned import backfill, stage
from tests.sql import alerting
from tests.sql.alerting import FAILED, FELL, MEASURED, alerts, expose, fail, note, told
from tests.sql.shop import Shop

quiet = alerting.quiet


@pytest.mark.parametrize(
    ("measured", "created", "missed"),
    [
        ("2 days 11 minutes", "9 days", True),
        ("2 days 9 minutes", "9 days", False),
        (None, "2 days 11 minutes", True),
        (None, "2 days 9 minutes", False),
    ],
)
def test_not_measured(quiet: Shop, measured: str | None, created: str, missed: bool) -> None:
    quiet.execute(MEASURED, [measured, created])
    assert alerts(quiet) == ([("shop", "warning", "not measured")] if missed else [])
    if missed:
        assert quiet.value(
            "select since = coalesce(measured_at, created_at) from dynrec.alerts, dynrec_data.recommender"
        )


@pytest.mark.parametrize("options", ['{"measure_every": null}', '{"measure_every": "30 days"}'])
def test_who_need_not_be_measured_is_not_missed(quiet: Shop, options: str) -> None:
    quiet.execute(MEASURED, [None, "50 days"])
    assert len(alerts(quiet)) == 1
    quiet.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [options])
    assert alerts(quiet) == []


def test_the_paused_are_not_missed(quiet: Shop) -> None:
    quiet.execute(MEASURED, [None, "50 days"])
    quiet.execute("select dynrec.pause('shop')")
    assert alerts(quiet) == []


def test_a_measurement_ends_the_alert_that_there_is_none(quiet: Shop) -> None:
    quiet.execute(MEASURED, [None, "50 days"])
    quiet.execute("select dynrec._watch_next()")
    assert alerts(quiet) == []


def test_training_failed(quiet: Shop) -> None:
    model = fail(quiet)
    assert alerts(quiet) == FAILED
    assert told(quiet, "training failed") == [
        (f"model version {model}: out of memory", "dynrec train 'shop', after mending what it says")
    ]
    again = fail(quiet)
    assert [finding for finding, _ in told(quiet, "training failed")] == [f"model version {again}: out of memory"]
    quiet.execute("select dynrec._training_begins(%s)", [again])
    assert alerts(quiet) == [], "tried again"
    quiet.execute("select dynrec._training_failed(%s, 'once more')", [again])
    assert alerts(quiet) == FAILED
    stage(quiet.connection)
    assert alerts(quiet) == [], "another one has begun"
    backfill(quiet.connection)
    assert alerts(quiet) == []


def test_another_recommenders_training_does_not_help(quiet: Shop) -> None:
    fail(quiet)
    quiet.execute(
        "select dynrec.create_recommender('other', 'shop.products', text_columns => '{title}', interactions => 'shop.events', encoder => 'hashing')"
    )
    quiet.drain()
    stage(quiet.connection, recommender="other")
    quiet.execute("delete from dynrec_data.task")
    assert alerts(quiet) == FAILED


def test_experiment_invalid(quiet: Shop) -> None:
    quiet.execute('select dynrec.create_experiment(\'shop\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
    assert alerts(quiet) == [], "nobody met it yet"
    expose(quiet, 1000, 600)
    assert alerts(quiet) == [("shop", "warning", "experiment invalid")]
    finding = told(quiet, "experiment invalid")[0][0]
    assert finding.startswith("colours: users of the arms are 1000 : 600,")
    assert str(quiet.value("select verdict from dynrec.experiments")).startswith("invalid")
    quiet.execute("select dynrec.stop_experiment('shop', 'colours')")
    assert alerts(quiet) == []


@pytest.mark.parametrize("users", [(1000, 1000), (1000, 960), (10, 3)])
def test_a_ratio_within_chance_is_none_of_an_invalid_experiment(quiet: Shop, users: tuple[int, int]) -> None:
    quiet.execute('select dynrec.create_experiment(\'shop\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
    expose(quiet, *users)
    assert alerts(quiet) == []


def test_what_the_doctor_finds(quiet: Shop) -> None:
    quiet.execute("delete from dynrec_data.heartbeat")
    assert alerts(quiet) == [(None, "error", "doctor"), (None, "error", "doctor")]
    assert [finding for finding, _ in told(quiet, "doctor")] == [
        "dispatcher: no dispatcher has been alive for 30 seconds",
        "worker: no worker has been alive for 30 seconds",
    ]
    quiet.execute("select dynrec._beat('d', 'dispatcher', '{}'), dynrec._beat('w', 'worker', '{}')")
    quiet.execute("select dynrec.pause('shop')")
    assert quiet.value("select count(*) from dynrec.doctor()") == 1
    assert alerts(quiet) == [], "mere information"
    quiet.execute("select dynrec.resume('shop')")
    quiet.execute(
        "insert into dynrec_data.dead_letter (recommender_id, kind, entity, attempts, error) values (1, 'item', '1', 5, 'poison')"
    )
    assert alerts(quiet) == [("shop", "warning", "doctor")]
    assert told(quiet, "doctor") == [("1 dead letters, the last: poison", "select dynrec.retry_failed('shop')")]
    quiet.execute("drop index shop.events_user_id_idx")
    assert alerts(quiet) == [("shop", "warning", "doctor")] * 2


def test_alerts_of_several_kinds_and_recommenders(quiet: Shop) -> None:
    quiet.execute(
        "select dynrec.create_recommender('other', 'shop.products', text_columns => '{title}', interactions => 'shop.events', encoder => 'hashing')"
    )
    quiet.drain()
    other = Shop(quiet.connection, "other")
    note(quiet, "ndcg_at_k", [0.5, 0.5, 0.5, 0.3])
    note(other, "ndcg_at_k", [0.5, 0.5, 0.5, 0.5])
    note(other, "psi", [0.7], part="vectors", at_k=0, model=2)
    fail(quiet)
    assert alerts(quiet) == [("other", "warning", "inputs drifted"), *FELL, *FAILED]


def test_what_is_advised_can_be_done(quiet: Shop) -> None:
    """Statements in remedies are executed, or planned where they need something else."""
    backfill(quiet.connection)
    note(quiet, "ndcg_at_k", [0.5, 0.5, 0.5, 0.3])
    note(quiet, "index_recall_at_k", [0.5])
    note(quiet, "psi", [0.7], part="vectors", at_k=0)
    quiet.execute("select dynrec._take_profiles()")
    remedies = dict(quiet.execute("select alert, remedy from dynrec.alerts"))
    assert remedies.keys() == {"quality fell", "index recall is low", "inputs drifted"}
    quiet.connection.execute(remedies["index recall is low"].encode())
    shown = re.fullmatch(
        r"(select \* from dynrec\.data_drift\('shop'\)) shows how; .*: dynrec train 'shop'", remedies["inputs drifted"]
    )
    assert shown is not None
    assert quiet.connection.execute(shown[1].encode()).fetchall() != []
    parts = re.fullmatch(
        r"(select \* from dynrec\.evaluate\(.*\)) shows where; .*, or go back: (select dynrec\.rollback_model\('shop'\))",
        remedies["quality fell"],
    )
    assert parts is not None
    quiet.connection.execute(f"explain {parts[1].replace('…', chr(39) + 'category' + chr(39))}".encode())
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no model version to go back to"):
        quiet.connection.execute(parts[2].encode())
    model = stage(quiet.connection)
    backfill(quiet.connection)
    quiet.execute("select dynrec.promote_model('shop')")
    assert quiet.connection.execute(parts[2].encode()).fetchall() == [(model - 1,)]


def test_alerts_are_there_before_anything_is(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Without recommenders only the doctor speaks."""
    rows = connection.execute("select recommender, alert from dynrec.alerts").fetchall()
    assert rows == [(None, "doctor")] * 2
    assert connection.execute("select * from dynrec.measurements").fetchall() == []
