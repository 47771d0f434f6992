"""A process of a peer's environment that answers questions, one JSON object a line."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from workers.bench.peers.environments import PeerUnavailableError

_SAID = 600  # characters of its last words that are shown
_END_SECONDS = 10


class Conversation:
    """Questions to a process that is started once, so that no start of a process is in any timing."""

    def __init__(self, process: subprocess.Popen[str], script: Path, errors: IO[str]) -> None:
        self._process = process
        self._script = script
        self._errors = errors

    def ask(self, **question: object) -> Mapping[str, Any]:
        """What the process answers; PeerUnavailableError with its last words if it ends instead."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None  # noqa: S101 - both are pipes
        assert answers is not None  # noqa: S101
        try:
            asked.write(json.dumps(question) + "\n")
            asked.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait(_END_SECONDS)
            self._errors.seek(0)
            raise PeerUnavailableError(f"{self._script.name} ended: {self._errors.read().strip()[-_SAID:]}")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


@contextmanager
def conversation(python: Path, script: Path, environment: Mapping[str, str]) -> Iterator[Conversation]:
    """Run a script, in isolation from this process's packages, for the length of the block."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(python), "-I", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(environment),
        )
        try:
            yield Conversation(process, script, errors)
        finally:
            process.kill()
            process.communicate()
