"""What a replication slot says: messages of PostgreSQL's output plugin pgoutput, protocol version 1."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

Row: TypeAlias = dict[str, str | None]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_UNCHANGED = object()  # a long value that an update left as it was: the log does not repeat it


@dataclass(frozen=True)
class Commit:
    """The transaction that changes belong to."""

    lsn: int  # of its commit
    xid: int  # the last 32 bits
    at: datetime


@dataclass(frozen=True)
class RowChange:
    """A row that came, went or changed, or a table that was emptied."""

    commit: Commit
    relation: int  # oid; of a partitioned table the partition's
    op: Literal["insert", "update", "delete", "truncate"]
    old: Row | None  # as much as the replica identity tells
    new: Row | None


@dataclass
class _Cursor:
    """Reads a message from front to back."""

    data: bytes
    place: int = 1  # behind the letter that says what it is

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(f">{form}", self.data, self.place)
        self.place += struct.calcsize(f">{form}")
        return int(value)

    def letter(self) -> str:
        self.place += 1
        return chr(self.data[self.place - 1])

    def bytes_of(self, length: int) -> bytes:
        self.place += length
        return self.data[self.place - length : self.place]

    def text(self) -> str:
        end = self.data.index(0, self.place)
        found = self.data[self.place : end].decode()
        self.place = end + 1
        return found


def changes(messages: Iterable[bytes]) -> Iterator[RowChange]:
    """The changes in the order of commits. Messages begin with a transaction and know every table that they name."""
    columns: dict[int, list[str]] = {}
    commit = Commit(0, 0, _EPOCH)
    for message in messages:
        cursor = _Cursor(message)
        match chr(message[0]):
            case "B":
                lsn, at = cursor.number("Q"), cursor.number("q")
                commit = Commit(lsn, cursor.number("I"), _EPOCH + timedelta(microseconds=at))
            case "R":
                columns.update([_table(cursor)])
            case "I":
                relation = cursor.number("I")
                cursor.letter()
                yield RowChange(commit, relation, "insert", None, _known(_tuple(cursor, columns[relation]), {}))
            case "U":
                yield _update(cursor, commit, columns)
            case "D":
                relation = cursor.number("I")
                cursor.letter()
                yield RowChange(commit, relation, "delete", _known(_tuple(cursor, columns[relation]), {}), None)
            case "T":
                tables, _ = cursor.number("I"), cursor.number("B")
                for _ in range(tables):
                    yield RowChange(commit, cursor.number("I"), "truncate", None, None)
            case _:  # commit, origin, type
                pass


def _table(cursor: _Cursor) -> tuple[int, list[str]]:
    relation = cursor.number("I")
    cursor.text(), cursor.text(), cursor.letter()  # schema, name, replica identity
    names = []
    for _ in range(cursor.number("H")):
        cursor.number("B")
        names.append(cursor.text())
        cursor.number("I"), cursor.number("i")  # type and its modifier
    return relation, names


def _update(cursor: _Cursor, commit: Commit, columns: dict[int, list[str]]) -> RowChange:
    relation = cursor.number("I")
    names = columns[relation]
    old: Row | None = None
    if cursor.letter() != "N":
        old = _known(_tuple(cursor, names), {})
        cursor.letter()
    return RowChange(commit, relation, "update", old, _known(_tuple(cursor, names), old or {}))


def _tuple(cursor: _Cursor, names: list[str]) -> dict[str, object]:
    row: dict[str, str | object | None] = {}
    for name in names[: cursor.number("H")]:
        match cursor.letter():
            case "n":
                row[name] = None
            case "u":
                row[name] = _UNCHANGED
            case _:
                row[name] = cursor.bytes_of(cursor.number("I")).decode()
    return row


def _known(row: dict[str, object], old: Row) -> Row:
    """The row with what an update left as it was; without it where the old row is not told."""
    filled = {name: old.get(name, _UNCHANGED) if value is _UNCHANGED else value for name, value in row.items()}
    return {name: value for name, value in filled.items() if value is None or isinstance(value, str)}
