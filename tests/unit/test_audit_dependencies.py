"""What the answer of an advisory service means."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.audit_dependencies import judged, main

SOUND = {"name": "sound", "version": "1", "vulns": []}
BROKEN = {"name": "broken", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3"]}]}
UNFIXED = {"name": "unfixed", "version": "3", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
SKIPPED = {"name": "skipped", "skip_reason": "Dependency not found on PyPI"}


def test_a_vulnerability_is_named_with_its_remedy() -> None:
    verdict = judged([SOUND, BROKEN, UNFIXED])
    assert verdict.findings == ["broken 2: PYSEC-1, fixed in 2.1, 3", "unfixed 3: PYSEC-2, fixed in no version"]
    assert list(verdict.lines())[-1] == "3 packages looked up, 2 known vulnerabilities"


def test_what_was_not_looked_up_is_not_called_sound() -> None:
    verdict = judged([SKIPPED])
    assert verdict.findings == []
    assert list(verdict.lines()) == [
        "NOT AUDITED: no advisory service answered for any package; nothing is known about vulnerabilities"
    ]


def test_packages_that_the_service_does_not_know_are_named() -> None:
    assert list(judged([SOUND, SKIPPED]).lines()) == [
        "1 packages looked up, 0 known vulnerabilities",
        "not audited, as the service does not know them: skipped",
    ]


@pytest.mark.parametrize(("dependencies", "status"), [([SOUND], 0), ([SOUND, BROKEN], 1), ([SKIPPED], 0), (None, 0)])
def test_only_vulnerabilities_fail(tmp_path: Path, dependencies: list[dict[str, Any]] | None, status: int) -> None:
    answer = "" if dependencies is None else json.dumps({"dependencies": dependencies})
    pip_audit = tmp_path / "pip-audit"
    pip_audit.write_text(
        f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n" if answer else "#!/bin/sh\necho unreachable >&2; exit 1\n"
    )
    pip_audit.chmod(0o755)
    assert main(str(pip_audit)) == status
