"""Data in which too little happened to learn from or to tune on, and how far a run says it is."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import load_settings
from workers.bench import app
from workers.bench.quality.baselines.base import Data
from workers.bench.quality.baselines.line_up import NAMES, LineUp, Validation
from workers.bench.quality.dataset import DAY, Dataset, Floats, Roles, make_dataset
from workers.bench.quality.harness import make_plan, run
from workers.bench.quality.outcome import as_json, rows
from workers.bench.quality.protocols import Histories, cold_items, live, split
from workers.bench.quality.ranking import BATCH, Ranker

ITEMS, EVENTS = 30, 200


def data(users: int, days: np.ndarray) -> Dataset:
    """Events on these days, of one user after the other."""
    rng = np.random.default_rng(0)
    events = pd.DataFrame(
        {
            "user_id": [f"u{n % users}" for n in range(len(days))],
            "item_id": [f"i{n}" for n in rng.integers(0, ITEMS, len(days))],
            "time": (days * DAY).astype(np.int64),
        }
    )
    keys = pd.Index([f"i{n}" for n in range(ITEMS)], name="item_id")
    attributes = pd.DataFrame({"title": [f"thing {n}" for n in range(ITEMS)]}, index=keys)
    return make_dataset("little", events, attributes, Roles(("title",), (), ()))


def encode(texts: Sequence[str]) -> Floats:
    return np.ones((len(texts), 1), np.float32)


@pytest.mark.parametrize("protocol", ["fixed", "live"])
def test_events_of_one_time_are_refused(tmp_path: Path, protocol: str) -> None:
    events = pd.DataFrame({"user_id": "u", "item_id": np.arange(20), "occurred_at": "2024-05-01"})
    events.to_csv(tmp_path / "e.csv", index=False)
    pd.DataFrame({"item_id": np.arange(20), "title": "a thing"}).to_csv(tmp_path / "i.csv", index=False)
    files = ("--interactions", str(tmp_path / "e.csv"), "--items", str(tmp_path / "i.csv"))
    with pytest.raises(ConfigurationError, match=r"of its 20 events happened at one time, 2024-05-01T00:00:00\+00:00"):
        CliRunner().invoke(
            app, ["quality", *files, "--protocol", protocol, "--models", "SASRec"], catch_exceptions=False
        )


@pytest.mark.parametrize("name", NAMES)
def test_users_who_came_once_leave_something_to_learn(name: str) -> None:
    dataset = data(180, np.arange(EVENTS) / 24)  # all come once before the test period, and some again in it
    histories, (validation, test) = Histories(dataset.log), split(dataset.log)
    rankers = [Ranker(dataset.log, histories, cold_items(dataset, when)) for when in (validation, test)]
    cases = [live(dataset.log, when, None, 0, repeat=False) for when in (validation, test)]
    line_up = LineUp(Data(dataset, histories), encode, Validation(validation, {"live": cases[0]}, rankers[0]), 0)
    model = line_up.fit(name, "live", test).model
    assert np.isfinite(model.scores(cases[1])).all()
    assert (rankers[1].lists(model, cases[1]).top >= 0).all()


def test_what_could_not_be_tuned_is_said(tmp_path: Path) -> None:
    days = np.where(np.arange(EVENTS) < 10, 0.0, np.where(np.arange(EVENTS) < 185, 9.0, 10.0))
    dataset = data(9, days)
    log = dataset.log
    pd.DataFrame(
        {
            "user_id": [dataset.users[u] for u in log.user],
            "item_id": dataset.attributes.index[log.item],
            "occurred_at": log.time / 1e6,
        }
    ).to_csv(tmp_path / "e.csv", index=False)
    dataset.attributes.to_csv(tmp_path / "i.csv")
    done = CliRunner().invoke(
        app,
        [
            *("quality", "--interactions", str(tmp_path / "e.csv"), "--items", str(tmp_path / "i.csv")),
            *("--models", "most popular; recent popularity; EASE, recency", "--protocol", "live", "--json"),
        ],
        catch_exceptions=False,
    )
    assert [line["tuning_lists"] for line in map(json.loads, done.stdout.splitlines())] == [None, 0, 0]
    assert "not tuned for the live protocol" in done.stderr
    assert done.stderr.strip().endswith("the first of their parameters: recent popularity; EASE, recency")
    assert "not tuned" not in done.stdout


def test_tuning_says_on_how_many_lists() -> None:
    plan = make_plan("live", "EASE", repeat=False, retrain_every=None, live_events=9, users=None, seed=0)
    dataset = data(9, np.arange(EVENTS) / 24)
    line = as_json(rows(run(load_settings(), dataset, plan), 0)[0], "little", seed=0)
    assert line["tuning_lists"] == len(live(dataset.log, split(dataset.log)[0], None, 0, repeat=False)) > 0


@pytest.mark.parametrize("name", ["decayed popularity", "blend"])
def test_tuning_moves_the_bar(name: str) -> None:
    dataset = data(60, np.arange(6000) / 240)
    histories, (validation, test) = Histories(dataset.log), split(dataset.log)
    ranker = Ranker(dataset.log, histories, cold_items(dataset, validation))
    cases = live(dataset.log, validation, None, 0, repeat=True)
    line_up = LineUp(Data(dataset, histories), encode, Validation(validation, {"live": cases}, ranker), 0)
    told: dict[str, list[float]] = {}
    line_up.fit(name, "live", test, lambda what, done: told.setdefault(what, []).append(done))
    grid = 7 if name == "decayed popularity" else 30
    steps = grid + -(-len(cases) // BATCH)
    assert told[f"tuning {name}"] == pytest.approx([n / steps for n in range(steps + 1)])
    assert told[f"fitting {name}"] == [0.0]
    told.clear()
    line_up.fit(name, "live", test, lambda what, done: told.setdefault(what, []).append(done))
    assert list(told) == [f"fitting {name}"]
