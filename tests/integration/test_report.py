"""dynrec report: the page that is written, also in a real browser, and what the terminal says."""

import json
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from dynrec_store import database
from dynrec_store.cli import app
from dynrec_store.store import FeatureStore
from tests.drain import drain

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  pictures: [...document.images].map(one => one.naturalWidth > 100 && one.naturalHeight > 50 && one.alt.length > 0),
  wide: document.documentElement.scrollWidth > innerWidth, xss: window.stolen === true }); })</script>"""

runner = CliRunner()


class Texts(HTMLParser):
    """The text of a page, and whatever it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, shop_url: str) -> Iterator[None]:
    monkeypatch.setenv("DYNREC_DATABASE_URL", shop_url)
    monkeypatch.setenv("COLUMNS", "200")
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before
    structlog.reset_defaults()


@pytest.fixture
def begin(shop_url: str) -> datetime:
    """A moment after which users did something, lists were shown, an experiment ran, and the shop was measured."""
    with database.connect(shop_url) as connection, FeatureStore.connect(shop_url) as store:
        connection.execute("set search_path = public, extensions")
        connection.execute("select dynrec._take_profiles()")
        moment = datetime.now(UTC)
        store.log_impressions("shop", [{"user_id": "42", "item_ids": ["2", "4"], "model_version": 1}])
        store.create_experiment("shop", "<script>stolen = true</script>", [{"arm": "a & b"}, {"arm": "<i>c</i>"}])
        connection.execute(
            "insert into purchase (user_id, item_id, kind) values (42, 2, 'buy'), (43, 4, 'buy'), (44, 5, 'view')"
        )
        connection.execute("update product set price = price * 9")
        drain(connection)
        store.watch("shop")
        store.watch("shop")
    return moment


def run(*arguments: str, status: int = 0) -> Result:
    result = runner.invoke(app, ["report", "shop", *arguments])
    assert result.exit_code == status, result.output
    return result


def page_of(folder: Path, *arguments: str) -> Texts:
    run("--output", str(folder / "page.html"), *arguments)
    return Texts((folder / "page.html").read_text(encoding="utf-8"))


def test_the_page_says_what_the_database_says(tmp_path: Path, begin: datetime, shop_url: str) -> None:
    page = page_of(tmp_path, "--from", begin.isoformat(), "-k", "2")
    with FeatureStore.connect(shop_url) as store:
        metrics = [one for one in store.evaluate("shop", begin, datetime.now(UTC), k=[2]) if one.slice == "all"]
        alerts = store.alerts()
    for one in metrics:
        assert f"{one.value:.4g}" in page.text, one
    assert alerts
    for alert in alerts:
        assert alert.finding in page.text
        assert str(alert.remedy) in page.text
    for heading in ("Over time", "By slice", "Calibration of scores", "Exposure", "Drift", "Live traffic", "Experiments", "Model versions"):  # fmt: skip
        assert heading in page.text, heading
    assert page.tags.count("img") >= 6


def test_the_page_is_one_file_and_names_are_only_text(tmp_path: Path, begin: datetime) -> None:
    page = page_of(tmp_path, "--from", begin.isoformat())
    assert [one[:26] for one in page.references if not one.startswith("data:image/svg+xml;base64,")] == []
    assert "script" not in page.tags
    assert "<script>stolen = true</script>" in page.text
    assert "a & b, <i>c</i>" in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1100, 500])
def test_a_browser_shows_every_picture(tmp_path: Path, begin: datetime, width: int) -> None:
    page_of(tmp_path, "--from", begin.isoformat())
    probed = tmp_path / "probed.html"
    probed.write_text((tmp_path / "page.html").read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    document = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=5000"),
            *("--dump-dom", probed.as_uri()),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", document, re.DOTALL)
    assert title
    seen = json.loads(title[1])
    assert len(seen["pictures"]) >= 6
    assert all(seen["pictures"])
    assert not seen["xss"]
    assert not seen["wide"]


def test_what_cannot_be_judged_is_said_and_the_rest_is_there(tmp_path: Path, begin: datetime) -> None:
    assert begin
    page = page_of(tmp_path, "--from", "2300-01-01", "--to", "2300-01-02")
    assert "These lists cannot be judged" in page.text
    assert "2300-01-01" in page.text
    assert "Drift" in page.text
    assert "By slice" not in page.text


def test_nobody_did_anything(tmp_path: Path) -> None:
    page = page_of(tmp_path, "--from", datetime.now(UTC).isoformat())
    assert "Nobody did anything in that time" in page.text
    assert "Nothing was measured yet" in page.text
    assert "Nothing to compare yet" in page.text


def test_the_terminal_has_the_figures_too(tmp_path: Path, begin: datetime) -> None:
    output = run("--from", begin.isoformat(), "-o", str(tmp_path / "page.html")).output
    for words in ("Alerts", "ndcg_at_k", "Drift", "items: price", "Experiments", "written:"):
        assert words in output


def test_bad_arguments(tmp_path: Path, begin: datetime) -> None:
    moment = begin.isoformat()
    assert "nowhere" in run("--from", moment, "-o", str(tmp_path / "nowhere" / "page.html"), status=2).output
    assert "'colour'" in run("--from", moment, "--category", "colour", "-o", str(tmp_path / "x"), status=1).output
    assert not (tmp_path / "x").exists()
    result = runner.invoke(app, ["report", "shp", "-o", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert "'shp'" in result.output
