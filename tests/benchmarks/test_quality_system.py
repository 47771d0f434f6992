"""Ours in the comparison: a tiny history replayed through a real database, with workers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import structlog
from typer.testing import CliRunner

from dynrec_store import queue
from dynrec_store.settings import Settings, load_settings
from workers.bench import app
from workers.bench.place import bench_database, url_of
from workers.bench.quality.dataset import DAY, SECOND, Dataset, Roles, make_dataset
from workers.bench.quality.harness import make_plan
from workers.bench.quality.harness import run as measure
from workers.bench.quality.metrics import K, score
from workers.bench.quality.ours import CONTENT, OURS, Answers, Plan, answers
from workers.bench.quality.protocols import Cases, Histories, Split, cold_items, fixed, live, split
from workers.bench.quality.tables import COLD, Tables, at

ITEMS, USERS, EVENTS = 60, 40, 900
TITLES = ("red wine bottle", "garden hose green", "kitchen knife steel", "wool socks warm")
BRIEF = {"epochs": 1, "examples": 500, "validated": 100, "snapshots": 4, "learned": 16, "content": 16}
FIGURES = (
    *("ndcg_at_10", "recall_at_10", "hit_rate_at_10", "coverage", "cold_recall_at_10"),
    *("cold_only_ndcg_at_10", "cold_only_recall_at_10", "cold_only_hit_rate_at_10", "cold_only_coverage"),
)
KEYS = {
    *("dataset", "protocol", "model"),
    *FIGURES,
    *(f"{name.removesuffix('_at_10')}_{bound}" for name in FIGURES for bound in ("low", "high")),
    *("best_baseline", "ratio", "difference", "difference_low", "difference_high"),
    *("lists", "cold_lists", "items", "cold_items"),
    *("params", "tuning_lists", "tune_seconds", "fit_seconds", "trainings", "repeat", "seed"),
}
BEGIN = 1_300_000_000 * SECOND


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> Iterator[Settings]:
    monkeypatch.setenv("DYNREC_DATABASE_URL", empty_database_url)
    yield load_settings()
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Users with a taste for a quarter of the items; the last four items come late."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, USERS, EVENTS)
    items = rng.integers(0, ITEMS // 4, EVENTS) * 4 + np.where(
        rng.random(EVENTS) < 0.8, users % 4, rng.integers(0, 4, EVENTS)
    )
    items[: EVENTS - 80][items[: EVENTS - 80] >= ITEMS - 4] -= 40
    events = pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{item}" for item in items],
            "time": BEGIN + np.arange(EVENTS) * DAY // 60,
            "kind": "purchase",
            "value": rng.random(EVENTS),
        }
    )
    keys = [f"i{item}" for item in range(ITEMS)]
    attributes = pd.DataFrame(
        {"title": [f"{TITLES[item % 4]} {item}" for item in range(ITEMS)], "price": rng.random(ITEMS)},
        index=pd.Index(keys, name="item_id"),
    )
    history = pd.DataFrame(
        {
            "item_id": ["i3", "i4", "i5"],
            "valid_from": [BEGIN, int(events.time[EVENTS - 60]), int(events.time[EVENTS - 40])],
            "title": ["wool socks first", "red wine new", None],
            "price": [np.nan, np.nan, 7.5],
        }
    )
    return make_dataset("tiny", events, attributes, Roles(("title",), (), ("price",)), history)


@pytest.fixture(scope="module")
def when(dataset: Dataset) -> Split:
    return split(dataset.log)[1]


def protocols(dataset: Dataset, when: Split) -> dict[str, Cases]:
    return {
        "fixed": fixed(dataset.log, Histories(dataset.log), when, None, 0),
        "live": live(dataset.log, when, 30, 0, repeat=False),
    }


def run(settings: Settings, dataset: Dataset, when: Split, plan: Plan) -> dict[tuple[str, str], Answers]:
    cases = protocols(dataset, when)
    found = answers(settings, dataset, when, cases, cold_items(dataset, when), plan)
    return {(answer.model, answer.protocol): answer for answer in found}


@pytest.mark.slow
def test_lists_of_the_real_system(settings: Settings, dataset: Dataset, when: Split) -> None:
    cases, cold = protocols(dataset, when), cold_items(dataset, when)
    found = run(settings, dataset, when, Plan(encoder="hashing", retrain_days=0.9, training=BRIEF))
    assert set(found) == {(model, protocol) for model in (OURS, CONTENT) for protocol in ("fixed", "live")}
    histories = Histories(dataset.log)
    for (_, protocol), answer in found.items():
        asked = cases[protocol]
        assert answer.lists.top.shape == (len(asked), K)
        for user, position, top in zip(asked.user, asked.position, answer.lists.top, strict=True):
            seen = dataset.log.item[histories.before(user, position)]
            assert not np.isin(top, seen).any()
            assert len(np.unique(top)) == K
        shown = answer.lists.cold[answer.lists.cold >= 0]
        assert len(shown)
        assert cold[shown].all()
        assert score(answer.lists, asked, cold).hit.mean() > 0.3  # a quarter of the items is to one's taste
    assert {protocol: found[OURS, protocol].trainings for protocol in cases} == {"fixed": 1, "live": 2}
    live_lists = found[CONTENT, "live"].lists.top
    assert (live_lists != found[OURS, "live"].lists.top).any()


@pytest.mark.slow
@pytest.mark.usefixtures("settings")
def test_the_command_tells_all_of_the_learned_model(dataset: Dataset, tmp_path: Path) -> None:
    log = dataset.log
    assert log.kind is not None
    assert log.value is not None
    events = {
        "user_id": [dataset.users[user] for user in log.user],
        "item_id": dataset.attributes.index[log.item],
        "occurred_at": pd.to_datetime(log.time, unit="us", utc=True),
        "kind": log.kind,
        "value": log.value,
    }
    pd.DataFrame(events).to_csv(tmp_path / "e.csv", index=False)
    dataset.attributes.to_csv(tmp_path / "i.csv")
    history = dataset.history.assign(
        item_id=dataset.attributes.index[dataset.history.item],
        valid_from=pd.to_datetime(dataset.history.valid_from, unit="us", utc=True),
    )
    history.drop(columns="item").to_csv(tmp_path / "h.csv", index=False)
    files = [f"--interactions={tmp_path}/e.csv", f"--items={tmp_path}/i.csv", f"--history={tmp_path}/h.csv"]
    done = CliRunner().invoke(
        app,
        ["quality", *files, "--models=dynrec; decayed popularity", "--live-events=20", "--users=20", "--json"],
        catch_exceptions=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["protocol"], line["model"]) for line in lines] == [
        (protocol, model) for protocol in ("fixed", "live") for model in ("dynrec", "decayed popularity")
    ]
    for ours, theirs in (lines[:2], lines[2:]):
        assert ours.keys() == theirs.keys() == KEYS
        for name in FIGURES:
            stem = name.removesuffix("_at_10")
            assert 0 <= ours[f"{stem}_low"] <= ours[name] <= ours[f"{stem}_high"] <= 1
        assert (ours["best_baseline"], theirs["best_baseline"]) == ("decayed popularity", "decayed popularity")
        assert ours["ratio"] == pytest.approx(ours["ndcg_at_10"] / theirs["ndcg_at_10"])
        assert ours["difference"] == pytest.approx(ours["ndcg_at_10"] - theirs["ndcg_at_10"])
        assert ours["difference_low"] <= ours["difference"] <= ours["difference_high"]
        assert (theirs["ratio"], theirs["difference"]) == (None, None)
        assert (ours["trainings"], theirs["trainings"]) == (1, None)
        assert (ours["tuning_lists"], theirs["tuning_lists"] > 0) == (None, True)
        assert (ours["params"], list(theirs["params"])) == ({}, ["half_life"])
        assert (ours["items"], ours["cold_items"], ours["lists"]) == (ITEMS, 4, 20)
        assert ours["cold_lists"] == theirs["cold_lists"] > 0
        assert ours["fit_seconds"] > 0
        assert (ours["dataset"], ours["repeat"], ours["seed"]) == ("e", False, 0)


def test_repeats_are_allowed_in_the_live_protocol_alone(settings: Settings, dataset: Dataset) -> None:
    plan = make_plan("both", CONTENT, repeat=True, retrain_every=None, live_events=30, users=None, seed=0)
    outcomes = {outcome.protocol: outcome for outcome in measure(settings, dataset, plan)}
    histories = Histories(dataset.log)
    met = {
        protocol: [
            np.isin(top, dataset.log.item[histories.before(user, position)]).any()
            for user, position, top in zip(outcome.cases.user, outcome.cases.position, outcome.lists.top, strict=True)
        ]
        for protocol, outcome in outcomes.items()
    }
    assert not any(met["fixed"])
    assert any(met["live"])


def test_tables_go_on_in_time(settings: Settings, dataset: Dataset, when: Split) -> None:
    with bench_database(settings) as own, queue.connect(url_of(own), application_name="test") as connection:
        tables = Tables(connection, dataset)
        tables.create(when.start, when.moment, cold_items(dataset, when))
        title = "select title from items where item_id = %s"
        assert connection.execute(title, ["i3"]).fetchone() == ("wool socks first",)
        assert connection.execute(title, ["i4"]).fetchone() == ("red wine bottle 4",)
        assert connection.execute(
            "select count(*), max(occurred_at) < %s from events", [at(when.moment)]
        ).fetchone() == (
            when.start,
            True,
        )
        assert connection.execute(f"select count(*) from items where {COLD}".encode()).fetchone() == (4,)
        tables.change(1, 3)
        tables.insert(when.start, when.end)
        assert connection.execute(title, ["i4"]).fetchone() == ("red wine new",)
        assert connection.execute("select title, price from items where item_id = 'i5'").fetchone() == (
            "garden hose green 5",
            7.5,
        )
        assert connection.execute("select count(*), count(value), min(kind) from events").fetchone() == (
            when.end,
            when.end,
            "purchase",
        )
