"""Which database is meant: the one that the settings name, or the embedded server's."""

from collections.abc import Iterator
from contextlib import contextmanager

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import load_extra
from dynrec_store.settings import Settings


@contextmanager
def target_database(settings: Settings, *, create: bool = False) -> Iterator[str]:
    """The database's URL, for the length of the block; without a `database_url` the embedded server runs as long.

    The embedded server is made only if `create` says so: ConfigurationError if there is none.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
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
