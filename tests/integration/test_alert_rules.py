"""What is deployed beside dynrec: rules that Prometheus takes and that fire, and no metric that nobody exports."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "dynrec.json"
OWN = {"dynrec_up", "dynrec_scrape_seconds"}  # of the exporter itself


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool (Debian package prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_the_rules_fire_when_they_should() -> None:
    promtool("test", "rules", str(Path(__file__).with_name("alerts_test.yml")))


def test_every_rule_is_tested_and_explained() -> None:
    alerts = re.findall(r"alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())
    assert len(alerts) > 5
    tested = set(re.findall(r"alertname: (\w+)", Path(__file__).with_name("alerts_test.yml").read_text()))
    page = (ROOT / "docs" / "observability.md").read_text()
    assert tested == set(alerts)
    assert [alert for alert in alerts if f"`{alert}`" not in page] == []


def expressions(value: Any) -> list[str]:
    """Every query of a dashboard."""
    if isinstance(value, dict):
        own = [text for key, text in value.items() if key in {"expr", "query"} and isinstance(text, str)]
        return own + [text for inner in value.values() for text in expressions(inner)]
    return [text for inner in value for text in expressions(inner)] if isinstance(value, list) else []


def test_rules_dashboard_and_page_name_what_is_exported(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    catalogue = connection.execute("select name, type from dynrec._metric_catalogue()").fetchall()
    histogram = {
        name + ending for name, kind in catalogue if kind == "histogram" for ending in ("_bucket", "_sum", "_count")
    }
    exported = {name for name, kind in catalogue if kind != "histogram"} | histogram | OWN
    queries = "\n".join(expressions(json.loads(DASHBOARD.read_text())))
    for text in ((PROMETHEUS / "alerts.yml").read_text(), queries):
        named = set(re.findall(r"\bdynrec_\w+", text))
        assert len(named) > 5
        assert named - exported == set()
    page = set(re.findall(r"^\| `(dynrec_\w+)`", (ROOT / "docs" / "observability.md").read_text(), re.MULTILINE))
    assert page == {name for name, _ in catalogue} | OWN


def test_the_dashboard_shows_each_panel_once() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) > 10
    assert all(panel["datasource"]["uid"] == "prometheus" and panel["targets"] for panel in panels)
    assert "uid: prometheus" in (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
