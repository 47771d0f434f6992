"""`dynrec up` as a process of its own: from nothing to recommendations, stopped by a signal, started again."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings
from dynrec_store.store import FeatureStore

TIMEOUT = 120  # seconds for a start or a stop, on a slow machine


@contextmanager
def dynrec(*arguments: str, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DYNREC_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dynrec_store", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment | {"DYNREC_DATA_DIR": str(data_dir), "PYTHONPATH": str(Path.cwd())},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"psql '(.*)'", line):
            return found[1]
    raise AssertionError("dynrec up ended without printing the URL")


@pytest.mark.acceptance
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_up_serves_stops_and_keeps_the_data(open_folder: Path, ending: signal.Signals) -> None:
    data_dir = open_folder / f"up-{ending.name}"
    settings = Settings(data_dir=data_dir)
    with pytest.raises(ConfigurationError, match="dynrec up"):
        FeatureStore.connect(settings=settings)

    with dynrec("up", data_dir=data_dir) as process:
        url = url_of(process)
        with FeatureStore.connect(url) as store, psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table product (id int primary key, title text)")
            connection.execute("insert into product values (1, 'a hat'), (2, 'a warm hat'), (3, 'shoes')")
            store.create_recommender("shop", "public.product", text_columns=["title"], encoder="hashing")
            assert store.wait_until_fresh("shop", timeout=TIMEOUT)
            assert store.similar_items("shop", 1, k=1)[0].item_id == "2"
        process.send_signal(ending)
        assert process.wait(TIMEOUT) == 0

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    with FeatureStore.connect(settings=settings) as store:  # the embedded server, started for the length of the block
        assert store.similar_items("shop", 1, k=1)[0].item_id == "2"


def test_processes_of_their_own_need_a_broker(open_folder: Path) -> None:
    with dynrec("dispatcher", data_dir=open_folder / "none") as process:
        assert process.wait(TIMEOUT) == 1
    with dynrec("worker", "--queues", "nonsense", data_dir=open_folder / "none") as process:
        assert process.wait(TIMEOUT) == 1
