"""Alerts: each kind comes when its condition is there and goes with it; what they advise can be done."""

import random
import re
import statistics
from collections.abc import Sequence
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest

from tests.learned import backfill, stage
from tests.sql.shop import Event, Shop

Alert = tuple[str | None, str, str]


@pytest.fixture
def quiet(shop: Shop) -> Shop:
    """A shop where all is well."""
    shop.execute("select dynrec._beat('d', 'dispatcher', '{}'), dynrec._beat('w', 'worker', '{}')")
    assert alerts(shop) == []
    return shop


def alerts(shop: Shop) -> list[Alert]:
    rows = shop.execute("select recommender, severity, alert from dynrec.alerts order by 1, 3, finding")
    assert shop.value("select count(*) from dynrec.alerts where finding is null or remedy is null") == 0
    return [(recommender, severity, alert) for recommender, severity, alert in rows]


def told(shop: Shop, alert: str) -> list[tuple[str, str]]:
    """Finding and remedy of the alerts of a kind."""
    rows = shop.execute("select finding, remedy from dynrec.alerts where alert = %s order by 1", [alert])
    return [(finding, remedy) for finding, remedy in rows]


def note(
    shop: Shop,
    metric: str,
    values: Sequence[float],
    part: str = "all",
    at_k: int = 10,
    error: float | None = 0.0,
    model: int = 1,
) -> None:
    """Measurements of the last days, the newest last."""
    with shop.connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, period_from, value, standard_error, n)
            select r.id, %s, %s, %s, now() - make_interval(days => %s), %s, now() - make_interval(days => %s), %s, %s, 500
            from dynrec_data.recommender r where r.name = %s
            """,
            [
                (metric, at_k, part, len(values) - n, model, len(values) - n + 1, value, error, shop.name)
                for n, value in enumerate(values)
            ],
        )


FELL: list[Alert] = [("shop", "warning", "quality fell")]


@pytest.mark.parametrize(
    ("values", "error", "fell"),
    [
        ([0.5, 0.5, 0.5, 0.3], 0.0, True),
        ([0.5, 0.5, 0.5, 0.3], None, True),
        ([0.5, 0.5, 0.5, 0.0], 0.01, True),
        ([0.5, 0.5, 0.3], 0.0, False),  # too few before
        ([0.3], 0.0, False),
        ([0.5, 0.5, 0.5, 0.46], 0.0, False),  # little
        ([0.5, 0.5, 0.5, 0.3], 0.1, False),  # within the noise of the newest
        ([0.2, 0.8, 0.5, 0.9, 0.1, 0.3], 0.0, False),  # within the noise of those before
        ([0.5, 0.5, 0.5, 0.3, 0.5], 0.0, False),  # better again
        ([0.9, 0.9, 0.9, *[0.5] * 7, 0.5], 0.0, False),  # only the last seven before count
        ([0.5, 0.5, 0.5, 0.7], 0.0, False),
        ([0.0, 0.0, 0.0, 0.0], 0.0, False),
    ],
)
def test_quality_fell(quiet: Shop, values: list[float], error: float | None, fell: bool) -> None:
    note(quiet, "ndcg_at_k", values, error=error)
    assert alerts(quiet) == (FELL if fell else [])
    if fell:
        assert (
            told(quiet, "quality fell")[0][0]
            == f"nDCG@10 was {values[-1]:.4f}, after 0.5000 on average of the 3 times before"
        )
        since = quiet.value("select since from dynrec.alerts")
        assert since == quiet.value("select max(measured_at) from dynrec.measurements")


def test_only_ndcg_of_all_lists_is_watched(quiet: Shop) -> None:
    note(quiet, "ndcg_at_k", [0.5, 0.5, 0.5, 0.1], part="new users")
    note(quiet, "recall_at_k", [0.5, 0.5, 0.5, 0.1])
    assert alerts(quiet) == []


def test_falls_beyond_noise_by_a_computation_of_its_own(quiet: Shop) -> None:
    """Sixty series at once, each of another length of list."""
    rng = random.Random(11)
    wanted = set()
    for at_k in range(1, 61):
        values = [rng.gauss(0.5, rng.choice([0.01, 0.05])) for _ in range(rng.randrange(1, 12))] + [
            rng.uniform(0.2, 0.5)
        ]
        error = rng.choice([0.0, 0.02, 0.1])
        note(quiet, "ndcg_at_k", values, at_k=at_k, error=error)
        before = values[:-1][-7:]
        if len(before) >= 3:
            usual = statistics.mean(before)
            noise = (statistics.variance(before) / len(before) + error**2) ** 0.5
            if values[-1] < 0.9 * usual and values[-1] < usual - 3 * noise:
                wanted.add(at_k)
    got = {int(finding.split("@")[1].split()[0]) for finding, _ in told(quiet, "quality fell")}
    assert got == wanted
    assert 10 < len(wanted) < 50


def test_few_users_prove_no_fall(quiet: Shop) -> None:
    note(quiet, "ndcg_at_k", [0.5, 0.5, 0.5, 0.1])
    quiet.execute("update dynrec_data.measurement set n = 29")
    assert alerts(quiet) == []
    quiet.execute("update dynrec_data.measurement set n = 30")
    assert alerts(quiet) == FELL


def test_periods_of_other_lengths_are_not_compared(quiet: Shop) -> None:
    """In less time users meet fewer items: the lists are not worse for it."""
    note(quiet, "ndcg_at_k", [0.5, 0.5, 0.5, 0.1])
    assert alerts(quiet) == FELL
    quiet.execute(
        "update dynrec_data.measurement set period_from = measured_at - interval '11 hours' where value = 0.1"
    )
    assert alerts(quiet) == []


def test_few_items_prove_no_drift(quiet: Shop) -> None:
    note(quiet, "psi", [0.9], part="items: price", at_k=0)
    assert alerts(quiet) == [("shop", "warning", "inputs drifted")]
    quiet.execute("update dynrec_data.measurement set n = 499")
    assert alerts(quiet) == []


def test_a_fall_is_seen_across_versions(quiet: Shop) -> None:
    """The new version is worse than the one before it was."""
    note(quiet, "ndcg_at_k", [0.5, 0.5, 0.5])
    quiet.execute(
        "update dynrec_data.measurement set measured_at = measured_at - interval '5 days', period_from = period_from - interval '5 days'"
    )
    note(quiet, "ndcg_at_k", [0.2], model=2)
    assert alerts(quiet) == FELL


def test_of_the_index_the_newest_recall_of_the_active_version_counts(quiet: Shop) -> None:
    model = stage(quiet.connection)
    backfill(quiet.connection)
    note(quiet, "index_recall_at_k", [0.5, 0.7, 0.95])
    assert alerts(quiet) == []
    note(quiet, "index_recall_at_k", [0.9499], at_k=11)
    assert alerts(quiet) == [("shop", "warning", "index recall is low")]
    note(quiet, "index_recall_at_k", [0.1], at_k=12, model=model)
    assert len(alerts(quiet)) == 1
    quiet.execute("select dynrec.promote_model('shop')")
    assert [remedy for _, remedy in told(quiet, "index recall is low")] == [
        f"reindex index concurrently dynrec_data.item_vector_{model}_hnsw"
    ]


def test_of_drift_what_is_above_a_quarter_counts(quiet: Shop) -> None:
    note(quiet, "psi", [0.1, 0.25], part="items: price", at_k=0)
    note(quiet, "psi", [0.9, 0.2], part="items: category", at_k=0)
    note(quiet, "psi", [5.0], part="vectors", at_k=0, model=77)
    assert alerts(quiet) == []
    note(quiet, "psi", [0.1, 0.26], part="interactions: kind", at_k=0)
    assert alerts(quiet) == [("shop", "warning", "inputs drifted")]
    assert told(quiet, "inputs drifted")[0][0] == (
        "interactions: kind: population stability index 0.26 since model version 1 was made"
    )


def watch(shop: Shop) -> None:
    shop.execute("select dynrec.watch('shop')")
    shop.execute("update dynrec_data.measurement set n = 500 where metric = 'psi'")  # as of a larger shop


def test_drift_of_real_columns(quiet: Shop) -> None:
    quiet.execute("select dynrec._take_profiles()")
    watch(quiet)
    assert alerts(quiet) == []
    quiet.execute("update shop.products set price = price + 1000")
    quiet.drain()
    assert alerts(quiet) == [], "not measured yet"
    watch(quiet)
    assert [finding.split(": pop")[0] for finding, _ in told(quiet, "inputs drifted")] == ["items: price"]
    quiet.execute("update shop.products set price = price - 1000")
    quiet.drain()
    watch(quiet)
    assert alerts(quiet) == []


def test_what_is_fed_to_the_model_no_more_raises_no_alert(quiet: Shop) -> None:
    """The newest measurement says nothing of a column that was given up."""
    quiet.execute("select dynrec._take_profiles()")
    quiet.execute("update shop.products set price = price + 1000")
    quiet.drain()
    watch(quiet)
    assert alerts(quiet) == [("shop", "warning", "inputs drifted")]
    quiet.execute("select dynrec.alter_recommender('shop', numeric_columns => '{}')")
    quiet.drain()
    watch(quiet)
    assert alerts(quiet) == []


def test_a_new_version_begins_without_drift(quiet: Shop) -> None:
    quiet.execute("select dynrec._take_profiles()")
    quiet.execute("update shop.products set price = price + 1000")
    quiet.drain()
    watch(quiet)
    stage(quiet.connection)
    backfill(quiet.connection)
    quiet.execute("select dynrec._take_profiles()")
    quiet.execute("select dynrec.promote_model('shop')")
    assert alerts(quiet) == []
    watch(quiet)
    assert alerts(quiet) == []


MEASURED: LiteralString = (
    "update dynrec_data.recommender set measured_at = now() - %s::interval, created_at = now() - %s::interval"
)


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


def fail(shop: Shop) -> int:
    model = int(shop.value("select dynrec.stage_model('shop')"))
    shop.execute("select dynrec._training_begins(%s)", [model])
    shop.execute("select dynrec._training_failed(%s, 'out of memory')", [model])
    return model


FAILED: list[Alert] = [("shop", "error", "training failed")]


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


def expose(shop: Shop, *users: int) -> None:
    for arm, count in enumerate(users, start=1):
        shop.execute(
            "insert into dynrec_data.exposure (experiment_id, user_id, arm, exposed_at) "
            "select e.id, %s || n, %s, now() from dynrec_data.experiment e, generate_series(1, %s) n",
            [f"arm {arm} user ", arm, count],
        )


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


def test_the_advice_names_the_period_that_was_judged(quiet: Shop) -> None:
    """The statement with the period gives the value that the alert is about."""
    quiet.execute("select dynrec._take_profiles()")
    moment = quiet.value("select clock_timestamp()")
    quiet.add_events(Event(f"u{n}", str(1 + n % 12), moment + timedelta(microseconds=n), "purchase") for n in range(35))
    watch(quiet)
    quiet.execute('update dynrec_data.recommender set options = options || \'{"measure_every": "1 millisecond"}\'')
    worst = quiet.value("select value from dynrec.measurements where metric = 'ndcg_at_k' and slice = 'all'")
    quiet.execute("update dynrec_data.measurement set standard_error = 0 where metric = 'ndcg_at_k'")
    before = [worst + 1] * 3
    note(quiet, "ndcg_at_k", before)
    remedy = told(quiet, "quality fell")[0][1]
    statement = remedy.split(" shows where")[0].replace("…", "'category'")
    rows = quiet.connection.execute(statement.encode()).fetchall()
    assert [row[3] for row in rows if row[:3] == ("ndcg_at_k", 10, "all")] == [pytest.approx(worst)]
    assert any(str(row[2]).startswith("category: ") for row in rows)


def test_alerts_are_there_before_anything_is(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Without recommenders only the doctor speaks."""
    rows = connection.execute("select recommender, alert from dynrec.alerts").fetchall()
    assert rows == [(None, "doctor")] * 2
    assert connection.execute("select * from dynrec.measurements").fetchall() == []
