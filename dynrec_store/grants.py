"""Keeping what users granted and revoked on an object of schema dynrec that is dropped and created anew."""

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Cursor, sql
from psycopg.rows import class_row

# What is granted to others than the owner. That everybody may execute a routine is the default, and nobody's doing.
GRANTS: LiteralString = """
    select p.oid::bigint as oid, 'routine' as kind, p.proname::text as name, g.grantee::regrole::text as grantee,
        g.privilege_type as privilege, g.is_grantable as grantable
    from pg_proc p cross join aclexplode(p.proacl) g
    where p.pronamespace = to_regnamespace('dynrec') and g.grantee not in (p.proowner, 0)
    union all
    select c.oid::bigint, 'table', c.relname, case g.grantee when 0 then 'public' else g.grantee::regrole::text end,
        g.privilege_type, g.is_grantable
    from pg_class c cross join aclexplode(c.relacl) g
    where c.relnamespace = to_regnamespace('dynrec') and c.relkind = 'v' and g.grantee <> c.relowner
    union all
    select p.oid::bigint, 'routine', p.proname, 'public', null, false
    from pg_proc p
    where p.pronamespace = to_regnamespace('dynrec')
        and not exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g where g.grantee = 0)
"""

OBJECTS: LiteralString = """
    select p.oid::bigint as oid, 'routine' as kind, p.proname::text as name, p.oid::regprocedure::text as identity
    from pg_proc p where p.pronamespace = to_regnamespace('dynrec')
    union all
    select c.oid::bigint, 'table', c.relname, c.oid::regclass::text
    from pg_class c where c.relnamespace = to_regnamespace('dynrec') and c.relkind = 'v'
"""


@dataclass(frozen=True)
class Grant:
    """A right that somebody has on an object."""

    oid: int
    kind: str  # routine or table, which a view is to `grant`
    name: str  # without schema and arguments
    grantee: str  # as SQL writes it
    privilege: str | None  # None: everything was revoked from the grantee
    grantable: bool  # whether the grantee may pass it on


@dataclass(frozen=True)
class _Object:
    oid: int
    kind: str
    name: str
    identity: str  # as SQL writes it


def grants(cursor: Cursor[Any]) -> list[Grant]:
    """What users granted on the routines and views of schema dynrec, and revoked."""
    with cursor.connection.cursor(row_factory=class_row(Grant)) as rows:
        return rows.execute(GRANTS).fetchall()


def restore(cursor: Cursor[Any], kept: list[Grant]) -> None:
    """Grant and revoke the same on what took the place of objects that are no more."""
    with cursor.connection.cursor(row_factory=class_row(_Object)) as rows:
        there = rows.execute(OBJECTS).fetchall()
    standing = {one.oid for one in there}
    for grant in kept:
        if grant.oid in standing:
            continue
        for one in there:
            if (one.kind, one.name) == (grant.kind, grant.name):
                cursor.execute(_statement(grant, one))


def _statement(grant: Grant, one: _Object) -> sql.Composed:
    parts = {
        "kind": sql.SQL("routine" if one.kind == "routine" else "table"),
        # these come from the catalog, quoted
        "object": sql.SQL(one.identity),
        "grantee": sql.SQL(grant.grantee),
    }
    if grant.privilege is None:
        return sql.SQL("revoke all on {kind} {object} from {grantee}").format(**parts)
    return sql.SQL("grant {privilege} on {kind} {object} to {grantee}{option}").format(
        **parts,
        privilege=sql.SQL(grant.privilege),
        option=sql.SQL(" with grant option" if grant.grantable else ""),
    )
