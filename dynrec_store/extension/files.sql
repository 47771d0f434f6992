-- Runs the files, after dropping what `create or replace` cannot replace, and what stands on it; grants stay. PostgreSQL itself says what the files make: they run in an empty
-- schema, and nothing of that stays. The files are in the setting dynrec.code.
do $update$
declare
  there jsonb;
  wanted jsonb;
  uses jsonb;
  doomed text[];
  granted jsonb;
  before int;
  one record;
begin
  select jsonb_object_agg(o.name, to_jsonb(o)) into there from ({objects}) o;
  begin
    alter schema dynrec rename to dynrec_as_it_was;
    execute current_setting('dynrec.code');
    select jsonb_object_agg(o.name, to_jsonb(o)) into wanted from ({objects}) o;
    raise sqlstate 'DR001';
  exception when sqlstate 'DR001' then
    null;  -- back to what was; the variable stays
  end;
  select coalesce(jsonb_agg(to_jsonb(u)), '[]') into uses from ({uses}) u;
  select array_agg(t.key) into doomed from jsonb_each(there) t left join jsonb_each(wanted) w on w.key = t.key
  where w.key is null or t.value ->> 'kind' <> w.value ->> 'kind' or case t.value ->> 'kind'
      when 'view' then exists (select from jsonb_array_elements(t.value -> 'shape') with ordinality s (col, at)
        where s.col is distinct from w.value -> 'shape' -> (s.at::int - 1))
      else t.value -> 'shape' <> w.value -> 'shape' or (t.value -> 'defaults')::int > (w.value -> 'defaults')::int end;
  loop
    before := cardinality(doomed);
    doomed := array(select unnest(doomed) union select u ->> 'user_inside' from jsonb_array_elements(uses) u
      where u ->> 'used' = any (doomed) and u ->> 'user_inside' is not null);
    exit when cardinality(doomed) is not distinct from before or before is null;
  end loop;
  for one in
    select string_agg(format('%s uses %s', u ->> 'user_outside', u ->> 'used'), '; ') as users from jsonb_array_elements(uses) u
    where u ->> 'used' = any (doomed) and u ->> 'user_inside' is null having count(*) > 0
  loop
    raise exception 'these objects stand in the way: %', one.users
      using errcode = 'dependent_objects_still_exist', hint = 'Drop them, update the extension, and create them again against the new definition.';
  end loop;
  select coalesce(jsonb_agg(to_jsonb(g)), '[]') into granted from ({grants}) g;
  while cardinality(doomed) > 0 loop
    before := cardinality(doomed);
    for one in
      select d.name from unnest(doomed) d (name) where not exists (
        select from jsonb_array_elements(uses) u where u ->> 'used' = d.name and u ->> 'user_inside' = any (doomed))
    loop
      execute format('drop %s %s', there -> one.name ->> 'kind', one.name);
      doomed := array_remove(doomed, one.name);
    end loop;
    if cardinality(doomed) = before then
      raise exception 'these use each other: %', array_to_string(doomed, ', ');
    end if;
  end loop;
  execute current_setting('dynrec.code');
  for one in
    select format(case when g.privilege is null then 'revoke all on %1$s %2$s from %4$s' else 'grant %3$s on %1$s %2$s to %4$s%5$s' end,
      o.kind, o.identity, g.privilege, g.grantee, case when g.grantable then ' with grant option' end) as statement
    from jsonb_to_recordset(granted) g (oid bigint, kind text, name text, grantee text, privilege text, grantable boolean)
    join ({granted}) o on o.kind = g.kind and o.name = g.name
    where not exists (select from ({granted}) s where s.oid = g.oid)
  loop
    execute one.statement;
  end loop;
end
$update$;
