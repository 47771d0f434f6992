"""Calling the functions of schema dynrec: the one place where Python turns a call into a statement."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import RowFactory, class_row, scalar_row
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dynrec_store import database
from dynrec_store.exceptions import ConfigurationError, ConnectionFailedError, InvalidArgumentError, NotMigratedError
from dynrec_store.store.arguments import Key, adapted

__all__ = ["Calls", "Connections", "EngineConnections", "Key", "call"]

Row = TypeVar("Row")

_REQUIRED = sql.SQL(
    "select p.proargnames[:p.pronargs - p.pronargdefaults] from pg_catalog.pg_proc p"
    " where p.pronamespace = to_regnamespace('dynrec') and p.proname = %(function)s"
)


class Connections(Protocol):
    """Whatever lends connections, as psycopg_pool.ConnectionPool does; commits at the end of the block."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend a connection for the length of a with block."""


class EngineConnections:
    """Connections out of the pool of a SQLAlchemy engine."""

    def __init__(self, engine: Engine) -> None:
        if engine.dialect.driver != "psycopg":
            raise ConfigurationError(
                f"this engine uses the driver {engine.dialect.driver!r}: FeatureStore needs psycopg 3, "
                "as in create_engine('postgresql+psycopg://…')"
            )
        self._engine = engine

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection in a transaction."""
        try:
            with self._engine.begin() as connection:
                yield connection.connection.driver_connection  # type: ignore[misc]  # a psycopg connection, see above
        except PoolTimeoutError as error:
            raise ConnectionFailedError(f"no connection became free: {error}") from error
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise error.orig from error
            raise


class Calls:
    """Calls functions by name with named arguments, each call in a transaction of its own."""

    def __init__(self, connections: Engine | Connections) -> None:
        self._connections = EngineConnections(connections) if isinstance(connections, Engine) else connections

    def _rows(self, kind: type[Row], function: str, **arguments: object) -> list[Row]:
        return self._called(class_row(kind), function, arguments)

    def _row(self, kind: type[Row], function: str, **arguments: object) -> Row:
        return self._rows(kind, function, **arguments)[0]

    def _value(self, function: str, **arguments: object) -> Any:  # noqa: ANN401 - as the function says
        return self._called(scalar_row, function, arguments)[0]

    def _called(self, rows: RowFactory[Row], function: str, arguments: Mapping[str, object]) -> list[Row]:
        try:
            return self._fetch(rows, *call(function, arguments))
        except NotMigratedError as error:
            for required in self._fetch(scalar_row, _REQUIRED, {"function": function}):
                missing = [name for name in required if arguments.get(name, ...) is None]
                if missing:  # Postgres says only that no function takes the rest
                    raise InvalidArgumentError(f"{missing[0]} is missing: None", sqlstate=error.sqlstate) from error
            raise

    def _view(self, kind: type[Row], view: str) -> list[Row]:
        return self._fetch(class_row(kind), sql.SQL("select * from dynrec.{}").format(sql.Identifier(view)), {})

    def _fetch(
        self, rows: RowFactory[Row], statement: sql.SQL | sql.Composed, parameters: Mapping[str, object]
    ) -> list[Row]:
        try:
            return self._fetch_once(rows, statement, parameters)
        except NotMigratedError:
            # Whoever waited for a migration goes on in the function as it was, and misses what that called.
            return self._fetch_once(rows, statement, parameters)

    def _fetch_once(
        self, rows: RowFactory[Row], statement: sql.SQL | sql.Composed, parameters: Mapping[str, object]
    ) -> list[Row]:
        with (
            database.translated_errors(),
            self._connections.connection() as connection,
            connection.cursor(row_factory=rows) as cursor,
        ):
            return cursor.execute(statement, parameters).fetchall()


def call(function: str, arguments: Mapping[str, object]) -> tuple[sql.Composed, dict[str, object]]:
    """The statement that calls a function of schema dynrec, and its parameters."""
    # An argument that is None is left out, so that defaults are written in one place, the SQL function.
    given = {name: adapted(name, value) for name, value in arguments.items() if value is not None}
    named = (sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in given)
    return sql.SQL("select * from dynrec.{}({})").format(sql.Identifier(function), sql.SQL(", ").join(named)), given
