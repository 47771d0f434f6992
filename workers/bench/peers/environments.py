"""Peers whose packages clash with ours live in virtual environments of their own, made once in the user's cache."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from dynrec_store.exceptions import ConfigurationError

_INSTALL_SECONDS = 1200
_SAID = 400  # characters of pip's last words that are shown


class PeerUnavailableError(ConfigurationError):
    """A peer cannot be installed or does not run here; the message says why, and what can be done."""


def version_of(peer: str) -> str:
    """The version that the list of a peer pins."""
    for line in requirements(peer).read_text().splitlines():
        name, _, version = line.partition("==")
        if name == peer:
            return version
    raise LookupError(f"{requirements(peer)} does not pin {peer}")


def requirements(peer: str) -> Path:
    """The file that lists every package of a peer's environment, with versions."""
    return Path(__file__).with_name(f"{peer}.txt")


def python_of(peer: str, given: Path | None, cache: Path | None = None) -> Path:
    """The interpreter that has the peer: `given`, else one in `cache`, which is made unless it is there.

    Raises PeerUnavailableError where that interpreter lacks the peer, or the packages cannot be had.
    """
    python = given or _made(peer, cache or platformdirs.user_cache_path("dynrec") / "peers")
    _run([str(python), "-I", "-c", f"import {peer}"], f"{python} cannot import {peer}", peer)
    return python


def _made(peer: str, cache: Path) -> Path:
    listed = requirements(peer)
    mark = hashlib.sha256(listed.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache / f"{peer}-{mark}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        print(f"installing {peer} {version_of(peer)} into {folder}", file=sys.stderr)  # noqa: T201 - takes a minute
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], f"no virtual environment for {peer}", peer)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(listed)]
        _run(install, f"{peer} cannot be installed", peer)
        done.touch()
    return python


def _run(command: list[str], what: str, peer: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
        said = "" if done.returncode == 0 else done.stderr.strip()[-_SAID:] or f"exit status {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise PeerUnavailableError(
            f"{what}: {said}\n"
            f"Remedy: pip install --no-deps -r {requirements(peer)} into any environment, "
            f"and dynrec bench peers --{peer}-python its/bin/python"
        )
