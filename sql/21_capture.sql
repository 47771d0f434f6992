-- Capture: what the triggers on the application's tables append to dynrec_data.change, and when they wake the dispatcher.

create or replace function dynrec._item_capture() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.capture_items_{id}() returns trigger
language plpgsql security definer
set search_path from current
as $$
begin
  if tg_level = 'ROW' then
    -- of a partitioned table, whose key is what it is partitioned by and keeps its type
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select distinct {id}, 'item', k.entity, 'refresh'
    from (values (case when tg_op <> 'INSERT' then old.{key}::text end), (case when tg_op <> 'DELETE' then new.{key}::text end)) as k (entity)
    where k.entity is not null and {fitting_entity}
      and (tg_op <> 'UPDATE' or old.{key} <> new.{key}
        or row({watched_before})::record operator(pg_catalog.*<>) row({watched_after})::record);
  elsif tg_op = 'INSERT' then
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select {id}, 'item', n.{key}::text, 'refresh' from new_rows n where {trusted} and {fitting_new};
  elsif tg_op = 'DELETE' then
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select {id}, 'item', o.{key}::text, 'refresh' from old_rows o where {trusted} and {fitting_old};
  elsif tg_op = 'UPDATE' then
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    -- a full join: the plan of an inner join would outlive the row counts it was made for; it gives each key once
    select {id}, 'item', coalesce(o.{key}, n.{key})::text, 'refresh'
    from old_rows o full join new_rows n on n.{key} = o.{key}
    where {trusted} and {fitting_either} and (o.{key} is null or n.{key} is null
      or row({watched_old})::record operator(pg_catalog.*<>) row({watched_new})::record);
  else
    insert into dynrec_data.task (recommender_id, action)
    select {id}, a.action from (values (1, 'scan_items'), (2, 'scan_users')) a (position, action)
    where a.action = 'scan_items' or {has_interactions} order by a.position;
  end if;
  if not found and not {trusted} then
    -- what may not be looked at now is looked for when it may
    insert into dynrec_data.task (recommender_id, action)
    select {id}, a.action from (values (1, 'scan_items'), (2, 'scan_users')) a (position, action)
    where (a.action = 'scan_items' or {has_interactions})
      and not exists (select from dynrec_data.task t where t.recommender_id = {id} and t.action = a.action)
    order by a.position;
  end if;
  if found and not pg_try_advisory_xact_lock_shared({wake_key}) then
    perform pg_notify('dynrec_wake', {item_hint});
  end if;
  return null;
end
$$
$body$ $template$;
comment on function dynrec._item_capture() is
  'Internal. Template of the trigger function on the item source: queues the keys of rows that came, went, moved or changed in a watched column.';

create or replace function dynrec._interaction_capture() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.capture_interactions_{id}() returns trigger
language plpgsql security definer
set search_path from current
as $$
begin
  if tg_op = 'INSERT' then
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select {id}, 'user', e.{user}::text, 'insert', e.{item}::text, {kind}, {value}, {occurred_at}
    from new_rows e where {trusted} and e.{user} is not null and e.{item} is not null and isfinite({occurred_at}) and {known_user};
  elsif tg_op = 'DELETE' then
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select {id}, 'user', e.{user}::text, 'delete', e.{item}::text, {kind}, {value}, {occurred_at}
    from old_rows e where {trusted} and e.{user} is not null and e.{item} is not null and isfinite({occurred_at}) and {known_user};
  elsif tg_op = 'UPDATE' then
    -- rows need no key here: what left and what came, as multisets
    with gone as (
      select e.{user}::text as entity, e.{item}::text as item_id, {kind} as kind, {value} as value, {occurred_at} as occurred_at from old_rows e
    ), came as (
      select e.{user}::text as entity, e.{item}::text as item_id, {kind} as kind, {value} as value, {occurred_at} as occurred_at from new_rows e
    )
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select {id}, 'user', d.entity, d.op, d.item_id, d.kind, d.value, d.occurred_at
    from (
      select 'delete' as op, g.* from (select * from gone except all select * from came) g
      union all
      select 'insert', c.* from (select * from came except all select * from gone) c
    ) d
    where {trusted} and d.entity is not null and d.item_id is not null and isfinite(d.occurred_at) and {known_entity};
  else
    insert into dynrec_data.task (recommender_id, action) values ({id}, 'scan_users'), ({id}, 'popularity');
  end if;
  if not found and not {trusted} then
    -- what may not be looked at now is looked for when it may
    insert into dynrec_data.task (recommender_id, action)
    select {id}, a from unnest(array['scan_users', 'popularity']) a
    where not exists (select from dynrec_data.task t where t.recommender_id = {id} and t.action = a);
  end if;
  if found and not pg_try_advisory_xact_lock_shared({wake_key}) then
    perform pg_notify('dynrec_wake', {user_hint});
  end if;
  return null;
end
$$
$body$ $template$;
comment on function dynrec._interaction_capture() is
  'Internal. Template of the trigger function on the interaction source: each interaction that came or went, with its payload, for read-time folding.';

create or replace function dynrec._uses_triggers(r dynrec_data.recommender) returns boolean
language sql stable
set search_path from current
as $$
  -- until the stream has begun for it, a recommender is kept up to date by triggers
  select case r.options ->> 'capture' when 'batch' then false
    when 'stream' then not exists (select from dynrec_data.stream_span s where s.recommender_id = r.id and s.ends_at is null)
    else true end
$$;
comment on function dynrec._uses_triggers(dynrec_data.recommender) is 'Internal. Whether the changes of a recommender''s sources are captured by triggers now.';

create or replace function dynrec._wanted_triggers(r dynrec_data.recommender)
returns table (relation regclass, trigger_name text, statement text)
language sql stable
set search_path from current
as $$
  -- statement triggers on a parent do not see writes that name a partition, so interactions have them on every leaf as well;
  -- items of a partitioned table use row triggers, which Postgres clones to partitions, also to those attached later
  with source as (
    select r.items as root, 'items' as role, p.relid::regclass as relation, p.isleaf, p.level = 0 as is_root, c.relkind = 'p' as partitioned
    from pg_class c, lateral pg_partition_tree(r.items) p where c.oid = r.items and c.relkind = 'p'
    union all
    select r.items, 'items', r.items, true, true, false from pg_class c where c.oid = r.items and c.relkind = 'r'
    union all
    select r.interactions, 'interactions', p.relid::regclass, p.isleaf, p.level = 0, true
    from pg_class c, lateral pg_partition_tree(r.interactions) p where c.oid = r.interactions and c.relkind = 'p'
    union all
    select r.interactions, 'interactions', r.interactions, true, true, false from pg_class c where c.oid = r.interactions and c.relkind = 'r'
  ), event as (
    select * from (values
      ('insert', 'referencing new table as new_rows'),
      ('update', 'referencing old table as old_rows new table as new_rows'),
      ('delete', 'referencing old table as old_rows'),
      ('truncate', '')) e (name, transition)
  )
  select s.relation, format('dynrec_%s_%s_%s', r.id, s.role, e.name),
    case when s.role = 'items' and s.partitioned and e.name <> 'truncate'
      then format('create trigger dynrec_%s_items_%s after %s on %s for each row execute function dynrec_data.capture_items_%s()',
        r.id, e.name, e.name, dynrec._qualified(s.relation), r.id)
      else format('create trigger dynrec_%s_%s_%s after %s on %s %s for each statement execute function dynrec_data.capture_%s_%s()',
        r.id, s.role, e.name, e.name, dynrec._qualified(s.relation), e.transition, s.role, r.id)
    end
  from source s cross join event e
  where dynrec._uses_triggers(r) and (s.is_root or (s.role = 'interactions') or (e.name = 'truncate'))
$$;
comment on function dynrec._wanted_triggers(dynrec_data.recommender) is
  'Internal. The triggers that a recommender needs on its sources, partitions included, with the statements that create them.';

create or replace function dynrec._missing_triggers(r dynrec_data.recommender)
returns table (relation regclass, trigger_name text, statement text)
language sql stable
set search_path from current
as $$
  select w.relation, w.trigger_name, w.statement
  from dynrec._wanted_triggers(r) w
  where not exists (
    select from pg_trigger t where t.tgrelid = w.relation and t.tgname = w.trigger_name and t.tgenabled in ('O', 'A'))
$$;
comment on function dynrec._missing_triggers(dynrec_data.recommender) is 'Internal. Wanted triggers that are absent or disabled.';

create or replace function dynrec._capture_triggers(recommender_id int) returns setof pg_trigger
language sql stable
set search_path from current
as $$
  -- by what depends on the function: there is no index of triggers by their function
  select t.* from pg_depend d join pg_trigger t on t.oid = d.objid
  where d.classid = 'pg_trigger'::regclass and d.refclassid = 'pg_proc'::regclass and t.tgparentid = 0
    and d.refobjid in (to_regprocedure(format('dynrec_data.capture_items_%s()', recommender_id)),
      to_regprocedure(format('dynrec_data.capture_interactions_%s()', recommender_id)))
$$;
comment on function dynrec._capture_triggers(int) is 'Internal. The triggers that call the capture functions of a recommender, on whatever table.';

create or replace function dynrec._stray_triggers(r dynrec_data.recommender)
returns table (relation regclass, trigger_name text)
language sql stable
set search_path from current
as $$
  select t.tgrelid::regclass, t.tgname
  from dynrec._capture_triggers(r.id) t
  where not exists (select from dynrec._wanted_triggers(r) w where w.relation = t.tgrelid and w.trigger_name = t.tgname)
$$;
comment on function dynrec._stray_triggers(dynrec_data.recommender) is
  'Internal. Triggers of a recommender on tables that are no longer part of its sources, such as detached partitions.';

create or replace function dynrec._install_triggers(r dynrec_data.recommender) returns int
language plpgsql
set search_path from current
set client_min_messages = 'warning'
as $$
declare
  wanted record;
  stray record;
  installed int := 0;
begin
  for stray in select * from dynrec._stray_triggers(r) loop
    execute format('drop trigger %I on %s', stray.trigger_name, dynrec._qualified(stray.relation));
  end loop;
  for wanted in select * from dynrec._missing_triggers(r) loop
    execute format('drop trigger if exists %I on %s', wanted.trigger_name, dynrec._qualified(wanted.relation));
    execute wanted.statement;
    installed := installed + 1;
  end loop;
  return installed;
end
$$;
comment on function dynrec._install_triggers(dynrec_data.recommender) is
  'Internal. Drops stray triggers, creates the missing ones and returns how many; waits for locks as long as its caller says.';

create or replace function dynrec._remove_triggers(recommender_id int) returns void
language plpgsql
set search_path from current
set lock_timeout = '10s'
as $$
declare
  present record;
begin
  for present in
    select t.tgrelid::regclass as relation, t.tgname from dynrec._capture_triggers(recommender_id) t
  loop
    execute format('drop trigger %I on %s', present.tgname, dynrec._qualified(present.relation));
  end loop;
end
$$;
comment on function dynrec._remove_triggers(int) is 'Internal. Drops every trigger of a recommender from its sources.';
