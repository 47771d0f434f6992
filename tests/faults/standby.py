"""A streaming standby of a server, which takes over when that is gone."""

from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from dynrec_store.binaries import as_server_user, locate, own
from dynrec_store.embedded import EmbeddedPostgres


def follow(primary: EmbeddedPostgres, folder: Path, package: str) -> EmbeddedPostgres:
    """Copy a running server and start the copy as its standby, of which every commit waits from then on."""
    standby = EmbeddedPostgres(folder, package=package)
    folder.mkdir()
    folder.chmod(0o755)
    standby.pgdata.mkdir(mode=0o700)
    own(standby.pgdata)
    program = locate(package, folder).program("pg_basebackup")
    as_server_user(
        [
            str(program),
            f"--dbname={primary.url}",
            f"--pgdata={standby.pgdata}",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ]
    )
    standby.start()
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("alter system set synchronous_standby_names = '*'")
        connection.execute("select pg_reload_conf()")
    return standby


def either(*urls: str, attributes: str = "read-write") -> str:
    """The URL of whichever of some servers has these attributes: the one that can be written to."""
    first, *others = (urlsplit(url) for url in urls)
    hosts = ",".join(f"{server.hostname}:{server.port}" for server in (first, *others))
    login = f"{first.username}:{first.password}"
    return f"postgresql://{login}@{hosts}{first.path}?target_session_attrs={attributes}"
