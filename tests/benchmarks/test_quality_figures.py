"""The figures of a run, beside the same ones counted one list at a time with sets."""

import math
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import structlog

from dynrec_store.settings import load_settings
from workers.bench.quality.dataset import DAY, Dataset, Ints, Roles, make_dataset
from workers.bench.quality.harness import Outcome, make_plan, run
from workers.bench.quality.metrics import K, coverage
from workers.bench.quality.outcome import as_json, rows, show
from workers.bench.quality.plots import FORMATS, check_plot, plot

ITEMS, NEW, USERS, EVENTS = 40, 12, 30, 1200


@pytest.fixture(scope="module")
def late() -> Dataset:
    """Items of two letters, drawn at random; twelve of them come into the last tenth alone, and soon are in fashion."""
    rng = np.random.default_rng(0)
    items = rng.integers(0, ITEMS, EVENTS)
    last = np.arange(EVENTS - 110, EVENTS)
    items[last] = np.where(rng.random(110) < 0.6, ITEMS + rng.integers(0, NEW, 110), items[last])
    events = pd.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, USERS, EVENTS)],
            "item_id": [f"i{n}" for n in items],
            "time": np.arange(EVENTS) * DAY // 20,
        }
    )
    keys = pd.Index([f"i{n}" for n in range(ITEMS + NEW)], name="item_id")
    attributes = pd.DataFrame({"title": [f"thing {n}" for n in range(ITEMS + NEW)]}, index=keys)
    return make_dataset("late", events, attributes, Roles(("title",), (), ()))


@pytest.fixture(scope="module")
def outcomes(late: Dataset) -> Iterator[list[Outcome]]:
    plan = make_plan(
        "both", "decayed popularity", repeat=False, retrain_every=None, live_events=6000, users=None, seed=0
    )
    yield run(load_settings(), late, plan)
    structlog.reset_defaults()


@pytest.mark.parametrize("protocol", ["fixed", "live"])
def test_figures_of_cold_items_alone(outcomes: list[Outcome], protocol: str) -> None:
    (row,) = [row for row in rows(outcomes, 0) if row.outcome.protocol == protocol]
    outcome, line = row.outcome, as_json(row, "late", seed=0)
    cold = set(np.flatnonzero(outcome.cold).tolist())
    came = [set(truth.tolist()) & cold for truth in outcome.cases.truth if set(truth.tolist()) & cold]
    assert (len(came), len(cold)) == (line["cold_lists"], line["cold_items"]) == (len(outcome.lists.cold), NEW)
    lists = [[item for item in top if item >= 0] for top in outcome.lists.cold.tolist()]
    hits = [[rank for rank, item in enumerate(top) if item in items] for top, items in zip(lists, came, strict=True)]
    best = [sum(1 / math.log2(2 + rank) for rank in range(min(K, len(items)))) for items in came]
    gains = [sum(1 / math.log2(2 + rank) for rank in ranks) for ranks in hits]
    mean = {
        "cold_only_hit_rate": sum(1 for ranks in hits if ranks) / len(came),
        "cold_only_recall": sum(len(ranks) / len(items) for ranks, items in zip(hits, came, strict=True)) / len(came),
        "cold_only_ndcg": sum(gain / most for gain, most in zip(gains, best, strict=True)) / len(came),
        "cold_only_coverage": len({item for top in lists for item in top}) / len(cold),
        "coverage": len({item for top in outcome.lists.top.tolist() for item in top if item >= 0}) / len(outcome.cold),
    }
    for name, expected in mean.items():
        key = name if name.endswith("coverage") else f"{name}_at_10"
        assert line[key] == pytest.approx(expected)
        low, high = line[f"{name}_low"], line[f"{name}_high"]
        assert isinstance(low, float)
        assert isinstance(high, float)
        assert 0 <= low <= expected <= high <= 1
    assert mean["cold_only_hit_rate"] > 0


def test_nothing_is_said_of_cold_items_where_there_are_none(late: Dataset) -> None:
    log = late.log
    early = pd.DataFrame({"user_id": log.user, "item_id": late.attributes.index[log.item % ITEMS], "time": log.time})
    dataset = make_dataset("early", early, late.attributes.iloc[:ITEMS], late.roles)
    plan = make_plan("live", "most popular", repeat=True, retrain_every=None, live_events=9, users=None, seed=0)
    line = as_json(rows(run(load_settings(), dataset, plan), 0)[0], "early", seed=0)
    assert line["coverage"] is not None
    for name in ("cold_only_hit_rate_at_10", "cold_only_hit_rate_low", "cold_only_coverage", "cold_only_coverage_high"):
        assert line[name] is None


def test_coverage_varies_as_that_of_users_who_are_drawn_again() -> None:
    rng = np.random.default_rng(0)
    top: Ints = rng.zipf(1.3, (200, K)) % 500
    users = rng.integers(0, 60, 200)
    found = coverage(top, users, 500, 0)
    assert found is not None
    shown = {user: set(top[users == user].ravel().tolist()) for user in np.unique(users).tolist()}
    dice = random.Random(1)
    drawn = sorted(
        len(set().union(*(shown[user] for user in dice.choices(list(shown), k=len(shown))))) / 500 for _ in range(4000)
    )
    assert found.mean == len(set().union(*shown.values())) / 500
    mean = sum(drawn) / len(drawn)
    assert (found.low - found.mean, found.high - found.mean) == pytest.approx(
        (drawn[100] - mean, drawn[-101] - mean), abs=0.006
    )
    one_user = coverage(top, np.zeros(200, np.int64), 500, 0)
    assert one_user is not None
    assert one_user.low == one_user.mean == one_user.high


def test_tables_fit_a_terminal_and_have_cold_items_alone(
    outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    results = rows(outcomes, 0)
    show(results, "late", json_lines=False, seed=0)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, printed)) <= 80
    assert "…" not in "".join(printed)
    titles = [line for line in printed if line.startswith("late, ")]
    assert [title.split(":")[0] for title in titles] == ["late, fixed", "late, live"]
    named = [line for line in printed if line.startswith("decayed popularity")]
    assert len(named) == 2 * len(results)
    for number, row in enumerate(results):
        line = as_json(row, "late", seed=0)
        assert named[2 * number].split()[2] == f"{line['ndcg_at_10']:.4f}"
        assert named[2 * number + 1].split()[2:] == [
            f"{line[name]:.4f}"
            for name in (
                *("recall_at_10", "hit_rate_at_10", "coverage"),
                *("cold_recall_at_10", "cold_only_recall_at_10", "cold_only_ndcg_at_10"),
            )
        ]


@pytest.mark.parametrize("ending", [*FORMATS, "PNG"])
def test_every_format_is_drawn(outcomes: list[Outcome], tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"q.{ending}"
    check_plot(file)
    plot(rows(outcomes, 0), "late", file)
    assert file.stat().st_size > 1000
