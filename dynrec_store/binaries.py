"""The PostgreSQL programs inside a Python package, and the user that runs them.

PostgreSQL refuses to run as root. There, an unprivileged system user owns the cluster and runs the server. Nobody's
permissions are widened for it: what it cannot reach is copied to where it can.
"""

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dynrec_store.exceptions import ConfigurationError, EmbeddedServerError

SERVER_USER = "dynrec"


@dataclass(frozen=True)
class Binaries:
    """A PostgreSQL installation."""

    root: Path  # holds bin/, lib/ and share/
    version: str  # 18.6

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def program(self, name: str) -> Path:
        """The path of one program, such as initdb."""
        return self.root / "bin" / name


def locate(package: str, data_dir: Path) -> Binaries:
    """The binaries of `package`, copied below `data_dir` if the server's user cannot reach them."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"the package {package.replace('_', '-')!r} is not installed: install dynrec-store[embedded], "
            "or set DYNREC_DATABASE_URL to use a server of your own"
        )
    folder = Path(spec.submodule_search_locations[0])
    root = folder / "pginstall"
    version = _version(root)
    if not reachable(root):
        root = _copied(folder, data_dir, version)
    return Binaries(root, version)


def as_server_user(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command as the server's user; EmbeddedServerError carries what it printed."""
    # PG… variables of the caller would reach into a server that is not theirs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    entry = _server_user()
    done = subprocess.run(
        command,
        cwd="/",
        env=environment,
        user=entry and entry.pw_uid,
        group=entry and entry.pw_gid,
        extra_groups=entry and [],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise EmbeddedServerError(f"{Path(command[0]).name} failed ({done.returncode}):\n{done.stdout.strip()}")
    return done


def own(*paths: Path) -> None:
    """Give the paths to the server's user; nothing where that is ourselves."""
    entry = _server_user()
    if entry is None:
        return
    for path in paths:
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def reachable(folder: Path) -> bool:
    """Whether the server's user may enter and list the folder."""
    if _server_user() is None:
        return os.access(folder, os.R_OK | os.X_OK)
    return as_server_user(["sh", "-c", 'cd -- "$0" && ls', str(folder)], check=False).returncode == 0


def _server_user() -> pwd.struct_passwd | None:
    """The user that runs the server, made at first need; None: we do ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        pass
    command = [
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        SERVER_USER,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return pwd.getpwnam(SERVER_USER)  # a process beside us may have made it
    except KeyError:
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root, and the user {SERVER_USER!r} cannot be made "
            f"({done.stderr.strip()}): run as another user, or make that one"
        ) from None


def _version(root: Path) -> str:
    program = root / "bin" / "postgres"
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.?\w*", answer.stdout)
    if found is None:
        raise EmbeddedServerError(f"{program} does not run on this machine:\n{answer.stderr.strip()}")
    return found[0]


def _copied(folder: Path, data_dir: Path, version: str) -> Path:
    """Copy the package's binaries, with the libraries beside it that they look for, readable by everybody."""
    target = data_dir / f"binaries-{folder.name}-{version}"
    if not target.exists():
        for older in data_dir.glob("binaries-*"):
            shutil.rmtree(older)
        making = data_dir / f"binaries-making-{os.getpid()}"
        shutil.copytree(folder / "pginstall", making / folder.name / "pginstall", symlinks=True)
        libraries = folder.with_name(f"{folder.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, making / libraries.name, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", str(making)], check=True)
        making.rename(target)
    return target / folder.name / "pginstall"
