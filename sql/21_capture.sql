-- Capture: what the triggers on the application's tables append to dynrec_data.change, and when they wake the dispatcher.
--
-- They run as the owner of dynrec at each write, whoever owns the table by then, and nothing of that owner's may run in them: no cast
-- and no operator of a type that a column may have got since. So keys and kinds are what output functions give, rows are compared
-- image by image, and times and numbers are looked at only while they are of a type of Postgres's own. The names in {braces}: 20_render.sql.
--
-- Bulk load: while a transaction has set dynrec.bulk_load, a statement of a thousand rows or more queues scans instead of its rows.

create or replace function dynrec._load_capture() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.capture_load_{id}(actions text[], hint text) returns void
language plpgsql
set search_path from current
as $$
begin
  -- once in a transaction: what runs after its commit sees all of it
  insert into dynrec_data.task (recommender_id, action)
  select {id}, a.action from unnest(actions) with ordinality a (action, position)
  where not exists (
    select from dynrec_data.task t where t.recommender_id = {id} and t.action = a.action and t.xmin = pg_current_xact_id()::xid)
  order by a.position;
  if found and not pg_try_advisory_xact_lock_shared({wake_key}) then
    perform pg_notify('dynrec_wake', hint);
  end if;
end
$$
$body$ $template$;
comment on function dynrec._load_capture() is
  'Internal. Template: queues scans in the place of rows, for truncate and for bulk loads.';

create or replace function dynrec._item_capture() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.capture_items_{id}() returns trigger
language plpgsql security definer
set search_path from current
as $$
declare
  key_before text;
  key_after text;
  differs boolean;
  are_many boolean;
begin
  if tg_level = 'STATEMENT' and current_setting('dynrec.bulk_load', true) = 'on' then
    -- few rows are captured one by one: where the setting was left on, nothing is lost by it
    if tg_op = 'DELETE' then
      are_many := exists (select from old_rows offset 999);
    elsif tg_op <> 'TRUNCATE' then
      are_many := exists (select from new_rows offset 999);
    end if;
    if are_many then
      perform dynrec_data.capture_load_{id}({item_scans}, {item_hint});
      return null;
    end if;
  end if;
  if tg_op = 'UPDATE' and tg_level = 'STATEMENT' then
    -- most updates are of one row: that is cheaper than a join
    select {old_entity}, {new_entity}, row({watched_old})::record operator(pg_catalog.*<>) row({watched_new})::record, exists (select from new_rows offset 1)
    into key_before, key_after, differs, are_many
    from old_rows o cross join new_rows n limit 1;
    if are_many or key_before <> key_after then
      insert into dynrec_data.change (recommender_id, kind, entity, op)
      -- a full join: the plan of an inner join would outlive the row counts it was made for; it gives each key once
      select {id}, 'item', case when o.{key} is not null then {old_entity} else {new_entity} end, 'refresh'
      from old_rows o full join new_rows n on {new_entity} collate "C" = {old_entity} collate "C"
      where {fitting_old} and {fitting_new} and (o.{key} is null or n.{key} is null
        or row({watched_old})::record operator(pg_catalog.*<>) row({watched_new})::record);
    elsif differs and {fitting_after} then
      insert into dynrec_data.change (recommender_id, kind, entity, op) values ({id}, 'item', key_after, 'refresh');
    else
      return null;
    end if;
  elsif tg_op = 'INSERT' and tg_level = 'STATEMENT' then
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select {id}, 'item', {new_entity}, 'refresh' from new_rows n where {fitting_new};
  elsif tg_op = 'DELETE' and tg_level = 'STATEMENT' then
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select {id}, 'item', {old_entity}, 'refresh' from old_rows o where {fitting_old};
  elsif tg_op = 'TRUNCATE' then
    perform dynrec_data.capture_load_{id}({item_scans}, {item_hint});
    return null;
  else
    -- of a partitioned table, whose key is what it is partitioned by and keeps its type
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select distinct {id}, 'item', k.entity, 'refresh'
    from (values (case when tg_op <> 'INSERT' then old.{key}::text end), (case when tg_op <> 'DELETE' then new.{key}::text end)) as k (entity)
    where k.entity is not null and {fitting_entity}
      and (tg_op <> 'UPDATE' or old.{key} <> new.{key}
        or row({watched_before})::record operator(pg_catalog.*<>) row({watched_after})::record);
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
declare
  are_many boolean;
begin
  if current_setting('dynrec.bulk_load', true) = 'on' then
    -- few rows are captured one by one: where the setting was left on, nothing is lost by it
    if tg_op = 'DELETE' then
      are_many := exists (select from old_rows offset 999);
    elsif tg_op <> 'TRUNCATE' then
      are_many := exists (select from new_rows offset 999);
    end if;
    if are_many then
      perform dynrec_data.capture_load_{id}('{scan_users,popularity}', {user_hint});
      return null;
    end if;
  end if;
  if tg_op = 'INSERT' then
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select {id}, 'user', {event_user}, 'insert', {event_item}, {event_kind}, {event_value}, {event_time}
    from new_rows e where e.{user} is not null and e.{item} is not null and isfinite({event_time}) and {known_event};
  elsif tg_op = 'DELETE' then
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select {id}, 'user', {event_user}, 'delete', {event_item}, {event_kind}, {event_value}, {event_time}
    from old_rows e where e.{user} is not null and e.{item} is not null and isfinite({event_time}) and {known_event};
  elsif tg_op = 'UPDATE' then
    -- rows need no key here: what left and what came, as multisets
    with gone as (
      select {event_user} as entity, {event_item} as item_id, {event_kind} as kind, {event_value} as value, {event_time} as occurred_at from old_rows e
      where e.{user} is not null and e.{item} is not null
    ), came as (
      select {event_user} as entity, {event_item} as item_id, {event_kind} as kind, {event_value} as value, {event_time} as occurred_at from new_rows e
      where e.{user} is not null and e.{item} is not null
    )
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select {id}, 'user', d.entity, d.op, d.item_id, d.kind, d.value, d.occurred_at
    from (
      select 'delete' as op, g.* from (select * from gone except all select * from came) g
      union all
      select 'insert', c.* from (select * from came except all select * from gone) c
    ) d
    where isfinite(d.occurred_at) and {known_entity};
  else
    perform dynrec_data.capture_load_{id}('{scan_users,popularity}', {user_hint});
    return null;
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
