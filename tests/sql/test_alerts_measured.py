"""Alerts of measurements: quality that fell, an index that misses, inputs that drifted."""

import random
import statistics
from datetime import timedelta

import pytest

from tests.learned import backfill, stage
from tests.sql import alerting
from tests.sql.alerting import FELL, alerts, note, told, watch
from tests.sql.shop import Event, Shop

quiet = alerting.quiet


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
