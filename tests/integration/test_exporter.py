"""dynrec metrics: what it answers over HTTP, with the database and without."""

import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from dynrec_store.cli import app
from dynrec_store.exporter import make_server
from dynrec_store.settings import Settings
from tests.sql.shop import create_shop
from workers.inprocess import running

TIMEOUT = 60  # seconds for an answer, on a slow machine


@contextmanager
def exporting(url: str) -> Iterator[str]:
    """The address of an exporter of that database."""
    with make_server(url, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310  our own address
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a scrape, by name and labels; the parser refuses what is not of the format."""
    status, text = get(f"{address}/metrics")
    assert status == 200
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    by_labels = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(by_labels) == len(found), "a sample comes twice"
    return by_labels


def test_what_workers_did_arrives(database_url: str, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    shop = create_shop(connection, products=12)
    with running(settings, database_url), exporting(database_url) as address:
        assert shop.value("select dynrec.wait_until_fresh('shop', '60 seconds')")
        assert get(f"{address}/healthz") == (200, "ok\n")
        alive = samples(address)
    with exporting(database_url) as address:
        ended = samples(address)
    assert alive["dynrec_up", frozenset()] == 1
    assert alive["dynrec_processes", frozenset({("role", "worker")})] == 1
    encoder = frozenset({("encoder", "hashing"), ("device", "cpu")})
    item = {("recommender", "shop"), ("kind", "item")}
    assert ended["dynrec_encode_texts_total", encoder] == 12
    assert ended["dynrec_encode_calls_total", encoder] >= 1
    assert ended["dynrec_encode_seconds_total", encoder] > 0
    assert ended["dynrec_published_total", frozenset(item)] == 12
    count = sum(
        value
        for (name, labels), value in ended.items()
        if name == "dynrec_commit_to_fresh_seconds_count" and item <= labels
    )
    assert count == 12
    for lane in ("live", "backfill"):
        within = [
            ended["dynrec_commit_to_fresh_seconds_bucket", frozenset({*item, ("lane", lane), ("le", limit)})]
            for limit in ("0.01", "1", "60", "3600", "+Inf")
            if ("dynrec_commit_to_fresh_seconds_count", frozenset({*item, ("lane", lane)})) in ended
        ]
        assert within == sorted(within)
        assert (
            not within
            or within[-1] == ended["dynrec_commit_to_fresh_seconds_count", frozenset({*item, ("lane", lane)})]
        )


def test_a_database_that_is_away_is_said_to_be(
    make_database: Callable[..., str], drop_database: Callable[[str], None], template: str
) -> None:
    url = make_database(template)
    with exporting(url) as address:
        assert samples(address)["dynrec_up", frozenset()] == 1
        drop_database(url)
        assert samples(address) == {("dynrec_up", frozenset()): 0}
        status, text = get(f"{address}/healthz")
        assert status == 503
        assert "does not exist" in text
        assert get(f"{address}/nothing")[0] == 404


@pytest.mark.acceptance
def test_the_command_answers_until_a_signal(database_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dynrec_store", "metrics", "--listen", "127.0.0.1:0", "--database-url", database_url],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stderr is not None
        said = re.search(r"http://\S+/metrics", process.stderr.readline())
        assert said is not None
        assert get(said[0])[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("listen", ["9464", "localhost", "localhost:", "localhost:x", "localhost:70000", ":9464"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    result = CliRunner().invoke(app, ["metrics", "--listen", listen])
    assert result.exit_code == 2
    assert "HOST:PORT" in result.stderr
