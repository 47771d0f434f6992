"""Which database is meant: the one that the settings name, or the embedded server's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import load_extra
from dynrec_store.settings import Settings


@contextmanager
def target_database(settings: Settings, *, create: bool = False) -> Iterator[str]:
    """The database's URL, for the length of the block; without a `database_url` the embedded server runs as long.

    The embedded server is made only if `create` says so: ConfigurationError if there is none.
    """
    if settings.database_url is not None:
        yield _with_password(settings.database_url.get_secret_value(), settings.database_password_file)
        return
    server = load_extra(
        "dynrec_store.embedded:EmbeddedPostgres",
        "embedded",
        otherwise=", or set DYNREC_DATABASE_URL to use a server of your own",
    )(settings.data_dir)
    if not create and not server.pgdata.exists():
        raise ConfigurationError(
            f"there is no database: DYNREC_DATABASE_URL is not set, and {settings.data_dir} holds no embedded server\n"
            "Set the variable, or make one with `dynrec up`"
        )
    with server:
        yield server.url


def _with_password(url: str, file: Path | None) -> str:
    """The URL with the password that a file holds, unless it has one; ConfigurationError if that cannot be."""
    user, _, server = urlsplit(url).netloc.rpartition("@")
    if file is None or ":" in user:
        return url
    if not user:
        raise ConfigurationError(
            f"DYNREC_DATABASE_PASSWORD_FILE={str(file)!r} is the password of nobody: "
            "name a user in DYNREC_DATABASE_URL, postgresql://user@host/database"
        )
    return url.replace(
        f"//{user}@{server}",
        f"//{user}:{quote(read_secret('DYNREC_DATABASE_PASSWORD_FILE', file), safe='')}@{server}",
        1,
    )


def read_secret(variable: str, file: Path) -> str:
    """What a file holds that a variable names; ConfigurationError if that cannot be."""
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{variable}={str(file)!r} cannot be read: {reason}") from error
    if not secret:
        raise ConfigurationError(f"{variable}={str(file)!r} is empty")
    return secret
