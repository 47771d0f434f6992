"""What a call may have left behind: rows of dynrec, generated code, triggers, locks and settings of the session."""

from functools import cache
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import sql

from tests.drain import Session

_TABLES = """
    select c.relname from pg_class c
    where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1
"""

_SESSION = """
    select (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'),
      (select array_agg(name || '=' || setting order by name) from pg_settings where source = 'session'),
      current_user::text
"""


@cache
def _digest(tables: tuple[str, ...]) -> sql.Composed:
    sums = [
        sql.SQL("select {}, count(*), sum(hashtextextended(t::text, 0)) from dynrec_data.{} t").format(
            sql.Literal(name), sql.Identifier(name)
        )
        for name in tables
    ]
    code = sql.SQL(
        "select 'code', count(*), sum(hashtextextended(prosrc, 0)) from pg_proc where pronamespace = 'dynrec_data'::regnamespace"
        " union all select 'triggers', count(*), null from pg_trigger"
        " union all select 'relations', count(*), null from pg_class"
    )
    return sql.SQL(" union all ").join([*sums, code])


def rows(connection: Session) -> list[tuple[Any, ...]]:
    """A digest of everything that dynrec keeps."""
    names = tuple(name for (name,) in connection.execute(_TABLES.encode()).fetchall())
    return sorted(connection.execute(_digest(names)).fetchall(), key=itemgetter(0))


def session(connection: Session) -> list[tuple[Any, ...]]:
    """What a connection holds and has set."""
    return connection.execute(_SESSION.encode()).fetchall()


def is_alive(connection: Session) -> bool:
    """Whether the server still answers on this connection."""
    try:
        return connection.execute("select 1").fetchall() == [(1,)]
    except psycopg.OperationalError:
        return False
