"""Connections, and what becomes of the driver's errors."""

from typing import Any

import psycopg
import pytest

from dynrec_store import database
from dynrec_store.exceptions import (
    BusyError,
    ConnectionFailedError,
    DatabaseError,
    InvalidArgumentError,
    NotMigratedError,
    PermissionDeniedError,
    UnknownNameError,
    UnsupportedServerError,
)

Session = psycopg.Connection[tuple[Any, ...]]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("select * from no_such_table", NotMigratedError),
        ("select no_such_column from dynrec_data.encoder", UnknownNameError),
        ("select no_such_function()", NotMigratedError),
        ("select 1 / 0", InvalidArgumentError),
        ("select 'x'::int", InvalidArgumentError),
        (
            "insert into dynrec_data.encoder (name, family, model, dimension) values ('x', 'x', '', 1)",
            InvalidArgumentError,
        ),
        ("set role pg_monitor; create table public.t ()", PermissionDeniedError),
        ("do $$ begin raise serialization_failure; end $$", BusyError),
        ("do $$ begin raise exception 'of a user'; end $$", DatabaseError),
        ("select pg_terminate_backend(pg_backend_pid())", ConnectionFailedError),
    ],
)
def test_errors_are_translated(connection: Session, statement: str, kind: type[DatabaseError]) -> None:
    with pytest.raises(DatabaseError) as caught, database.translated_errors():
        connection.execute(statement.encode())
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, psycopg.Error)


def test_the_hint_and_the_code_of_an_error_are_kept(connection: Session) -> None:
    with pytest.raises(InvalidArgumentError, match="so not\ndo this") as caught, database.translated_errors():
        connection.execute("do $$ begin raise exception 'so not' using hint = 'do this', errcode = '22023'; end $$")
    assert (caught.value.sqlstate, caught.value.hint) == ("22023", "do this")


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_both_spellings_of_a_url_connect(database_url: str, scheme: str) -> None:
    with database.connect(database_url.replace("postgresql", scheme, 1), application_name="someone") as connection:
        assert connection.execute("select current_setting('application_name')").fetchone() == ("someone",)
        assert connection.autocommit


def test_a_wrong_password_is_a_failed_connection(database_url: str) -> None:
    host = database_url.rpartition("@")[2]
    with pytest.raises(ConnectionFailedError, match="password"):
        database.connect(f"postgresql://postgres:wrong@{host}")


def test_the_server_and_its_pgvector_are_found(vector_elsewhere_url: str, postgres_package: str) -> None:
    with database.connect(vector_elsewhere_url) as connection:
        server = database.check_server(connection)
    assert server.version.startswith("16" if postgres_package.startswith("pixel") else "18")
    assert server.vector_schema == "extensions"
    assert server.vector_version is not None


@pytest.mark.parametrize("version", ["15.9 (Debian 15.9-1)", "19beta1", "9.6.24"])
def test_other_versions_of_postgres_are_refused(version: str) -> None:
    with pytest.raises(UnsupportedServerError, match="16 to 18: upgrade the server or connect to another"):
        database.check_postgres_version(version)


@pytest.mark.parametrize("version", ["16.0", "18.6", "18rc1", "17.2 (Ubuntu 17.2-1)"])
def test_the_supported_versions_of_postgres_are_accepted(version: str) -> None:
    database.check_postgres_version(version)


@pytest.mark.parametrize("version", ["0.7.4", "0.5.0"])
def test_an_old_pgvector_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedServerError, match=f"pgvector here is {version}"):
        database.check_vector_version(version)


@pytest.mark.parametrize("version", ["0.8.0", "0.10.1", "1.0"])
def test_a_new_pgvector_is_accepted(version: str) -> None:
    database.check_vector_version(version)
