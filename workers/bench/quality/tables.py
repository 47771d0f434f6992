"""The tables of the application: items and events as of the split, and what happens to them afterwards."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import pandas as pd
from psycopg import sql

from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from workers.bench.quality.dataset import Dataset, Flags

COLD = "without_events_before_the_split"  # a column of the items that no model is told of
ITEMS, EVENTS = sql.Identifier("public", "items"), sql.Identifier("public", "events")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_INDEXES: LiteralString = """
    create index on public.events (user_id);
    create index on public.events (item_id);
    analyze public.items, public.events;
"""


def at(moment: int) -> datetime:
    """The time that is so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=moment)


class Tables:
    """public.items and public.events, over a connection that commits each statement."""

    def __init__(self, connection: Connection, dataset: Dataset) -> None:
        self._connection, self._dataset = connection, dataset
        self._keys = dataset.attributes.index.tolist()
        log = dataset.log
        optional = {"kind": log.kind, "value": log.value}
        self.optional = tuple(name for name, column in optional.items() if column is not None)

    def create(self, position: int, moment: int, cold: Flags) -> None:
        """Make them: the events before `position`, all items with the attributes in force at `moment`."""
        roles, names = self._dataset.roles, self._dataset.roles.names
        types = [sql.SQL("double precision" if name in roles.numeric else "text") for name in names]
        columns = [sql.SQL("{} {}").format(sql.Identifier(n), t) for n, t in zip(names, types, strict=True)]
        item_columns = [
            sql.SQL("item_id text primary key"),
            sql.SQL("{} boolean").format(sql.Identifier(COLD)),
            *columns,
        ]
        with translated_errors():
            self._connection.execute(_created(ITEMS, item_columns))
            self._connection.execute(_created(EVENTS, [sql.SQL(_EVENT_TYPES[name]) for name in self._event_columns]))
        self._copy(ITEMS, ("item_id", COLD, *names), self._item_rows(moment, cold))
        self.insert(0, position)
        with translated_errors():
            self._connection.execute(_INDEXES)

    def insert(self, start: int, stop: int) -> None:
        """Insert the events of these positions of the log, in one statement."""
        if stop > start:
            self._copy(EVENTS, self._event_columns, self._event_rows(start, stop))

    def change(self, start: int, stop: int) -> None:
        """Update items by these rows of the history."""
        changes = self._dataset.history.iloc[start:stop]
        names = [name for name in self._dataset.roles.names if name in changes]
        for item, *values in changes[["item", *names]].itertuples(index=False):
            given = {name: _plain(value) for name, value in zip(names, values, strict=True) if not pd.isna(value)}
            if given:
                assignments = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in given]
                statement = sql.SQL("update {} set {} where item_id = %s")
                with translated_errors():
                    self._connection.execute(
                        statement.format(ITEMS, sql.SQL(", ").join(assignments)), [*given.values(), self._keys[item]]
                    )

    @property
    def _event_columns(self) -> tuple[str, ...]:
        return ("user_id", "item_id", "occurred_at", *self.optional)

    def _copy(self, table: sql.Identifier, columns: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> None:
        statement = sql.SQL("copy {} ({}) from stdin").format(table, sql.SQL(", ").join(map(sql.Identifier, columns)))
        with translated_errors(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def _item_rows(self, moment: int, cold: Flags) -> Iterator[tuple[object, ...]]:
        frame = self._dataset.attributes_at(moment)
        for key, is_cold, values in zip(self._keys, cold, frame.itertuples(index=False), strict=True):
            yield key, bool(is_cold), *map(_plain, values)

    def _event_rows(self, start: int, stop: int) -> Iterator[tuple[object, ...]]:
        log, users = self._dataset.log, self._dataset.users
        for position in range(start, stop):
            optional = (_plain(getattr(log, name)[position]) for name in self.optional)
            yield users[log.user[position]], self._keys[log.item[position]], at(int(log.time[position])), *optional


_EVENT_TYPES: dict[str, LiteralString] = {
    "user_id": "user_id text not null",
    "item_id": "item_id text not null",
    "occurred_at": "occurred_at timestamptz not null",
    "kind": "kind text",
    "value": "value double precision",
}


def _created(table: sql.Identifier, columns: list[sql.Composable]) -> sql.Composed:
    return sql.SQL("create table {} ({})").format(table, sql.SQL(", ").join(columns))


def _plain(value: object) -> object:
    """A value as the driver knows it; None for what pandas takes for missing."""
    if pd.isna(value):  # type: ignore[call-overload, unused-ignore]
        return None
    return float(value) if isinstance(value, float) else str(value)
