-- What dynrec made at run time is nobody's member, and a script may only replace members: they are for as long as it runs.
do $$
declare
  one text;
begin
  for one in
    select format('function %s', p.oid::regprocedure) from pg_proc p where p.pronamespace = 'dynrec_data'::regnamespace
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    union all
    select format('table %s', c.oid::regclass) from pg_class c where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind in ('r', 'p')
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
  loop
    execute 'alter extension dynrec add ' || one;
  end loop;
end
$$;
