-- Row-level security of dynrec_data: whoever sees part of a source sees that part of what was made from it. Policies of the tables are
-- in migrations/; here are those of the partitions of a model version, and the code that asks a source for single items.

create or replace function dynrec._sees_item_branches(ids int[], branches text[]) returns text
language plpgsql immutable
set search_path from current
as $$
declare
  half int := cardinality(ids) / 2;
begin
  if half = 0 then
    return coalesce(branches[1], '');
  end if;
  return format(e'if of_recommender operator(pg_catalog.<) %s then\n%selse\n%send if;\n', ids[half + 1],
    dynrec._sees_item_branches(ids[:half], branches[:half]), dynrec._sees_item_branches(ids[half + 1:], branches[half + 1:]));
end
$$;
comment on function dynrec._sees_item_branches(int[], text[]) is
  'Internal. Code that finds the branch of a recommender by halving: with a thousand of them ten comparisons, not a thousand for each row.';

create or replace function dynrec._sees_item_code() returns text
language sql stable
set search_path from current
as $$
  -- asked once for each row: no search path to set and reset, so operators and types say where they are from;
  -- of a source that was renamed nothing is seen, so that views go on telling of the other recommenders
  select e'begin\n' || dynrec._sees_item_branches(coalesce(array_agg(b.id order by b.id), '{}'), coalesce(array_agg(b.code order by b.id), '{}')) || e'return false;\nend'
  from (
    select r.id, format(
        e'if of_recommender operator(pg_catalog.=) %s then\n  if pg_catalog.to_regclass(%L) is null then\n    return false;\n  end if;\n'
        '  perform from %s i where i.%I operator(pg_catalog.=) item_id::pg_catalog.%s;\n  return found;\nend if;\n',
        r.id, dynrec._qualified(r.items), dynrec._qualified(r.items), r.item_key, case r.item_key_type when 'bigint' then 'int8' else r.item_key_type end) as code
    from dynrec_data.recommender r where exists (select from pg_class c where c.oid = r.items)
  ) b
$$;
comment on function dynrec._sees_item_code() is
  'Internal. The code of dynrec_data.sees_item: for each recommender, whether the caller sees a row of an item in the source.';

create or replace function dynrec._generate_sees_item() returns void
language plpgsql
set search_path from current
as $$
begin
  if dynrec._sees_item_code() = (select p.prosrc from pg_proc p where p.oid = 'dynrec_data.sees_item(int, text)'::regprocedure) then
    return;
  end if;
  -- who declares another recommender at the same time waits, and then sees this one
  perform pg_advisory_xact_lock(hashtext('dynrec.sees_item'), 0);
  execute format('create or replace function dynrec_data.sees_item(of_recommender int, item_id text) returns boolean '
    'language plpgsql stable parallel safe as %L', dynrec._sees_item_code());
end
$$;
comment on function dynrec._generate_sees_item() is 'Internal. Brings dynrec_data.sees_item to the recommenders that there are now.';

create or replace function dynrec._secure_partitions(model_id int) returns void
language plpgsql
set search_path from current
as $$
declare
  names jsonb;
begin
  if exists (select from pg_policy p where p.polrelid = format('dynrec_data.item_vector_%s', model_id)::regclass) then
    return;
  end if;
  select jsonb_build_object('model', m.id, 'id', m.recommender_id) into strict names
  from dynrec_data.model_version m where m.id = _secure_partitions.model_id;
  execute dynrec._render($policies$
    alter table dynrec_data.item_vector_{model} enable row level security;
    alter table dynrec_data.user_vector_{model} enable row level security;
    create policy reader on dynrec_data.item_vector_{model} for select using (
      exists (select from dynrec_data.recommender r where r.id = {id}
        and has_table_privilege(r.items::oid, 'select') and not row_security_active(r.items::oid))
      or exists (select from dynrec_data.recommender r where r.id = {id}) and dynrec_data.sees_item({id}, item_id));
    create policy reader on dynrec_data.user_vector_{model} for select using (
      exists (select from dynrec_data.recommender r where r.id = {id}
        and (r.interactions is null or has_table_privilege(r.interactions::oid, 'select') and not row_security_active(r.interactions::oid))))
    $policies$, names);
end
$$;
comment on function dynrec._secure_partitions(int) is
  'Internal. The policies of the partitions of a model version, which are read by their own names: those of the parents, with the recommender written out.';
