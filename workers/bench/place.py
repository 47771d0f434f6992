"""Where benchmarks take place: a migrated database of their own on the server that the settings mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url

from dynrec_store import database, migrate
from dynrec_store.settings import Settings
from dynrec_store.target import target_database


@contextmanager
def bench_database(settings: Settings) -> Iterator[Settings]:
    """Settings that mean a new, migrated database; it is dropped at the end of the block.

    The server is that of `database_url`, whose role must be allowed to create databases, or the embedded one.
    """
    name = f"dynrec_bench_{os.getpid()}"
    with target_database(settings, create=True) as url, database.connect(url) as connection:
        _drop(connection, name)
        with database.translated_errors():
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            own = make_url(database.psycopg_url(url)).set(database=name).render_as_string(hide_password=False)
            migrate.upgrade(own)
            yield settings.model_copy(update={"database_url": SecretStr(own)})
        finally:
            _drop(connection, name)


def url_of(settings: Settings) -> str:
    """The URL of the database that `bench_database` made."""
    assert settings.database_url is not None  # noqa: S101 - it is set there
    return settings.database_url.get_secret_value()


def _drop(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    with database.translated_errors():
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
