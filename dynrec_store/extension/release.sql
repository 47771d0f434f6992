-- What was made for a recommender at run time belongs to the database, so that a dump has it.
do $$
declare
  one text;
begin
  for one in
    select format('function %s', p.oid::regprocedure) from pg_proc p where p.pronamespace = 'dynrec_data'::regnamespace and p.proname ~ '_m?\d+$'
    union all
    select format('table %s', c.oid::regclass) from pg_class c
    where c.relnamespace = 'dynrec_data'::regnamespace and c.relispartition and c.relkind = 'r' and c.relname !~ '_default$'
  loop
    execute 'alter extension dynrec drop ' || one;
  end loop;
end
$$;
