"""The harness around other systems: what is left out and why, the process of a peer, the model behind an endpoint."""

import json
import math
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import numpy.typing as npt
import pytest
import structlog
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from workers.bench import app
from workers.bench.peers.conversation import conversation
from workers.bench.peers.endpoint import endpoint
from workers.bench.peers.environments import PeerUnavailableError, python_of, requirements, version_of
from workers.bench.peers.implicit import with_event

HERE = Path(sys.executable)  # an interpreter with neither Feast nor pgai

IMPLICIT = [
    "recommend, implicit ALS",
    "recommend, implicit cosine",
    "an event counts, implicit ALS",
    "an event counts, implicit cosine",
    "an event counts, implicit ALS fitted anew",
]


class Counted:
    """An encoder whose vectors say how long each text is."""

    name, dimension, device = "counted", 2, "cpu"

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[len(text), 0.5] for text in texts], np.float32)


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.slow
def test_implicit_one_object_a_line(monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> None:
    monkeypatch.setenv("DYNREC_DATABASE_URL", empty_database_url)
    arguments = ["peers", "--only=implicit", "--items=1000", "--calls=3", "--runs=1", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [figure["name"] for figure in figures] == IMPLICIT
    assert all(math.isfinite(figure["ratio"]) and figure["measured"] > 0 for figure in figures)


@pytest.mark.parametrize("peer", ["feast", "pgai"])
def test_a_peer_that_is_not_there_is_left_out_with_the_remedy(peer: str) -> None:
    arguments = ["peers", f"--only={peer}", f"--{peer}-python={HERE}", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    (left_out,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert left_out["name"] == peer
    assert f"No module named '{peer}'" in left_out["left_out"]
    assert f"--{peer}-python" in left_out["left_out"]


def test_what_pip_says_is_told_and_half_an_environment_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(PeerUnavailableError, match=r"(?s)feast cannot be installed: .*No matching distribution"):
        python_of("feast", None, tmp_path)
    assert not list(tmp_path.glob("*/complete"))


@pytest.mark.parametrize("peer", ["feast", "pgai"])
def test_every_package_of_an_environment_is_pinned(peer: str) -> None:
    lines = [line for line in requirements(peer).read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert version_of(peer).count(".") == 2


def test_conversation_answers_line_by_line(tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text("import sys\nfor line in sys.stdin:\n    print(line.replace('1', '2'), end='', flush=True)\n")
    with conversation(HERE, script, {}) as side:
        assert side.ask(number=1) == {"number": 2}
        assert side.ask(number=11) == {"number": 22}


def test_the_last_words_of_a_process_are_told(tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text("raise SystemExit('no such column: embedding')")
    with conversation(HERE, script, {}) as side, pytest.raises(PeerUnavailableError, match="no such column"):
        side.ask(do="fill")


@pytest.mark.parametrize(("texts", "lengths"), [("four", [4.0]), (["a", "bcd"], [1.0, 3.0])])
def test_endpoint_answers_as_openai_does(texts: str | list[str], lengths: list[float]) -> None:
    with endpoint(Counted()) as url:
        answer = _post(f"{url}/embeddings", {"input": texts, "model": "counted", "encoding_format": "float"})
    data = answer["data"]
    assert [entry["embedding"] for entry in data] == [[length, 0.5] for length in lengths]
    assert [entry["index"] for entry in data] == list(range(len(lengths)))


def test_endpoint_serves_nothing_else() -> None:
    with endpoint(Counted()) as url, pytest.raises(HTTPError, match="404"):
        _post(f"{url}/completions", {"prompt": "hello"})


def test_an_event_is_one_more_cell_of_the_row() -> None:
    row = csr_matrix(np.array([[0, 1, 0, 1]], np.float32))
    assert with_event(row, 2).toarray().tolist() == [[0, 1, 1, 1]]
    assert with_event(row, 3).toarray().tolist() == [[0, 1, 0, 2]]
    assert row.toarray().tolist() == [[0, 1, 0, 1]]


def _post(url: str, body: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - of this test
        parsed: dict[str, list[dict[str, object]]] = json.load(answer)
        return parsed
