"""What stands in schema dynrec, what can be replaced in place, and what else uses it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Cursor
from psycopg.rows import class_row

from dynrec_store.exceptions import DependentObjectsError, MigrationError

OBJECTS: LiteralString = """
    select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as kind,
        i.identity as name,
        array[pg_get_function_result(p.oid), p.proargnames::text, p.proargmodes::text] as shape,
        p.pronargdefaults::int as defaults
    from pg_proc p, pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    where p.pronamespace = to_regnamespace('dynrec')
    union all
    select 'view', i.identity, array(
            select format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
            from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 order by a.attnum
        ), 0
    from pg_class c, pg_identify_object('pg_class'::regclass, c.oid, 0) i
    where c.relnamespace = to_regnamespace('dynrec') and c.relkind = 'v'
"""

# Each use of a routine or view of dynrec, or of a view's row type. A view is found by its rule.
USES: LiteralString = """
    with object (classid, oid, name) as (
        select 'pg_proc'::regclass, p.oid, i.identity
        from pg_proc p, pg_identify_object('pg_proc'::regclass, p.oid, 0) i
        where p.pronamespace = to_regnamespace('dynrec')
        union all
        select 'pg_class'::regclass, c.oid, i.identity
        from pg_class c, pg_identify_object('pg_class'::regclass, c.oid, 0) i
        where c.relnamespace = to_regnamespace('dynrec') and c.relkind = 'v'
    ), used (classid, oid, name) as (
        table object
        union all
        select 'pg_type'::regclass, t.oid, o.name
        from object o
        join pg_type r on r.typrelid = o.oid and o.classid = 'pg_class'::regclass
        join pg_type t on t.oid in (r.oid, r.typarray)
    ), dependent (name, classid, oid) as (
        select u.name, case when r.oid is null then d.classid else 'pg_class'::regclass end,
            coalesce(r.ev_class, d.objid)
        from used u
        join pg_depend d on d.refclassid = u.classid and d.refobjid = u.oid and d.deptype in ('n', 'a')
        left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    )
    select distinct d.name as used, o.name as user_inside, format('%s %s', i.type, i.identity) as user_outside
    from dependent d
    cross join pg_identify_object(d.classid, d.oid, 0) i
    left join object o on o.classid = d.classid and o.oid = d.oid
    where o.name is distinct from d.name
    order by 1, 3
"""


@dataclass(frozen=True)
class CodeObject:
    """A routine or view of schema dynrec."""

    kind: str  # function, procedure, aggregate or view
    name: str  # qualified; with the types of the input arguments, for a routine
    shape: list[str | None]  # routine: result, names and modes of the arguments; view: its columns with their types
    defaults: int  # number of arguments with a default

    def can_become(self, wanted: "CodeObject") -> bool:
        """Whether `create or replace` accepts the wanted definition for this object."""
        if self.kind != wanted.kind:
            return False
        if self.kind == "view":  # columns may be added at the end
            return wanted.shape[: len(self.shape)] == self.shape
        return self.shape == wanted.shape and self.defaults <= wanted.defaults


@dataclass(frozen=True)
class _Use:
    used: str  # name of an object of dynrec
    user_inside: str | None  # name of the object of dynrec that uses it
    user_outside: str  # the kind and name of any object that uses it


def objects(cursor: Cursor[Any]) -> dict[str, CodeObject]:
    """Every routine and view of schema dynrec, by name."""
    with cursor.connection.cursor(row_factory=class_row(CodeObject)) as rows:
        return {row.name: row for row in rows.execute(OBJECTS)}


def drop(cursor: Cursor[Any], doomed: Iterable[CodeObject]) -> None:
    """Drop these objects, and those of dynrec that use them; DependentObjectsError if anything else does."""
    with cursor.connection.cursor(row_factory=class_row(_Use)) as rows:
        uses = rows.execute(USES).fetchall()
    names = _with_users({one.name for one in doomed}, uses)
    outside = [(use.used, use.user_outside) for use in uses if use.used in names and use.user_inside is None]
    if outside:
        raise DependentObjectsError(outside)
    there = objects(cursor)
    for name in _users_first(names, uses):
        # The name is as PostgreSQL quoted it.
        cursor.execute(f"drop {there[name].kind} {name}".encode())


def _with_users(names: set[str], uses: list[_Use]) -> set[str]:
    while True:
        more = {use.user_inside for use in uses if use.used in names and use.user_inside} - names
        if not more:
            return names
        names = names | more


def _users_first(names: set[str], uses: list[_Use]) -> Iterator[str]:
    left = set(names)
    while left:
        free = left - {use.used for use in uses if use.user_inside in left}
        if not free:
            raise MigrationError(f"these use each other, which sql/ must not make: {', '.join(sorted(left))}")
        yield from sorted(free)
        left -= free
