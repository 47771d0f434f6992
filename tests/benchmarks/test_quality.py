"""Splits, protocols, metrics and files of the comparison; every baseline learns something; dice fall alike."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score
from typer.testing import CliRunner

from dynrec_store.exceptions import ConfigurationError
from workers.bench import app
from workers.bench.quality.baselines.base import Data, Recency, histories
from workers.bench.quality.baselines.line_up import NAMES, LineUp, Validation
from workers.bench.quality.baselines.popularity import Decayed, Recent
from workers.bench.quality.dataset import DAY, SECOND, Dataset, Floats, Ints, Roles, make_dataset
from workers.bench.quality.metrics import K, Lists, by_list, interval, score
from workers.bench.quality.neutral import read_neutral
from workers.bench.quality.protocols import Cases, Histories, cold_items, fixed, live, split
from workers.bench.quality.ranking import Ranker, top

GROUPS, ITEMS, USERS, EVENTS = 4, 40, 60, 40


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """Users who keep to one of four groups of items, and take two of a group one after the other."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        group = user % GROUPS
        own = rng.permutation(np.arange(group, ITEMS * GROUPS, GROUPS))[:EVENTS]
        days = np.sort(rng.uniform(0, 100, EVENTS))
        rows += [(f"u{user}", f"i{item}", int(day * DAY)) for item, day in zip(own, days, strict=True)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "time"]).sort_values("time")
    keys = [f"i{item}" for item in range(ITEMS * GROUPS)]
    titles = [f"{('tea', 'lamp', 'rope', 'coat')[n % GROUPS]} number {n}" for n in range(len(keys))]
    attributes = pd.DataFrame({"title": titles}, index=pd.Index(keys, name="item_id"))
    return make_dataset("tiny", events, attributes, Roles(("title",), (), ()))


def encode(texts: Sequence[str]) -> Floats:
    """The first word alone."""
    words = sorted({text.split()[0] for text in texts})
    return np.eye(len(words), dtype=np.float32)[[words.index(text.split()[0]) for text in texts]]


def test_no_user_has_two_events_at_one_time_and_lines_keep_their_order() -> None:
    events = pd.DataFrame(
        {"user_id": ["a", "b", "a", "a", "a"], "item_id": list("xyzxw"), "time": [SECOND, SECOND, SECOND, SECOND, 5]}
    )
    dataset = make_dataset("d", events, pd.DataFrame({"t": list("wxyz")}, index=list("wxyz")), Roles(("t",), (), ()))
    log = dataset.log
    own = log.user == dataset.users.index("a")
    assert log.time[own].tolist() == [5, SECOND, SECOND + 1]  # the repeated line is there once
    assert [dataset.attributes.index[i] for i in log.item[own]] == ["w", "x", "z"]


def test_split_is_by_time_and_leaves_instants_whole(tiny: Dataset) -> None:
    validation, test = split(tiny.log)
    assert (validation.end, test.end) == (test.start, len(tiny.log))
    assert validation.start == pytest.approx(0.8 * len(tiny.log), abs=2)
    assert tiny.log.time[: test.start].max() < test.moment <= tiny.log.time[test.start :].min()
    same = pd.DataFrame({"user_id": "u", "item_id": [f"i{n}" for n in range(10)], "time": [1] * 5 + [SECOND] * 5})
    one = make_dataset("d", same, pd.DataFrame({"t": [""] * 10}, index=same.item_id), Roles(("t",), (), ()))
    assert [s.start for s in split(one.log)] == [5, 5]


def test_fixed_asks_once_for_what_is_new(tiny: Dataset) -> None:
    _, test = split(tiny.log)
    own = Histories(tiny.log)
    cases = fixed(tiny.log, own, test, None, 0)
    assert len(np.unique(cases.user)) == len(cases) > 0
    for user, truth in zip(cases.user, cases.truth, strict=True):
        before = tiny.log.item[own.before(user, test.start)]
        assert len(before)
        assert not np.isin(truth, before).any()
    assert len(fixed(tiny.log, own, test, 7, 0)) == 7


def test_live_asks_before_each_event_of_an_item_that_is_new_to_its_user() -> None:
    events = pd.DataFrame({"user_id": "u", "item_id": list("abcdefghi") + ["i"] * 11, "time": range(20)})
    dataset = make_dataset(
        "d",
        events.assign(time=events.time * SECOND),
        pd.DataFrame({"t": list("abcdefghi")}, index=list("abcdefghi")),
        Roles(("t",), (), ()),
    )
    _, test = split(dataset.log)
    assert len(live(dataset.log, test, None, 0, repeat=False)) == 0
    cases = live(dataset.log, test, None, 0, repeat=True)
    assert cases.position.tolist() == [18, 19]
    assert cases.now.tolist() == [18 * SECOND, 19 * SECOND]


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 30)).astype(np.float32)
    relevant = rng.random((50, 30)) < 0.2
    relevant[:, 0] = True
    ndcg, recall, hit = by_list(top(scores), [np.flatnonzero(row) for row in relevant])
    expected = [ndcg_score([r], [s], k=K) for r, s in zip(relevant, scores, strict=True)]
    assert ndcg == pytest.approx(expected)
    found = [relevant[row, np.argsort(-scores[row])[:K]].sum() for row in range(50)]
    assert recall == pytest.approx(found / relevant.sum(axis=1))
    assert hit.tolist() == [float(n > 0) for n in found]


def test_cold_items_are_judged_apart() -> None:
    cases = Cases(np.array([0, 1]), np.array([5, 5]), np.array([9, 9]), [np.array([1, 3]), np.array([0])])
    cold = np.array([False, False, True, True])
    lists = Lists(np.array([[3, 0] + [-1] * 8, [1, 0] + [-1] * 8]), np.array([[2, 3] + [-1] * 8]))
    found = score(lists, cases, cold)
    assert found.cold_recall.tolist() == [1.0]
    assert found.cold_only_recall.tolist() == [1.0]
    assert found.cold_only_ndcg == pytest.approx([1 / math.log2(3)])
    assert found.cold_only_hit.tolist() == [1.0]


def test_interval_holds_the_mean_and_resamples_users() -> None:
    values, users = np.tile([0.0, 1.0], 200), np.arange(400)
    apart = interval(values, users, 0)
    together = interval(values, np.tile([0, 1], 200), 0)
    assert apart is not None
    assert together is not None
    assert apart.low < apart.mean == 0.5 < apart.high
    assert together.high - together.low > apart.high - apart.low
    assert interval(values, users, 0) == apart
    assert interval(np.empty(0), np.empty(0, np.int64), 0) is None


def test_ranks_are_without_what_was_met(tiny: Dataset) -> None:
    _, test = split(tiny.log)
    own, cold = Histories(tiny.log), cold_items(tiny, test)
    cases = fixed(tiny.log, own, test, None, 0)
    lists = Ranker(tiny.log, own, cold).lists(Decayed(Data(tiny, own), 7.0), cases)
    for user, items in zip(cases.user, lists.top, strict=True):
        assert not np.isin(items, tiny.log.item[own.before(user, test.start)]).any()


@pytest.mark.parametrize("backwards", [False, True])
def test_popularity_counts_what_had_happened(tiny: Dataset, backwards: bool) -> None:
    log, data = tiny.log, Data(tiny, Histories(tiny.log))
    positions = np.array([100, 900, 2000])[:: -1 if backwards else 1]
    cases = Cases(log.user[positions], positions, log.time[positions], [log.item[p : p + 1] for p in positions])
    decayed, recent = Decayed(data, 3.0).scores(cases), Recent(data, 10.0).scores(cases)
    for row, p in enumerate(positions):
        age = (log.time[p] - log.time[:p]) / DAY
        assert decayed[row] == pytest.approx(np.bincount(log.item[:p], 2.0 ** (-age / 3), tiny.items), rel=1e-4)
        assert recent[row] == pytest.approx(np.bincount(log.item[:p][age <= 10], minlength=tiny.items))


def test_histories_fade_by_time_or_by_what_came_later(tiny: Dataset) -> None:
    log, own = tiny.log, Histories(tiny.log)
    p = len(log) - 1
    cases = Cases(log.user[p:], np.array([p]), log.time[p:], [log.item[p:]])
    past = own.before(int(log.user[p]), p)
    by_items = histories(Data(tiny, own), cases, Recency(items=1.0)).toarray()[0]
    assert by_items[log.item[past[-1]]] == 1.0
    assert by_items[log.item[past[-3]]] == 0.25
    by_days = histories(Data(tiny, own), cases, Recency(days=1.0)).toarray()[0]
    assert by_days[log.item[past[0]]] == pytest.approx(2.0 ** (-(log.time[p] - log.time[past[0]]) / DAY))


def line_up(dataset: Dataset) -> tuple[LineUp, Ranker, dict[str, Cases]]:
    own = Histories(dataset.log)
    validation, test = split(dataset.log)

    def cases(when: object) -> dict[str, Cases]:
        chosen = validation if when == "validation" else test
        return {
            "fixed": fixed(dataset.log, own, chosen, None, 0),
            "live": live(dataset.log, chosen, 100, 0, repeat=False),
        }

    rankers = [Ranker(dataset.log, own, cold_items(dataset, s)) for s in (validation, test)]
    return (
        LineUp(Data(dataset, own), encode, Validation(validation, cases("validation"), rankers[0]), 0),
        rankers[1],
        cases("test"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_baseline_learns_and_comes_out_alike(tiny: Dataset, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.bench.quality.baselines.sequence.EPOCHS", (40.0,))
    _, test = split(tiny.log)
    first: list[Ints] = []
    second: list[Ints] = []
    for found in (first, second):
        models, ranker, cases = line_up(tiny)
        for protocol, some in cases.items():
            lists = ranker.lists(models.fit(name, protocol, test).model, some)
            found.append(lists.top)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    if "popular" not in name:
        cases = line_up(tiny)[2]
        for protocol, tops in zip(cases, first, strict=True):
            users = cases[protocol].user
            own_group = np.array([int(tiny.users[u][1:]) % GROUPS for u in users])
            groups = np.array([[int(tiny.attributes.index[i][1:]) % GROUPS for i in row] for row in tops])
            assert (groups[:, :3] == own_group[:, None]).mean() > 0.6  # by chance .25


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text(
        "item_id,title,colour,price\n"
        + "".join(f"{n},a long title of item {n},{'red' if n % 2 else 'blue'},{n}.5\n" for n in range(9))
    )
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,occurred_at,kind,value\n"
        + "".join(f"007,{n % 9},2024-01-{n + 1:02}T10:00:00+01:00,buy,{n}\n" for n in range(20))
    )
    (tmp_path / "history.csv").write_text("item_id,valid_from,title,price\n3,2024-01-05,new title,\n3,2024-01-07,,9\n")
    return tmp_path


def test_neutral_form(files: Path) -> None:
    dataset = read_neutral(files / "events.csv", files / "items.csv", files / "history.csv")
    assert dataset.roles == Roles(("title",), ("colour",), ("price",))
    assert dataset.users == ["007"]
    assert dataset.log.time[0] == pd.Timestamp("2024-01-01T09:00Z").value // 1000
    assert dataset.log.kind is not None
    assert dataset.log.value is not None
    assert (dataset.log.kind[0], dataset.log.value[3]) == ("buy", 3.0)
    at = [
        dataset.attributes_at(pd.Timestamp(day, tz="UTC").value // 1000).loc["3"].tolist()
        for day in ("2024-01-04", "2024-01-06", "2024-01-08")
    ]
    assert at == [["a long title of item 3", "red", 3.5], ["new title", "red", 3.5], ["new title", "red", 9.0]]
    assert dataset.texts_at(0)[3] == "a long title of item 3. red"
    moved = read_neutral(files / "events.csv", files / "items.csv", text=["colour"], categorical=["price"][:0])
    assert moved.roles.text == ("title", "colour")


def test_parquet_is_read_alike(files: Path) -> None:
    for name in ("events", "items"):
        pd.read_csv(files / f"{name}.csv", dtype={"user_id": str, "item_id": str}).to_parquet(files / f"{name}.parquet")
    a = read_neutral(files / "events.csv", files / "items.csv")
    b = read_neutral(files / "events.parquet", files / "items.parquet")
    assert a.log.time.tolist() == b.log.time.tolist()
    assert a.attributes.equals(b.attributes)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "events.csv",
            "2024-01-03T10:00:00+01:00",
            "soon",
            r"events\.csv, column occurred_at: row 3: 'soon' is no time; write it as",
        ),
        ("events.csv", "occurred_at", "when", r"column occurred_at: is missing; rename one of user_id, item_id, when"),
        ("events.csv", "buy,3\n", "buy,three\n", r"column value: row 4: 'three' is no number"),
        ("events.csv", "007,2,", ",2,", r"column user_id: row 3 has no value"),
        ("items.csv", "4,a long", "3,a long", r"items\.csv, column item_id: '3' is there twice"),
        ("history.csv", "title", "name", r"history\.csv, column name: items have no such column; choose from title"),
    ],
)
def test_bad_files_are_refused_by_name(files: Path, file: str, old: str, new: str, says: str) -> None:
    (files / file).write_text((files / file).read_text().replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=says):
        read_neutral(files / "events.csv", files / "items.csv", files / "history.csv")


def test_neither_csv_nor_parquet(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"events\.txt: is neither"):
        read_neutral(tmp_path / "events.txt", tmp_path / "items.csv")


def run(files: Path, *options: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(
        app,
        ["quality", "--interactions", str(files / "e.csv"), "--items", str(files / "i.csv"), "--json", *options],
        catch_exceptions=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def tiny_files(tiny: Dataset, tmp_path: Path) -> Path:
    log = tiny.log
    pd.DataFrame(
        {
            "user_id": [tiny.users[u] for u in log.user],
            "item_id": tiny.attributes.index[log.item],
            "occurred_at": pd.to_datetime(log.time, unit="us", utc=True),
        }
    ).to_csv(tmp_path / "e.csv", index=False)
    tiny.attributes.to_csv(tmp_path / "i.csv")
    return tmp_path


def test_one_object_a_line_and_a_plot(tiny_files: Path) -> None:
    options = ("--models", "decayed popularity; EASE", "--live-events", "50", "--plot", str(tiny_files / "p.png"))
    lines = run(tiny_files, *options)
    assert [(line["protocol"], line["model"]) for line in lines] == [
        (protocol, model) for protocol in ("fixed", "live") for model in ("decayed popularity", "EASE")
    ]
    for line in lines:
        assert {
            "dataset",
            "recall_at_10",
            "hit_rate_at_10",
            "coverage",
            "cold_only_recall_at_10",
            "lists",
        } <= line.keys()
        low, mean, high = (line[f] for f in ("ndcg_low", "ndcg_at_10", "ndcg_high"))
        assert isinstance(low, float)
        assert isinstance(mean, float)
        assert isinstance(high, float)
        assert 0 <= low <= mean <= high <= 1
    assert (tiny_files / "p.png").stat().st_size > 1000
    again = run(tiny_files, *options)
    for line in lines + again:
        line.pop("tune_seconds"), line.pop("fit_seconds")
    assert lines == again


def test_repeat_and_samples(tiny_files: Path) -> None:
    (line,) = run(tiny_files, "--models", "most popular", "--protocol", "live", "--live-events", "20", "--repeat")
    assert (line["lists"], line["repeat"]) == (20, True)
    (line,) = run(tiny_files, "--models", "most popular", "--protocol", "fixed", "--users", "5")
    assert line["lists"] == 5


def test_repeats_are_for_the_live_protocol_alone(tiny_files: Path) -> None:
    options = ("--models", "ItemKNN", "--live-events", "50")
    (fixed_once, live_once), (fixed_again, live_again) = (run(tiny_files, *options, *o) for o in ((), ("--repeat",)))
    for line in (fixed_once, fixed_again):
        line.pop("tune_seconds"), line.pop("fit_seconds")
    assert fixed_again == fixed_once
    assert fixed_once["recall_at_10"] != 0
    assert (fixed_again["repeat"], live_again["repeat"]) == (False, True)
    assert live_again["ndcg_at_10"] != live_once["ndcg_at_10"]


@pytest.mark.parametrize(("protocol", "remedy"), [("fixed", "--protocol live"), ("live", "--repeat")])
def test_nothing_to_foresee_names_what_helps(tmp_path: Path, protocol: str, remedy: str) -> None:
    events = pd.DataFrame({"user_id": "u", "item_id": ["a", "b"] * 20, "occurred_at": range(40)})
    events.to_csv(tmp_path / "e.csv", index=False)
    (tmp_path / "i.csv").write_text("item_id,title\na,one\nb,two\n")
    with pytest.raises(ConfigurationError, match=f"under the {protocol} protocol: nobody.*; try {remedy}, or more"):
        run(tmp_path, "--models", "most popular", "--protocol", protocol)


@pytest.mark.parametrize("option", ["--repeat", "--retrain-every=1"])
def test_what_is_of_the_live_protocol_is_refused_in_the_fixed_one(tiny_files: Path, option: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{option.partition('=')[0]} is of the live protocol: leave out either"
    ):
        run(tiny_files, "--protocol", "fixed", option)


@pytest.mark.parametrize("options", [("--interactions",), ("--items",), ("--history",), ("--interactions", "--items")])
def test_a_name_and_files_exclude_each_other(files: Path, options: tuple[str, ...]) -> None:
    given = [f"{option}={files / 'events.csv'}" for option in options]
    with pytest.raises(ConfigurationError, match="--dataset movielens and files exclude each other: leave one of"):
        CliRunner().invoke(app, ["quality", "--dataset=movielens", *given], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--interactions FILE and --items FILE, or --dataset"),
        ((f"--interactions={__file__}",), "--interactions FILE and --items FILE, or --dataset"),
        ((f"--items={__file__}",), "--interactions FILE and --items FILE, or --dataset"),
        (("--dataset", "movielens", "--models", "oracle"), "no model 'oracle'"),
    ],
)
def test_commands_that_make_no_sense(options: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CliRunner().invoke(app, ["quality", *options], catch_exceptions=False)
