-- History partitions, retention and heartbeats.

create or replace function dynrec._beat(process text, role text, details jsonb default '{}') returns void
language sql security definer
set search_path from current
as $$
  with before as materialized (
    -- another run under the same name, such as that of a container, counts from nothing again
    select h.details from dynrec_data.heartbeat h
    where h.process = _beat.process and h.details ->> 'run' is not distinct from _beat.details ->> 'run' for update
  ), beat as (
    insert into dynrec_data.heartbeat as h (process, role, details) values (_beat.process, _beat.role, _beat.details)
    on conflict on constraint heartbeat_pkey do update set beat_at = clock_timestamp(), details = excluded.details
  ), counted as (
    select coalesce(r.id, 0) as recommender_id, n.name, n.labels, n.value - coalesce(b.value, 0) as value, b.value is null as is_new
    from jsonb_to_recordset(_beat.details -> 'counters') as n (recommender text, name text, labels jsonb, value double precision)
    left join dynrec_data.recommender r on r.name = n.recommender
    left join (
      select o.* from before cross join lateral
        jsonb_to_recordset(before.details -> 'counters') as o (recommender text, name text, labels jsonb, value double precision)
    ) b on b.name = n.name and b.labels = n.labels and b.recommender is not distinct from n.recommender
    where n.recommender is null or r.id is not null
  )
  -- in key order, so that two beats never wait for each other in a circle
  insert into dynrec_data.counter as c (recommender_id, name, labels, value)
  select recommender_id, name, labels, value from counted where value > 0 or is_new order by 1, 2, 3
  on conflict on constraint counter_pkey do update set value = c.value + excluded.value
$$;
comment on function dynrec._beat(text, text, jsonb) is
  'Internal. A process says that it is alive. details: run (changes when it starts again) and counters, what this run has done so far; what that is '
  'more than at the last beat is added to the totals, so that a beat may be repeated.';

create or replace function dynrec._last_beat(of_processes text) returns table (age interval, details jsonb)
language sql stable security definer
set search_path from current
as $$
  select clock_timestamp() - h.beat_at, h.details from dynrec_data.heartbeat h where starts_with(h.process, of_processes)
  order by h.beat_at desc limit 1
$$;
comment on function dynrec._last_beat(text) is 'Internal. When one of the processes whose names begin so has last said that it is alive, and what else it said.';

create or replace function dynrec._make_history_partition(parent text, part text, ends_at text, beginning timestamptz, ending timestamptz) returns void
language plpgsql
set search_path from current
as $$
begin
  execute format('create table dynrec_data.%I (like dynrec_data.%I including defaults including constraints including storage)', part, parent);
  -- rows that came while the partition was missing; the lock first, or one that comes now would make the attach fail
  execute format('lock table dynrec_data.%I in access exclusive mode', parent || '_default');
  execute format('with late as (delete from dynrec_data.%I where %I >= $1 and %2$I < $2 returning *) insert into dynrec_data.%I select * from late',
    parent || '_default', ends_at, part) using beginning, ending;
  execute format('alter table dynrec_data.%I attach partition dynrec_data.%I for values from (%L) to (%L)', parent, part, beginning, ending);
end
$$;
comment on function dynrec._make_history_partition(text, text, text, timestamptz, timestamptz) is
  'Internal. A partition of a table that is kept by time, for a span of the column that it is partitioned by, with the rows of the default partition that belong there.';

create or replace function dynrec._ensure_history_partitions(months_ahead int default 3) returns void
language plpgsql
set search_path from current
set lock_timeout = '2s'
as $$
declare
  parent text;
  ends_at text;
  month timestamptz;
  part text;
begin
  for parent, ends_at in
    values ('item_content_history', 'valid_to'), ('item_vector_history', 'valid_to'), ('user_vector_history', 'valid_to'), ('item_popularity_history', 'replaced_at'),
      ('impression', 'shown_at')
  loop
    for month in
      select date_add(date_trunc('month', now(), 'UTC'), make_interval(months => m), 'UTC') from generate_series(0, months_ahead) m
    loop
      part := format('%s_%s', parent, to_char(month at time zone 'UTC', 'YYYY_MM'));
      continue when to_regclass('dynrec_data.' || part) is not null;
      perform pg_advisory_xact_lock(hashtext('dynrec.partitions'), 0);
      -- somebody else may have made it while we waited; to_regclass could answer from a cache that has not heard of it
      continue when exists (select from pg_class c where c.relname = part and c.relnamespace = 'dynrec_data'::regnamespace);
      perform dynrec._make_history_partition(parent, part, ends_at, month, date_add(month, '1 month', 'UTC'));
    end loop;
  end loop;
end
$$;
comment on function dynrec._ensure_history_partitions(int) is 'Internal. Monthly partitions of the history tables and of impressions, made ahead, so that the default partitions stay empty.';

create or replace function dynrec._forget_old_history() returns bigint
language plpgsql
set search_path from current
set plan_cache_mode = 'force_custom_plan'  -- how much is due decides whether to look at all of it
as $$
declare
  r record;
  forgotten bigint := 0;
  rows_now bigint;
begin
  for r in
    select x.id, m.id as model_id, m.state = 'retired' as is_retired, now() - (x.options ->> 'retention')::interval as cut_off, x.options ->> 'publish' is not null as publishes
    from dynrec_data.recommender x join dynrec_data.model_version m on m.recommender_id = x.id
  loop
    delete from dynrec_data.item_vector_history h where h.model_id = r.model_id and (r.is_retired or h.valid_to < r.cut_off);
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
    delete from dynrec_data.user_vector_history h where h.model_id = r.model_id and (r.is_retired or h.valid_to < r.cut_off);
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
    delete from dynrec_data.outbox o where o.model_id = r.model_id and (o.written_at < r.cut_off or not r.publishes);
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
    delete from dynrec_data.item_content_history h where h.recommender_id = r.id and h.valid_to < r.cut_off;
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
    delete from dynrec_data.item_popularity_history h where h.recommender_id = r.id and h.replaced_at < r.cut_off;
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
    delete from dynrec_data.measurement m where m.recommender_id = r.id and m.measured_at < r.cut_off;
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
    delete from dynrec_data.impression i where i.recommender_id = r.id and i.shown_at < r.cut_off;
    get diagnostics rows_now = row_count; forgotten := forgotten + rows_now;
  end loop;
  return forgotten;
end
$$;
comment on function dynrec._forget_old_history() is 'Internal. Deletes closed versions that ended, measurements that were made, impressions that were shown, and what others wait to be told, before each recommender''s retention, and all versions of retired models.';

create or replace function dynrec._derive_again(recommender_id int) returns void
language sql
set search_path from current
as $$
  insert into dynrec_data.task (recommender_id, action)
  select _derive_again.recommender_id, 'scan_derived'
  where not exists (select from dynrec_data.task t where t.recommender_id = _derive_again.recommender_id and t.action = 'scan_derived')
$$;
comment on function dynrec._derive_again(int) is 'Internal. Queues all items for the models that read features which move with time.';

create or replace function dynrec._maintain() returns void
language plpgsql security definer
set search_path from current
as $$
declare
  moving int[];
begin
  if not pg_try_advisory_xact_lock(hashtext('dynrec.maintain'), 0) then
    return;
  end if;
  perform dynrec._ensure_history_partitions();
  perform dynrec._forget_old_history();
  delete from dynrec_data.heartbeat h where h.beat_at < now() - interval '1 day';
  -- features that move with time: all items are derived again once in a while
  with due as (
    update dynrec_data.model_version m set refreshed_at = now()
    from dynrec_data.recommender r
    where r.id = m.recommender_id and m.kind = 'learned' and m.state in ('shadow', 'active', 'standby')
      and m.refreshed_at < now() - (r.options ->> 'item_refresh')::interval
    returning m.recommender_id
  )
  select array_agg(distinct d.recommender_id) into moving from due d;
  perform dynrec._derive_again(m) from unnest(moving) m;
  insert into dynrec_data.task (recommender_id, action)
  select r.id, 'popularity' from dynrec_data.recommender r
  where dynrec._is_private(r) and r.interactions is not null and coalesce(r.popularity_released_at < now() - interval '1 day', false)
    and not exists (select from dynrec_data.task t where t.recommender_id = r.id and t.action = 'popularity');
  perform dynrec._bound_stream();
  perform dynrec.stage_model(r.name, options => '{"promote": true}', continue_active => a.kind = 'learned')
  from dynrec_data.recommender r join dynrec_data.model_version a on a.id = r.active_model_id
  where r.interactions is not null and not r.paused and not exists (
    select from dynrec_data.model_version m
    where m.recommender_id = r.id and m.kind = 'learned' and m.created_at > now() - (r.options ->> 'train_every')::interval)
    and r.options ->> 'train_every' is not null;
end
$$;
comment on function dynrec._maintain() is 'Internal. History partitions, retention, old heartbeats, features that move with time, releases of private popularity, scheduled training. Cheap when there is nothing to do; run every few minutes.';
