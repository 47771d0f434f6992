"""docker-compose.yml, read without Docker: valid, and its parts know each other's names, ports and files."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = ["docker-compose.yml", "docker-compose.gpu.yml"]


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / FILES[0]).read_text())
    return found


@pytest.mark.parametrize("file", FILES)
def test_it_is_as_the_specification_says(file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_start_without_profiles_is_the_whole_system(compose: dict[str, Any]) -> None:
    started = {name for name, service in compose["services"].items() if "profiles" not in service}
    system = {"postgres", "redis", "migrate", "dispatcher", "worker-encode", "worker-train", "stream", "metrics"}
    assert started == system
    assert compose["services"]["dispatcher"]["deploy"]["replicas"] == 2


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    mounted = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    own = [volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    assert own
    assert [path for path in own if not (ROOT / path).exists()] == []
    assert {volume.split(":")[0] for volume in mounted if not volume.startswith("./")} == set(compose["volumes"])
    defaults = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", secret["file"]) for secret in compose["secrets"].values()]
    assert [path for path in defaults if not (ROOT / path).read_text().strip()] == []


def test_prometheus_finds_the_exporter(compose: dict[str, Any]) -> None:
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    [target] = configuration["scrape_configs"][0]["static_configs"][0]["targets"]
    service, port = target.split(":")
    exporter = compose["services"][service]
    assert exporter["command"] == ["metrics", "--listen", f"0.0.0.0:{port}"]
    assert exporter["ports"] == [f"127.0.0.1:${{STACK_METRICS_PORT:-{port}}}:{port}"]
    assert any(f":{port}/healthz" in part for part in exporter["healthcheck"]["test"])


def test_grafana_finds_its_files_and_prometheus(compose: dict[str, Any]) -> None:
    grafana, prometheus = compose["services"]["grafana"], compose["services"]["prometheus"]
    mounted = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    [provider] = _provisioned("dashboards")["providers"]
    assert list((ROOT / mounted[provider["options"]["path"]]).glob("*.json"))
    assert (ROOT / mounted["/etc/grafana/provisioning"] / "datasources").is_dir()
    [source] = _provisioned("datasources")["datasources"]
    [port] = [one.split(":")[-1] for one in prometheus["ports"]]
    assert source["url"] == f"http://prometheus:{port}"
    assert set(grafana["profiles"]) <= set(prometheus["profiles"])


def _provisioned(folder: str) -> dict[str, Any]:
    [file] = (ROOT / "deploy/grafana/provisioning" / folder).glob("*.yml")
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def test_the_server_has_what_a_stream_needs(compose: dict[str, Any]) -> None:
    assert (
        "./deploy/postgres/postgresql.conf:/etc/postgresql/postgresql.conf:ro"
        in compose["services"]["postgres"]["volumes"]
    )
    settings = dict(
        re.findall(r"^(\w+) = '?([^'\s]+)", (ROOT / "deploy/postgres/postgresql.conf").read_text(), re.MULTILINE)
    )
    assert settings["wal_level"] == "logical"
    [kept] = re.findall(r"^(\d+)GB$", settings["max_slot_wal_keep_size"])
    assert int(kept) > 10  # else the server drops what the stream would give up by itself: stream_max_lag_bytes


def test_where_torch_comes_from_can_be_said(compose: dict[str, Any]) -> None:
    built = compose["services"]["worker-encode"]["build"]["args"]["TORCH_INDEX"]
    default = re.search(r"^ARG TORCH_INDEX=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert default
    assert built == f"${{TORCH_INDEX-{default[1]}}}"  # set and empty: PyPI
