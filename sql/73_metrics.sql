-- Metrics: numbers for a monitoring system, cheap enough to be asked for every few seconds. What only workers know comes with their heartbeats.

create or replace function dynrec._metric_catalogue() returns table (name text, type text, help text)
language sql immutable
set search_path from current
as $$
  values
    ('dynrec_queue_changes', 'gauge', 'Changes that wait or are worked on, counted up to 100000. lane: live, backfill, alone (suspects tried singly), parked (backing off or given up).'),
    ('dynrec_oldest_change_age_seconds', 'gauge', 'Age of the change at the head of a lane.'),
    ('dynrec_tasks', 'gauge', 'Set-based work that waits: scans, audiences, popularity.'),
    ('dynrec_leases', 'gauge', 'Entities that workers have claimed.'),
    ('dynrec_leases_overdue', 'gauge', 'Leases past their deadline that nobody has ended yet.'),
    ('dynrec_leases_expired_total', 'counter', 'Leases that ran out: their worker died, hung or was too slow.'),
    ('dynrec_retrying', 'gauge', 'Entities that failed and are tried again.'),
    ('dynrec_retries_total', 'counter', 'Entities given back to be tried again.'),
    ('dynrec_dead_letters', 'gauge', 'Entities that were given up.'),
    ('dynrec_dead_letters_total', 'counter', 'Entities given up since the beginning.'),
    ('dynrec_commit_to_fresh_seconds', 'histogram', 'Time from the last change of an entity to the publish that used it. lane: live or backfill.'),
    ('dynrec_batches_total', 'counter', 'Batches that workers finished.'),
    ('dynrec_claimed_total', 'counter', 'Entities in these batches; divided by them, the batch size.'),
    ('dynrec_published_total', 'counter', 'Entities brought up to date.'),
    ('dynrec_encode_texts_total', 'counter', 'Texts that encoders computed.'),
    ('dynrec_encode_calls_total', 'counter', 'Calls of encoders; texts divided by calls is their batch size.'),
    ('dynrec_encode_seconds_total', 'counter', 'Time spent in encoders; texts divided by it is their throughput.'),
    ('dynrec_device_memory_bytes', 'gauge', 'Memory of the devices that workers compute on. state: allocated by the worker, used by all, total.'),
    ('dynrec_active_model_info', 'gauge', '1 for the model version that answers.'),
    ('dynrec_model_trained_timestamp_seconds', 'gauge', 'When the model version that answers was made.'),
    ('dynrec_paused', 'gauge', '1 where recomputing is paused.'),
    ('dynrec_processes', 'gauge', 'Processes alive in the last 30 seconds. role: dispatcher or worker.'),
    ('dynrec_reads_total', 'counter', 'Statements that call a reading function, of pg_stat_statements.'),
    ('dynrec_read_seconds_total', 'counter', 'Time that they took.'),
    ('dynrec_outbox_events', 'gauge', 'Vectors that others wait to be told of, counted up to 100000. state: waiting, failed (set aside until retry_failed).'),
    ('dynrec_outbox_age_seconds', 'gauge', 'How long the first of them has waited.'),
    ('dynrec_events_sent_total', 'counter', 'Events that dynrec publish has delivered.'),
    ('dynrec_replication_slot_lag_bytes', 'gauge', 'WAL that a replication slot named dynrec… holds back.'),
    ('dynrec_table_bytes', 'gauge', 'Size of a table with its indexes and partitions.'),
    ('dynrec_table_rows', 'gauge', 'About how many rows a table has, by the statistics.')
$$;
comment on function dynrec._metric_catalogue() is 'Internal. Every metric of the view dynrec.metrics: its name, its type as Prometheus has them, and what it says.';

create or replace function dynrec._queue_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable
set search_path from current
set enable_seqscan = off
as $$
  with place as (
    select r.id, k.kind, l.lane, jsonb_build_object('recommender', r.name, 'kind', k.kind, 'lane', l.name) as labels
    from dynrec_data.recommender r cross join (values ('item'), ('derived'), ('user')) k (kind)
    cross join (values (0::smallint, 'live'), (1::smallint, 'backfill'), (8::smallint, 'alone'), (9::smallint, 'parked')) l (lane, name)
  ), depth as (
    select p.labels, p.lane, n.changes from place p cross join lateral (
      select count(*) as changes from (
        select from dynrec_data.change c where c.recommender_id = p.id and c.kind = p.kind and c.lane = p.lane limit 100000) capped) n
  )
  select 'dynrec_queue_changes', d.labels, d.changes from depth d where d.changes > 0 or d.lane = 0
  union all
  select 'dynrec_oldest_change_age_seconds', p.labels, dynrec._age(clock_timestamp(), h.captured_at) from place p cross join lateral (
    select c.captured_at from dynrec_data.change c where c.recommender_id = p.id and c.kind = p.kind and c.lane = p.lane order by c.id limit 1) h
$$;
comment on function dynrec._queue_metrics() is 'Internal. Metrics of the changes. By the index of the queue''s heads: what a lane has beyond 100000 changes costs nothing.';

create or replace function dynrec._work_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable
set search_path from current
as $$
  select 'dynrec_tasks', jsonb_build_object('recommender', r.name, 'action', t.action), count(*)
  from dynrec_data.task t join dynrec_data.recommender r on r.id = t.recommender_id group by r.name, t.action
  union all
  select m.name, m.labels, m.value from (
    select jsonb_build_object('recommender', r.name, 'kind', l.kind) as labels, count(*) as leases, count(*) filter (where l.deadline < clock_timestamp()) as overdue
    from dynrec_data.lease l join dynrec_data.recommender r on r.id = l.recommender_id group by r.name, l.kind
  ) n cross join lateral (values ('dynrec_leases', n.labels, n.leases), ('dynrec_leases_overdue', n.labels, n.overdue)) m (name, labels, value)
  union all
  select 'dynrec_retrying', jsonb_build_object('recommender', r.name, 'kind', t.kind), count(*)
  from dynrec_data.retry t join dynrec_data.recommender r on r.id = t.recommender_id group by r.name, t.kind
  union all
  select 'dynrec_dead_letters', jsonb_build_object('recommender', r.name, 'kind', k.kind),
    (select count(*) from dynrec_data.dead_letter d where d.recommender_id = r.id and d.kind = k.kind)
  from dynrec_data.recommender r cross join (values ('item'), ('derived'), ('user')) k (kind)
  union all
  select 'dynrec_' || case when c.name like 'commit\_to\_fresh\_seconds%' then c.name else c.name || '_total' end,
    c.labels || case when r.name is null then '{}' else jsonb_build_object('recommender', r.name) end, c.value
  from dynrec_data.counter c left join dynrec_data.recommender r on r.id = c.recommender_id
$$;
comment on function dynrec._work_metrics() is 'Internal. Metrics of tasks, leases and failures, and the counters.';

create or replace function dynrec._outbox_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable
set search_path from current
set enable_seqscan = off
as $$
  with place as (
    select r.id, k.kind, jsonb_build_object('recommender', r.name, 'kind', k.kind) as labels
    from dynrec_data.recommender r cross join (values ('item'), ('user')) k (kind) where r.options ->> 'publish' is not null
  )
  select 'dynrec_outbox_events', p.labels || '{"state": "waiting"}', n.events from place p cross join lateral (
    select count(*) as events from (
      select from dynrec_data.outbox o where o.recommender_id = p.id and o.kind = p.kind and o.error is null limit 100000) capped) n
  union all
  select 'dynrec_outbox_events', p.labels || '{"state": "failed"}', (
    select count(*) from dynrec_data.outbox o where o.recommender_id = p.id and o.kind = p.kind and o.error is not null) from place p
  union all
  select 'dynrec_outbox_age_seconds', p.labels, dynrec._age(clock_timestamp(), h.written_at) from place p cross join lateral (
    select o.written_at from dynrec_data.outbox o where o.recommender_id = p.id and o.kind = p.kind and o.error is null order by o.id limit 1) h
$$;
comment on function dynrec._outbox_metrics() is 'Internal. Metrics of what others wait to be told of; none of recommenders that tell nobody.';

create or replace function dynrec._system_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable
set search_path from current
as $$
  select m.name, m.labels, m.value from dynrec_data.recommender r join dynrec_data.model_version v on v.id = r.active_model_id cross join lateral (values
    ('dynrec_active_model_info', jsonb_build_object('recommender', r.name, 'model_version', v.id, 'kind', v.kind, 'encoder', coalesce(v.encoder, 'adopted')), 1),
    ('dynrec_model_trained_timestamp_seconds', jsonb_build_object('recommender', r.name), extract(epoch from v.created_at)),
    ('dynrec_paused', jsonb_build_object('recommender', r.name), r.paused::int)) m (name, labels, value)
  union all
  select 'dynrec_processes', jsonb_build_object('role', p.role),
    (select count(*) from dynrec_data.heartbeat h where h.role = p.role and h.beat_at > now() - interval '30 seconds')
  from (values ('dispatcher'), ('worker')) p (role)
  union all
  select 'dynrec_device_memory_bytes', jsonb_build_object('process', h.process, 'device', d.key, 'state', s.key), s.value::double precision
  from dynrec_data.heartbeat h cross join lateral jsonb_each(h.details -> 'device_memory') d cross join lateral jsonb_each_text(d.value) s
  where h.beat_at > now() - interval '30 seconds'
  union all
  select 'dynrec_replication_slot_lag_bytes', jsonb_build_object('slot', s.slot_name, 'active', dynrec._is_slot_read(s.slot_name, s.active)), dynrec._wal_held_back(s.restart_lsn)
  from pg_replication_slots s where s.slot_name like 'dynrec%' and s.database = current_database()
$$;
comment on function dynrec._system_metrics() is 'Internal. Metrics of models, processes and replication slots.';

create or replace function dynrec._table_metrics() returns table (name text, labels jsonb, value double precision)
language sql stable
set search_path from current
as $$
  select m.name, jsonb_build_object('table', t.name), m.value from (
    select coalesce(p.relname, c.relname) as name, sum(pg_total_relation_size(c.oid)) as bytes, sum(pg_stat_get_live_tuples(c.oid)) as live
    from pg_class c left join pg_inherits i on i.inhrelid = c.oid left join pg_class p on p.oid = i.inhparent
    where c.relnamespace = 'dynrec_data'::regnamespace and c.relkind in ('r', 'p') group by 1
  ) t cross join lateral (values ('dynrec_table_bytes', t.bytes), ('dynrec_table_rows', t.live)) m (name, value)
$$;
comment on function dynrec._table_metrics() is 'Internal. Metrics of the tables, partitions added up; the number of rows is that of the statistics.';

create or replace function dynrec._read_metrics() returns table (name text, labels jsonb, value double precision)
language plpgsql stable
set search_path from current
as $$
declare
  place name := (select n.nspname from pg_extension x join pg_namespace n on n.oid = x.extnamespace where x.extname = 'pg_stat_statements');
begin
  if place is null then
    return;
  end if;
  return query execute format($query$
    select m.name, jsonb_build_object('function', f.name), m.value
    from (
      select (regexp_match(s.query, 'dynrec\.(recommend|recommend_for_items|similar_items|trending|search|explain)\s*\('))[1] as name,
        sum(s.calls)::double precision as calls, sum(s.total_exec_time) / 1000 as seconds
      from %I.pg_stat_statements s
      where s.dbid = (select d.oid from pg_database d where d.datname = current_database()) and s.toplevel
        and s.query !~* '^\s*(alter|comment|create|do|drop|grant|revoke)\M'  -- they name functions, too
      group by 1
    ) f cross join lateral (values ('dynrec_reads_total', f.calls), ('dynrec_read_seconds_total', f.seconds)) m (name, value)
    where f.name is not null
    $query$, place);
exception when object_not_in_prerequisite_state then  -- the extension without its library in shared_preload_libraries
  return;
end
$$;
comment on function dynrec._read_metrics() is
  'Internal. Metrics of the reading functions by pg_stat_statements; none where it is not installed. Without pg_read_all_stats, of the caller''s own statements.';

create or replace view dynrec.metrics with (security_invoker = true) as
select * from dynrec._queue_metrics()
union all select * from dynrec._work_metrics()
union all select * from dynrec._outbox_metrics()
union all select * from dynrec._system_metrics()
union all select * from dynrec._table_metrics()
union all select * from dynrec._read_metrics();
comment on view dynrec.metrics is
  'Numbers for a monitoring system, as `dynrec metrics` exports them: name and labels as of Prometheus, value. The names are those in docs/observability.md. '
  'A caller whom policies limit gets what they show.';
