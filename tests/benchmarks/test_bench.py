"""Each benchmark runs at a tiny size and says what it promises to say; how fast it was is nobody's business here."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from dynrec_store.exceptions import DynrecError
from workers.bench import app
from workers.bench.measure import Figure
from workers.bench.promotion import answered_by

FIELDS = {
    "name",
    "ratio",
    "target",
    "met",
    "higher_is_better",
    "measured",
    "reference",
    "unit",
    "runs",
    "spread",
    "about",
    "machine",
}

TINY = {
    "capture": ("--rows=50", "--clients=2", "--seconds=1", "--runs=1"),
    "bulk": ("--rows=2000", "--runs=1"),
    "freshness": ("--samples=2", "--runs=1"),
    "backfill": ("--rows=30", "--runs=1"),
    "encoder": ("--rows=40", "--runs=1"),
    "recommend": ("--items=1000", "--users=3", "--seconds=1", "--runs=1"),
    "filtered": ("--items=2000", "--dimension=8", "--users=3", "--runs=1"),
    "reads": ("--items=1000", "--dimension=8", "--users=3", "--runs=1"),
    "evaluate": ("--items=1000", "--users=5", "--runs=1"),
    "load": ("--rows=1000", "--rate=200", "--seconds=1", "--runs=1"),
    "promotion": ("--items=1000", "--readers=2", "--seconds=2", "--runs=1"),
    "churn": ("--items=2000", "--users=5", "--portion=1000", "--rounds=1", "--runs=1"),
}

NAMES = {
    "capture": [f"capture, {what}{way}" for way in ("", ", batch", ", stream") for what in ("updates", "inserts")],
    "bulk": ["bulk, items", "bulk, items, row by row", "bulk, events", "bulk, events, row by row"],
    "freshness": [
        *(f"freshness{load}, {p}" for load in ("", ", light load", ", heavy load") for p in ("p50", "p99")),
        *(f"freshness: {step}" for step in ("trigger", "notify", "dispatch", "broker", "claim", "read", "encode")),
        "freshness: publish",
        "freshness: seen",
    ],
    "backfill": ["backfill", "backfill, HNSW index"],
    "encoder": [
        "encoder in batches by tokens",
        "encoder in batches by tokens, one title",
        "encoder in 8 bits",
        "encoder in 8 bits, one title",
        "encoder in 8 bits, cosine",
        "encoder in 8 bits, neighbours",
    ],
    "recommend": [
        "recommend",
        "recommend, events pending",
        "recommend, growth",
        "recall@10",
        "recommend, 1 client",
        "recommend, 1 client, p99",
        "by hand, 1 client, p99",
        "recommend, 16 clients",
        "recommend, 16 clients, p99",
        "by hand, 16 clients, p99",
        "recall@10, vectors replaced",
    ],
    "filtered": [
        f"filtered, {what}{share} %{of}"
        for of in ("", ", whole clusters")
        for share in ("50", "10", "1", "0.1")
        for what in ("", "recall@10, ", "recall@10 by hand, ")
    ],
    "reads": [
        "reads, similar items",
        "reads, session of 5 items",
        "reads, as of the past",
        "reads, diversity, 10 of 100",
        "reads, diversity, 100 of 500",
    ],
    "evaluate": [
        "evaluate, content",
        "evaluate, content, parallel",
        "evaluate, learned",
        "evaluate, learned, parallel",
    ],
    "load": [
        "load, writing, workers pausing",
        "load, writing, workers working",
        "load, working off",
        "load, freshness of the other recommender",
        "load, freshness of a change amid the storm",
        "load, size of the queue",
        "load, memory",
    ],
    "promotion": [
        "promotion, content, p50",
        "promotion, content, p99",
        "promotion, learned, p50",
        "promotion, learned, p99",
    ],
    "churn": [
        "recall@10 at worst, until 1x",
        "maintenance, until 1x",
        "recall@10, replaced 1x",
        "index, replaced 1x",
        "recommend, replaced 1x",
    ],
}


@pytest.fixture(autouse=True)
def _server_of_the_tests(monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> Iterator[None]:
    monkeypatch.setenv("DYNREC_DATABASE_URL", empty_database_url)
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_one_object_a_line(name: str) -> None:
    done = CliRunner().invoke(app, [name, *TINY[name], "--json"], catch_exceptions=False)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["name"] for figure in figures] == NAMES[name]
    for figure in figures:
        assert set(figure) == FIELDS
        assert math.isfinite(figure["ratio"])
        assert figure["spread"][0] <= figure["ratio"] <= figure["spread"][1]
        assert figure["met"] is (None if figure["target"] is None else _met(figure))


@pytest.mark.slow
def test_freshness_of_a_learned_model() -> None:
    arguments = ["freshness", *TINY["freshness"], "--learned", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["name"] for figure in figures] == [f"freshness, learned model, {p}" for p in ("p50", "p99")]
    assert all(figure["measured"] > 0 for figure in figures)


@pytest.mark.slow
def test_table_names_ratio_and_target_and_files_keep_them(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "kept"), "capture", *TINY["capture"]]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)
    assert "capture, updates" in done.stdout
    assert "≥ 0.9" in done.stdout
    kept = [json.loads(line) for line in (tmp_path / "kept" / "capture.json").read_text().splitlines()]
    assert [figure["name"] for figure in kept] == NAMES["capture"]
    assert "<svg" in (tmp_path / "kept" / "capture.svg").read_text()


@pytest.mark.slow
def test_scale_measures_each_catalogue() -> None:
    arguments = ["scale", "--items=2000", "--items=3000", "--dimension=8", "--memory=1MB", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    measures = [json.loads(line) for line in done.stdout.splitlines()]
    by_size = {size: {m["name"]: m for m in measures if m["items"] == size} for size in (2000, 3000)}
    assert list(by_size[2000]) == list(by_size[3000])
    assert all(math.isfinite(m["value"]) and m["value"] > 0 for m in measures)
    assert by_size[2000]["vector of an item"]["value"] > 4 * 8
    assert by_size[2000]["index, in memory while built"]["unit"] == "bytes/item"


@pytest.mark.slow
def test_growth_has_a_point_for_each_size() -> None:
    arguments = ["growth", "--items=2000", "--history=3", "--history=30", "--total=1000", "--total=3000", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    grown = [json.loads(line) for line in done.stdout.splitlines()]
    assert {growth["points"][0]["what"] for growth in grown} == {
        "events of the user",
        "old versions of the item",
        "old versions of the user",
        "old versions of all items",
        "changes that wait",
        "interactions of everybody",
    }
    assert all([point["size"] for point in growth["points"]] in ([3, 30], [1000, 3000]) for growth in grown)
    assert all(point["pages"] > 0 for growth in grown for point in growth["points"])


@pytest.mark.slow
def test_memory_is_measured_step_by_step() -> None:
    done = CliRunner().invoke(app, ["memory", "--items=1000", "--json"], catch_exceptions=False)
    measures = {m["name"]: m["value"] for m in map(json.loads, done.stdout.splitlines())}
    assert {"scan_items, server", "scan_users, server", "popularity, server", "training reads, server"} < set(measures)
    assert measures["training holds, an interaction"] > 24  # three numbers, if no name took anything


@pytest.mark.slow
def test_storage_measures_each_kind() -> None:
    arguments = ["storage", "--items=2000", "--dimension=64", "--users=20", "--runs=1", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    values = {m["name"]: m["value"] for m in map(json.loads, done.stdout.splitlines())}
    indexes = [values[f"{kind}: index, an item"] for kind in ("full", "half", "binary")]
    assert indexes == sorted(indexes, reverse=True)
    assert values["stored_half: vector of an item"] < values["full: vector of an item"] - 1.5 * 64
    assert all(values[f"{kind}: recall@10"] > 0.9 for kind in ("full", "half", "binary", "stored_half"))


def test_a_full_run_keeps_each_benchmark_by_itself_and_the_page_has_a_place_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in TINY:
        figure = Figure(name, "nothing", (1.0,), (2.0,), unit="s", higher_is_better=False, target=None)
        monkeypatch.setattr(f"workers.bench.full_run.{name}", lambda *_, figure=figure, **__: [figure])
    CliRunner().invoke(app, ["--out", str(tmp_path), "all", "--json"], catch_exceptions=False)
    files = {
        file.stem: [json.loads(line)["name"] for line in file.read_text().splitlines()]
        for file in tmp_path.glob("*.json")
    }
    assert files == {name: [name] for name in TINY}
    assert {file.stem for file in tmp_path.glob("*.svg")} == set(TINY)
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    assert [name for name in TINY if f"<!-- {name} -->" not in page] == []


@pytest.mark.parametrize(
    ("versions", "fault"),
    [([1] * 9, "a list of 9 items was read where 10"), ([1] * 9 + [2], r"mixes model versions \[1, 2\]")],
)
def test_promotion_accepts_no_short_and_no_mixed_list(versions: list[int], fault: str) -> None:
    assert answered_by([("item", 0.5, 2)] * 10) == 2
    with pytest.raises(DynrecError, match=fault):
        answered_by([("item", 0.5, version) for version in versions])


def _met(figure: dict[str, float]) -> bool:
    if figure["higher_is_better"]:
        return figure["ratio"] >= figure["target"]
    return figure["ratio"] <= figure["target"]
