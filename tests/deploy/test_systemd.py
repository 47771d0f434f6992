"""deploy/systemd: units that systemd accepts, and finds confined."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))

EXPOSURE = 20  # of 100, as systemd counts; what is not hardened at all has 96


@pytest.fixture(params=[unit.name for unit in UNITS])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit as installed, with a program that is there."""
    (source,) = (one for one in UNITS if one.name == request.param)
    file = tmp_path / source.name.replace("@", "@encode")
    file.write_text(source.read_text().replace("/opt/dynrec/bin/dynrec", "/bin/true"))
    return file


def analyze(*arguments: str) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_it_is_understood(unit: Path) -> None:
    assert analyze("verify", "--man=no", str(unit)) == ""


def test_it_is_confined(unit: Path) -> None:
    analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(unit))
