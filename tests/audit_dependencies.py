"""Run as a program, with the path of pip-audit: known vulnerabilities of the versions that constraints.txt pins.

Exits with 1 if there are any. Where no advisory service answers, nothing is known; it says so and exits with 0.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
SERVICES = ("pypi", "osv")


@dataclass(frozen=True)
class Verdict:
    """What is known of the pinned versions."""

    looked_up: int
    unknown: list[str]  # packages that the service does not know in this version
    findings: list[str]  # package, version, advisory and the versions that have a fix

    def lines(self) -> Iterable[str]:
        """For people."""
        yield from self.findings
        if not self.looked_up:
            yield "NOT AUDITED: no advisory service answered for any package; nothing is known about vulnerabilities"
            return
        yield f"{self.looked_up} packages looked up, {len(self.findings)} known vulnerabilities"
        if self.unknown:
            yield f"not audited, as the service does not know them: {', '.join(self.unknown)}"


def main(pip_audit: str) -> int:
    """Ask one service after the other until one answers."""
    verdict = judged([])
    for service in SERVICES:
        verdict = judged(_asked(pip_audit, service))
        if verdict.looked_up:
            break
    for line in verdict.lines():
        print(line)  # noqa: T201
    return 1 if verdict.findings else 0


def judged(dependencies: Iterable[dict[str, Any]]) -> Verdict:
    """What pip-audit's answer means."""
    looked_up, unknown, findings = 0, [], []
    for dependency in dependencies:
        if "skip_reason" in dependency:
            unknown.append(dependency["name"])
            continue
        looked_up += 1
        for found in dependency["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version"
            findings.append(f"{dependency['name']} {dependency['version']}: {found['id']}, fixed in {fixed}")
    return Verdict(looked_up, unknown, findings)


def _asked(pip_audit: str, service: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [
            *(pip_audit, "--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"),
            *("--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:  # it cannot reach the service
        print(f"{service}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")  # noqa: T201
        return []
    dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return dependencies


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
