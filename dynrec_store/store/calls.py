"""Calling the functions of schema dynrec: the one place where Python turns a call into a statement."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql
from psycopg.rows import RowFactory, class_row, scalar_row
from psycopg.types.json import Jsonb
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dynrec_store import database
from dynrec_store.exceptions import ConfigurationError, ConnectionFailedError, InvalidArgumentError
from dynrec_store.results import as_text

Row = TypeVar("Row")
Key = str | int | UUID  # of an item or a user; goes to the database as text


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
        return self._fetch(class_row(kind), *call(function, arguments))

    def _row(self, kind: type[Row], function: str, **arguments: object) -> Row:
        return self._rows(kind, function, **arguments)[0]

    def _value(self, function: str, **arguments: object) -> Any:  # noqa: ANN401 - as the function says
        return self._fetch(scalar_row, *call(function, arguments))[0]

    def _view(self, kind: type[Row], view: str) -> list[Row]:
        return self._fetch(class_row(kind), sql.SQL("select * from dynrec.{}").format(sql.Identifier(view)), {})

    def _fetch(
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
    given = {name: _adapted(name, value) for name, value in arguments.items() if value is not None}
    named = (sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in given)
    return sql.SQL("select * from dynrec.{}({})").format(sql.Identifier(function), sql.SQL(", ").join(named)), given


def _adapted(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return Jsonb(dict(value))
    if isinstance(value, np.ndarray):
        try:
            return as_text(value)
        except ValueError as error:
            raise InvalidArgumentError(f"{name}: {error}") from error
    return value
