"""Bulk loads: COPY into watched tables, as a bulk load and with each row captured, beside COPY into plain ones."""

from functools import partial
from typing import LiteralString

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench.capture import PLAIN, WATCHED, make_tables
from workers.bench.measure import Figure, in_turn, seconds
from workers.bench.place import bench_database, url_of
from workers.bench.report import progress

USERS = 10_000

_COPY: dict[str, LiteralString] = {
    "items": "copy {schema}.items (id, title, price) from stdin",
    "events": "copy {schema}.events (user_id, item_id, kind) from stdin",
}
# Nothing of the load before is left, neither rows nor what waits for workers.
_EMPTY: LiteralString = """
    truncate {schema}.items, {schema}.events restart identity;
    truncate dynrec_data.change, dynrec_data.task;
"""


def bulk(settings: Settings, *, rows: int, runs: int) -> list[Figure]:
    """Seconds of a COPY of `rows` rows and its commit, into empty tables with the same indexes."""
    with (
        bench_database(settings) as own,
        progress("bulk", 4 * runs) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
    ):
        make_tables(connection, 0, {PLAIN: None, WATCHED: "incremental"})
        return [
            Figure(
                f"bulk, {table}{'' if is_load else ', row by row'}",
                f"COPY of {rows:,} rows, {'as a bulk load' if is_load else 'each captured'}, against a plain table",
                *in_turn(
                    runs,
                    partial(_seconds, connection, WATCHED, table, lines, is_load=is_load),
                    partial(_seconds, connection, PLAIN, table, lines, is_load=False),
                    advance,
                ),
                unit="s",
                higher_is_better=False,
                target=1.15 if is_load else None,
            )
            for table, lines in (("items", _items(rows)), ("events", _events(rows)))
            for is_load in (True, False)
        ]


def _items(rows: int) -> bytes:
    return b"".join(b"%d\titem %d of %d\t%d\n" % (n, n, n * 7919 % 1000, n % 100) for n in range(rows))


def _events(rows: int) -> bytes:
    return b"".join(b"%d\t%d\tview\n" % (n * 7919 % USERS, n * 31 % 100_003) for n in range(rows))


def _seconds(connection: Connection, schema: str, table: str, lines: bytes, *, is_load: bool) -> float:
    with translated_errors():
        connection.execute(sql.SQL(_EMPTY).format(schema=sql.Identifier(schema)))
        return seconds(partial(_load, connection, schema, table, lines, is_load=is_load))


def _load(connection: Connection, schema: str, table: str, lines: bytes, *, is_load: bool) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        if is_load:
            cursor.execute("set local dynrec.bulk_load = on")
        with cursor.copy(sql.SQL(_COPY[table]).format(schema=sql.Identifier(schema))) as copy:
            copy.write(lines)
