"""The replication slot, as the stream sees it: one function here for each function in sql/43_stream.sql."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import LiteralString, cast

import psycopg
from psycopg import ClientCursor, Cursor, Rollback
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from dynrec_store.database import translated, translated_errors
from dynrec_store.exceptions import BusyError, ConnectionFailedError, UnreadableSlotError
from dynrec_store.pgoutput import RowChange, changes
from dynrec_store.queue import Connection

CHUNK = 5000  # changes that are queued by one statement
PASSING = ("53", "57")  # SQLSTATEs of what is no fault of a slot: a full disk, a statement that was cancelled


def _scalar(connection: Connection, statement: LiteralString, arguments: Sequence[object] = ()) -> object:
    with translated_errors(), connection.cursor(row_factory=scalar_row) as cursor:
        return cast("object", cursor.execute(statement, arguments).fetchone())


def prepare(connection: Connection) -> None:
    """Have values written as they are read again, and each commit wait for the disk: the slot forgets after it."""
    with translated_errors():
        connection.execute(
            "set synchronous_commit = on; set datestyle = 'ISO, YMD'; set timezone = 'UTC';"
            "set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex'"
        )


def become_reader(connection: Connection) -> bool:
    """Become the one who reads the slot of this database, until the end of the connection; False: another is."""
    return cast("bool", _scalar(connection, "select pg_try_advisory_lock(hashtext('dynrec.stream'), 0)"))


def tend(connection: Connection) -> str:
    """Begin and end streaming as recommenders ask for it; what is to be done: see _tend_stream."""
    return cast("str", _scalar(connection, "select dynrec._tend_stream()"))


def make_slot(connection: Connection) -> None:
    """Make the slot; waits for transactions that are open."""
    _scalar(connection, "select dynrec._make_stream_slot()")


def say_it_stands(connection: Connection) -> None:
    """Have everything scanned that no slot told of."""
    _scalar(connection, "select dynrec._stream_stands()")


def give_up_slot(connection: Connection) -> None:
    """Drop the slot; the next one is followed by a scan of everything."""
    _scalar(connection, "select dynrec._drop_stream_slot()")


def lag(connection: Connection) -> int | None:
    """Bytes of WAL that the slot holds back; None without a slot."""
    return cast("int | None", _scalar(connection, "select dynrec._stream_lag()"))


def advance(connection: Connection, most: int) -> int | None:
    """Queue what about `most` of the messages that wait say; how many changes; None if a commit cannot be seen yet.

    All are queued and noted in one transaction, so that each counts once, and the slot moves on after it. Raises
    UnreadableSlotError where the server cannot decode what waits.
    """
    end = _scalar(connection, "select dynrec._stream_end()::text")
    queued, last, visible = 0, 0, True
    with translated_errors(), connection.transaction() as transaction:
        read: list[int] = []
        waiting = changes(_messages(connection, end, most, read))
        while chunk := list(islice(waiting, CHUNK)):
            if not _scalar(connection, "select dynrec._apply_stream(%s)", [Jsonb([_as_json(c) for c in chunk])]):
                visible = False
                raise Rollback(transaction)
            queued, last = queued + len(chunk), chunk[-1].commit.lsn
        if queued:
            _scalar(connection, "select dynrec._stream_applied(%s::pg_lsn)", [_lsn(last)])
    if not visible:
        return None
    # what was read up to the limit ends with a commit; otherwise nothing waits up to the end
    _scalar(connection, "select dynrec._advance_stream(%s::pg_lsn)", [_lsn(last) if sum(read) >= most else end])
    return queued


def _messages(connection: Connection, end: object, most: int, read: list[int]) -> Iterator[bytes]:
    """The messages that wait; `read` says how many came."""
    with ClientCursor(connection, row_factory=scalar_row) as cursor:
        cursor.execute(
            "declare dynrec_stream no scroll cursor for select dynrec._read_stream(%s::pg_lsn, %s)", [end, most]
        )
    with connection.cursor(row_factory=scalar_row, binary=True) as cursor:
        while some := _fetched(cursor):
            read.append(len(some))
            yield from some


def _fetched(cursor: Cursor[bytes]) -> list[bytes]:
    try:
        return cursor.execute(f"fetch forward {CHUNK} from dynrec_stream").fetchall()
    except psycopg.Error as error:
        known = translated(error)
        if isinstance(known, ConnectionFailedError | BusyError) or str(known.sqlstate).startswith(PASSING):
            raise
        raise UnreadableSlotError(str(known), sqlstate=known.sqlstate) from error


def _lsn(number: int) -> str:
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def _as_json(change: RowChange) -> dict[str, object]:
    return {
        "relation": change.relation,
        "lsn": _lsn(change.commit.lsn),
        "xid": change.commit.xid,
        "at": change.commit.at.isoformat(),
        "op": change.op,
        "old": change.old,
        "new": change.new,
    }
