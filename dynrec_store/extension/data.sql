-- The rows of every table are data, and dumped; but what the script itself writes comes from the script again.
do $$
declare
  one record;
begin
  for one in
    select c.oid, c.relname from pg_class c
    where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind in ('r', 'p', 'S') and c.relname not in ('alembic_version', 'code')
      and exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
  loop
    perform pg_extension_config_dump(one.oid, case one.relname when 'encoder' then {encoders} else '' end);
  end loop;
end
$$;
