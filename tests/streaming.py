"""What the stream does, until nothing is left to read; and the end of a slot, which keeps its database from being dropped."""

import time
from contextlib import closing

import psycopg

from dynrec_store import database, stream
from dynrec_store.exceptions import UnreadableSlotError
from dynrec_store.queue import Connection
from workers.stream import MOST


def catch_up(url: str, *, seconds: float = 60.0) -> None:
    """Begin what recommenders ask for, and read up to now."""
    with closing(database.connect(url)) as connection:
        stream.prepare(connection)
        until = time.monotonic() + seconds
        while not stream.become_reader(connection):
            assert time.monotonic() < until, "another reads"
            time.sleep(0.02)
        while not _is_done(connection):
            assert time.monotonic() < until, "the stream does not catch up"


def _is_done(connection: Connection) -> bool:
    state = stream.tend(connection)
    if state == "no slot":
        stream.make_slot(connection)
    if state in ("no slot", "new slot"):
        stream.say_it_stands(connection)
        return False
    if state == "idle":
        return True
    try:
        queued = stream.advance(connection, MOST)
    except UnreadableSlotError:
        stream.give_up_slot(connection)
        return False
    # twice: a span that has been read to its end is closed by the next look
    return queued == 0 and stream.tend(connection) == state == "ready"


def drop_slot(url: str) -> None:
    """Drop the slot of a database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database() and active"
        )
        for _ in range(200):
            left = connection.execute(
                "select slot_name from pg_replication_slots where database = current_database() and not active"
            ).fetchall()
            for (name,) in left:
                connection.execute("select pg_drop_replication_slot(%s)", [name])
            if (
                connection.execute("select 1 from pg_replication_slots where database = current_database()").fetchone()
                is None
            ):
                return
            time.sleep(0.02)
