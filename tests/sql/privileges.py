"""Who can do what with every object, as text to compare with privileges.txt."""

from pathlib import Path
from typing import LiteralString

from tests.drain import Session

EXPECTED = Path(__file__).with_name("privileges.txt")

# public is everybody. Monthly partitions are left out: nobody reads them by their own names.
OBJECTS: LiteralString = r"""
    with object (kind, name, oid) as (
        select 'function', p.oid::regprocedure::text || case when p.prosecdef then ' as its owner' else '' end, p.oid
        from pg_proc p where p.pronamespace in ('dynrec'::regnamespace, 'dynrec_data'::regnamespace)
        union all
        select case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.oid
        from pg_class c
        where c.relnamespace in ('dynrec'::regnamespace, 'dynrec_data'::regnamespace) and c.relkind in ('r', 'p', 'v', 'S')
            and c.relname !~ '_(default|\d{4}_\d\d)$'
        union all
        select 'schema', n.nspname, n.oid from pg_namespace n where n.nspname in ('dynrec', 'dynrec_data')
    ), may (kind, name, privilege, role) as (
        select o.kind, o.name, p.privilege, r.name
        from object o, unnest('{public,dynrec_reader,dynrec_writer,dynrec_worker,dynrec_admin}'::text[]) as r (name),
            unnest(case o.kind
                when 'function' then '{execute}'
                when 'schema' then '{usage,create}'
                when 'sequence' then '{usage,select,update}'
                else '{select,insert,update,delete,truncate,references,trigger}' end::text[]) as p (privilege)
        where case o.kind
            when 'function' then has_function_privilege(r.name, o.oid, p.privilege)
            when 'schema' then has_schema_privilege(r.name, o.oid, p.privilege)
            when 'sequence' then has_sequence_privilege(r.name, o.oid, p.privilege)
            else has_table_privilege(r.name, o.oid, p.privilege) end
        union all
        select o.kind, o.name, p.privilege || ' ' || string_agg(a.attname, ', ' order by a.attnum), r.name
        from object o join pg_attribute a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped,
            unnest('{public,dynrec_reader,dynrec_writer,dynrec_worker,dynrec_admin}'::text[]) as r (name),
            unnest('{select,insert,update}'::text[]) as p (privilege)
        where o.kind in ('table', 'view') and not has_table_privilege(r.name, o.oid, p.privilege)
            and has_column_privilege(r.name, o.oid, a.attnum, p.privilege)
        group by o.kind, o.name, p.privilege, r.name
    ), told (kind, name, words) as (
        select m.kind, m.name, m.privilege || ': ' || string_agg(m.role, ', ' order by m.role) from may m
        group by m.kind, m.name, m.privilege
    )
    select o.kind || ' ' || o.name || E'\n    '
        || coalesce((select string_agg(t.words, '; ' order by t.words) from told t where t.kind = o.kind and t.name = o.name), 'nobody')
    from object o order by o.kind, o.name collate "C"
"""


def privileges(connection: Session) -> str:
    """Every object with its rights besides those of the owner, two lines each."""
    return "".join(f"{row[0]}\n" for row in connection.execute(OBJECTS))
