-- The doctor: what is wrong, and what to do about it.

create or replace function dynrec._ailments_of_sources() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select r.name, 'error', format('trigger %s is missing or disabled on %s: its changes are lost', t.trigger_name, t.relation),
    format('select dynrec.alter_recommender(%L)', r.name)
  from dynrec_data.recommender r cross join lateral dynrec._missing_triggers(r) t
  union all
  select r.name, 'error', format('trigger %s is on %s, which is not part of the source: its changes are captured all the same', t.trigger_name, t.relation),
    format('select dynrec.alter_recommender(%L)', r.name)
  from dynrec_data.recommender r cross join lateral dynrec._stray_triggers(r) t
  union all
  select r.name, 'error', format('the table with oid %s was dropped', s.relation::oid), format('select dynrec.drop_recommender(%L)', r.name)
  from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (relation)
  where s.relation is not null and not exists (select from pg_class c where c.oid = s.relation)
  union all
  select r.name, 'error', format('column %s of %s is gone: writes to the table fail', w.name, w.relation),
    'restore its name, or drop the recommender and declare it anew'
  from dynrec_data.recommender r cross join lateral (
    select r.items as relation, unnest(r.text_columns || r.numeric_columns || r.categorical_columns || r.vector_column || r.item_key) as name
    union all
    select r.interactions, unnest(array[r.user_column, r.item_column, r.time_column, r.kind_column, r.value_column])) w
  where w.name is not null and exists (select from pg_class c where c.oid = w.relation)
    and not exists (select from pg_attribute a where a.attrelid = w.relation and a.attname = w.name and not a.attisdropped)
  union all
  select r.name, 'error', format('%s was renamed: workers read it by its old name', s.relation), format('select dynrec.alter_recommender(%L)', r.name)
  from dynrec_data.recommender r
  cross join lateral (values (r.items, 'source_keys'), (r.interactions, 'interactions_all')) s (relation, reader)
  join pg_proc p on p.proname = format('%s_%s', s.reader, r.id) and p.pronamespace = 'dynrec_data'::regnamespace
  where position(dynrec._qualified(s.relation) in p.prosrc) = 0
  union all
  select r.name, 'warning', format('no index on %s begins with %s: reading a user or an item scans the table', r.interactions, c.name),
    format('create index on %s (%I)', r.interactions, c.name)
  from dynrec_data.recommender r cross join lateral (values (r.user_column), (r.item_column)) c (name)
  where r.interactions is not null and not dynrec._has_index(r.interactions, c.name)
$$;
comment on function dynrec._ailments_of_sources() is 'Internal. Findings about triggers, columns and indexes of the application''s tables.';

create or replace function dynrec._wal_held_back(since pg_lsn) returns double precision
language sql stable
set search_path from current
as $$
  select pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, since)::double precision
$$;
comment on function dynrec._wal_held_back(pg_lsn) is 'Internal. Bytes of WAL since a place in it.';

create or replace function dynrec._ailments_of_processes() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  with known as (
    select h.process, h.role, h.beat_at, h.details, h.beat_at > now() - interval '30 seconds' as is_heard
    from dynrec_data.heartbeat h where not coalesce((h.details ->> 'ended')::boolean, false)
  )
  select k.role, 'warning', format('process %s has not been heard of since %s: it was killed, or hangs', k.process, k.beat_at),
    'start it again; what it had leased is done by others when the lease has run out'
  from known k where not k.is_heard and k.beat_at > now() - interval '15 minutes'
  union all
  select k.role, 'error', format('process %s, version %s, was made for another state of the functions than this database has', k.process, k.details ->> 'version'),
    'dynrec migrate, if the process is the newer one; install the version of the database where it runs, if it is the older one'
  from known k join dynrec_data.code c on k.details ->> 'code' <> c.hash where k.is_heard
  union all
  select 'worker', 'warning', format('mixed models: workers make the vectors of encoder %s in different ways: %s', m.encoder, string_agg(m.workers, '; ' order by m.workers)),
    'set DYNREC_PRECISION, and install the same model, alike for all of them; then select dynrec.refresh(…)'
  from (
    select e.key as encoder, format('%s (%s)', e.value, string_agg(k.process, ', ' order by k.process)) as workers
    from known k cross join lateral jsonb_each_text(k.details -> 'models') e where k.is_heard group by e.key, e.value
  ) m group by m.encoder having count(*) > 1
  union all
  select r.name, 'error', format('%s leases ran out at %s and nobody ends them', count(*), min(l.deadline)),
    'is a dispatcher running, and able to reach the database? its log says what it waits for'
  from dynrec_data.lease l join dynrec_data.recommender r on r.id = l.recommender_id
  where l.deadline < now() - interval '1 minute' group by r.name
$$;
comment on function dynrec._ailments_of_processes() is 'Internal. Findings about dispatchers and workers: those that vanished, are of another version, or disagree; leases that nobody ends.';

create or replace function dynrec._ailments_of_models() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select m.recommender, 'warning', format('model version %s has %s items and no index', m.model_version, m.items), 'is the maintenance queue served? dynrec worker --queues maintenance'
  from dynrec.model_versions m where not m.indexed and m.items > 1000
  union all
  select r.name, 'warning', format('mixed models: version %s answers with vectors of %s items, version %s has %s', m.model_version, m.items, c.model_version, c.items),
    format('select dynrec.refresh(%L)', r.name)
  from dynrec_data.recommender r join dynrec.model_versions m on m.model_version = r.active_model_id join dynrec.model_versions c on c.model_version = r.content_model_id
  where r.active_model_id <> r.content_model_id and m.items <> c.items
    and not exists (select from dynrec_data.change x where x.recommender_id = r.id and x.kind in ('item', 'derived'))
    and not exists (select from dynrec_data.task t where t.recommender_id = r.id)
  union all
  select r.name, 'warning', format('index %s is invalid: building it was interrupted', i.indexrelid::regclass),
    case when n.nspname = 'dynrec_data' then 'is the maintenance queue served? it builds the index anew: dynrec worker --queues maintenance'
      else format('reindex index concurrently %s', i.indexrelid::regclass) end
  from pg_index i join pg_class x on x.oid = i.indexrelid join pg_namespace n on n.oid = x.relnamespace
  left join dynrec_data.model_version m on n.nspname = 'dynrec_data' and starts_with(x.relname, dynrec._index_name(m.id, 'full'))
  join dynrec_data.recommender r on r.id = m.recommender_id or i.indrelid in (r.items::oid, r.interactions::oid)
  where not i.indisvalid and not dynrec._is_worked_on(i.indrelid)
  union all
  select r.name, 'warning', format('the vector index of model version %s could not be built, %s times in a row', v.model_id, v.attempts),
    'the log of the maintenance worker says why; it tries again, at the latest every hour or after three times the time that it took'
  from dynrec_data.vector_index v join dynrec_data.model_version m on m.id = v.model_id join dynrec_data.recommender r on r.id = m.recommender_id
  where v.attempts > 2
  union all
  select r.name, 'warning', format('the vector index of model version %s needs %s to be built in memory and had %s',
      v.model_id, pg_size_pretty(n.needed::bigint), pg_size_pretty(v.memory)),
    format('several times faster: alter role … set maintenance_work_mem = ''%sMB'', of the role of the maintenance worker, if the server has as much', ceil(1.1 * n.needed / 1048576))
  from dynrec_data.vector_index v join dynrec_data.model_version m on m.id = v.model_id join dynrec_data.recommender r on r.id = m.recommender_id
  join pg_stat_all_tables s on s.schemaname = 'dynrec_data' and s.relname = format('item_vector_%s', m.id)
  cross join lateral (select dynrec._index_memory(s.n_live_tup, m.dimension) as needed) n
  where n.needed > v.memory
  union all
  select r.name, 'info', format('index %s has not been used since %s', s.indexrelname, greatest(a.since, d.stats_reset)),
    'nobody reads, or enable_indexscan is off, or random_page_cost is too high for this storage: compare dynrec.index_recall'
  from dynrec_data.recommender r
  join dynrec_data.model_version m on m.id = r.active_model_id
  join pg_stat_all_indexes s on s.schemaname = 'dynrec_data' and s.indexrelname = dynrec._index_name(m.id, m.vector_index) and s.idx_scan = 0
  cross join lateral (select max(v.activated_at) as since from dynrec_data.model_activation v where v.recommender_id = r.id) a
  cross join lateral (select b.stats_reset from pg_stat_database b where b.datname = current_database()) d
  where greatest(a.since, d.stats_reset) < now() - interval '7 days'
$$;
comment on function dynrec._ailments_of_models() is 'Internal. Findings about model versions and indexes: missing, invalid or unused ones, and vectors that are missing for a part of the items.';

create or replace function dynrec._ailments_of_settings() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select 'server', w.severity, w.finding, w.remedy || format('; where it is meant so, add %s to the setting dynrec.accepted_settings', w.setting)
  from (values
    ('fsync', current_setting('fsync') = 'off', 'error', 'fsync is off: a crash of the machine destroys the database', 'set it to on'),
    ('full_page_writes', current_setting('full_page_writes') = 'off', 'error', 'full_page_writes is off: a crash of the machine can damage tables', 'set it to on'),
    ('autovacuum', current_setting('autovacuum') = 'off' or current_setting('track_counts') = 'off', 'warning',
      'autovacuum does not run: the queue grows and slows down', 'set autovacuum and track_counts to on'),
    ('shared_buffers', pg_size_bytes(current_setting('shared_buffers')) < pg_size_bytes('128MB'), 'warning',
      format('shared_buffers is %s: the vector index does not fit', current_setting('shared_buffers')), 'a quarter of the memory is usual'),
    ('max_connections', (select count(*) from pg_stat_activity a where a.backend_type = 'client backend') > 0.8 * current_setting('max_connections')::int, 'warning',
      format('more than four fifths of max_connections (%s) are in use', current_setting('max_connections')), 'raise it, or put a pooler before the application')
  ) w (setting, is_so, severity, finding, remedy)
  where w.is_so and w.setting <> all (string_to_array(replace(coalesce(current_setting('dynrec.accepted_settings', true), ''), ' ', ''), ','))
  union all
  select 'server', case s.wal_status when 'lost' then 'error' else 'warning' end,
    case s.wal_status when 'lost' then format('slot %s is lost: what its reader has not read is gone', s.slot_name)
      else format('slot %s holds back %s of WAL, and %s', s.slot_name, pg_size_pretty(dynrec._wal_held_back(s.restart_lsn)::bigint),
        case when dynrec._is_slot_read(s.slot_name, s.active) then 'its reader is slow' else 'nobody reads it' end) end,
    format('start its reader; if it is not coming back: select pg_drop_replication_slot(%L)', s.slot_name)
  from pg_replication_slots s
  where s.wal_status = 'lost' or dynrec._wal_held_back(s.restart_lsn) > pg_size_bytes(current_setting('max_wal_size'))
  union all
  select 'server', 'info', format('pgvector is of version %s here, and the server has %s', x.extversion, v.default_version), 'alter extension vector update'
  from pg_extension x join pg_available_extensions v on v.name = x.extname where x.extname = 'vector' and x.extversion <> v.default_version
$$;
comment on function dynrec._ailments_of_settings() is 'Internal. Findings about settings of the server, replication slots and the version of pgvector.';

create or replace function dynrec._ailments_of_work() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select 'dispatcher', 'error', 'no dispatcher has been alive for 30 seconds', 'start one: dynrec dispatcher (or dynrec up)'
  where not exists (select from dynrec_data.heartbeat h where h.role = 'dispatcher' and h.beat_at > now() - interval '30 seconds')
  union all
  select 'worker', 'error', 'no worker has been alive for 30 seconds', 'start one: dynrec worker (or dynrec up)'
  where not exists (select from dynrec_data.heartbeat h where h.role = 'worker' and h.beat_at > now() - interval '30 seconds')
  union all
  select r.name, 'warning', format('%s dead letters, the last: %s', count(*), max(d.error)), format('select dynrec.retry_failed(%L)', r.name)
  from dynrec_data.dead_letter d join dynrec_data.recommender r on r.id = d.recommender_id group by r.name
  union all
  select r.name, 'warning', format('a change has waited since %s', min(c.captured_at)), 'add workers, or look at dynrec.failures'
  from dynrec_data.change c join dynrec_data.recommender r on r.id = c.recommender_id
  where c.lane < 9 and not r.paused group by r.name having min(c.captured_at) < now() - interval '5 minutes'
  union all
  select r.name, 'info', 'paused', format('select dynrec.resume(%L)', r.name) from dynrec_data.recommender r where r.paused
$$;
comment on function dynrec._ailments_of_work() is 'Internal. Findings about processes and the queue.';

create or replace function dynrec._ailments_of_capture() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  with streamed as (
    select r.* from dynrec_data.recommender r where r.options ->> 'capture' = 'stream'
  ), slot as (
    select s.*, case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) end as lag
    from pg_replication_slots s where s.slot_name = dynrec._stream_slot()
  )
  select 'stream', 'error', 'no stream has been alive for 30 seconds', 'start one: dynrec stream (or dynrec up)'
  where exists (select from streamed) and not exists (select from dynrec_data.heartbeat h where h.role = 'stream' and h.beat_at > now() - interval '30 seconds')
  union all
  select r.name, 'error', 'the stream''s slot is gone: changes wait for a scan', 'start dynrec stream: it makes another and has everything scanned'
  from streamed r where not dynrec._uses_triggers(r) and not exists (select from slot)
  union all
  select 'stream', case when s.lag > least_of.bound / 2 then 'error' else 'warning' end,
    format('slot %s holds back %s of WAL; at %s it is given up', s.slot_name, pg_size_pretty(s.lag), pg_size_pretty(least_of.bound)), 'is dynrec stream running, and does a transaction stay open?'
  from slot s, (select min((r.options ->> 'stream_max_lag_bytes')::numeric) as bound from streamed r) least_of
  where s.lag > least_of.bound / 10
  union all
  select 'stream', 'warning', format('slot %s belongs to nobody and holds back WAL', s.slot_name), 'start dynrec stream, which drops it, or ' || format('select pg_drop_replication_slot(%L)', s.slot_name)
  from slot s where not exists (select from streamed) and not exists (select from dynrec_data.stream_span)
  union all
  select r.name, 'error', format('the replica identity of %s does not say which rows are deleted: updates and deletes fail or are lost', t), format('alter table %s replica identity full', t)
  from streamed r cross join lateral dynrec._unidentified_tables(r) t
  union all
  select r.name, 'warning', format('no batch since %s', coalesce(r.batched_at::text, 'ever')), 'is a dispatcher alive, and the maintenance queue served?'
  from dynrec_data.recommender r
  where r.options ->> 'capture' = 'batch' and not r.paused and coalesce(r.batched_at + 2 * (r.options ->> 'batch_every')::interval < now(), false)
$$;
comment on function dynrec._ailments_of_capture() is 'Internal. Findings about the stream, its slot, and batches.';

create or replace function dynrec._ailments_of_outbox() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select 'publisher', 'error', 'no publisher has been alive for 30 seconds: others are told nothing', 'start one: dynrec publish'
  where exists (select from dynrec_data.recommender r where r.options ->> 'publish' is not null)
    and not exists (select from dynrec_data.heartbeat h where h.role = 'publisher' and h.beat_at > now() - interval '30 seconds')
  union all
  select 'publisher', 'error', format('%s cannot deliver to %s: %s', h.process, p.key, p.value), 'the events wait; dynrec publish tries again by itself'
  from dynrec_data.heartbeat h cross join lateral jsonb_each_text(h.details -> 'problems') p
  where h.role = 'publisher' and h.beat_at > now() - interval '30 seconds'
  union all
  select r.name, 'warning', format('others have waited since %s to be told of %s', h.written_at, case k.kind when 'item' then 'items' else 'users' end),
    'is dynrec publish running, and does Kafka take what it sends?'
  from dynrec_data.recommender r cross join (values ('item'), ('user')) k (kind) cross join lateral (
    select o.written_at from dynrec_data.outbox o where o.recommender_id = r.id and o.kind = k.kind and o.error is null order by o.id limit 1) h
  where r.options ->> 'publish' is not null and h.written_at < now() - interval '5 minutes'
  union all
  select r.name, 'warning', format('%s events cannot be delivered, the last: %s', count(*), max(o.error)), format('select dynrec.retry_failed(%L)', r.name)
  from dynrec_data.outbox o join dynrec_data.recommender r on r.id = o.recommender_id where o.error is not null group by r.name
$$;
comment on function dynrec._ailments_of_outbox() is 'Internal. Findings about what others are told: nobody tells them, they have waited for long, or cannot be told.';

create or replace function dynrec._ailments_of_server() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select 'server', 'warning', format('a transaction of process %s has been open since %s: the queue cannot be vacuumed', a.pid, a.xact_start),
    format('end it, or select pg_terminate_backend(%s)', a.pid)
  from pg_stat_activity a
  where a.backend_xmin is not null and a.xact_start < now() - interval '5 minutes' and a.pid <> pg_backend_pid()
  union all
  -- pgvector's schema is on the path of every function, and a function there that fits better is taken before one of pg_catalog
  select 'server', 'error', format('%s may create objects in schema %s, where pgvector is: they can make others run code of theirs, the owner of dynrec among them',
      string_agg(coalesce(g.rolname, 'everybody'), ', ' order by g.rolname), n.nspname),
    format('revoke create on schema %I from %s', n.nspname, string_agg(coalesce(quote_ident(g.rolname), 'public'), ', ' order by g.rolname))
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace cross join lateral aclexplode(n.nspacl) a left join pg_roles g on g.oid = a.grantee
  where e.extname = 'vector' and a.privilege_type = 'CREATE' and a.grantee <> n.nspowner and not coalesce(g.rolsuper, false)
    and a.grantee <> (select d.nspowner from pg_namespace d where d.nspname = 'dynrec')
  group by n.nspname
  union all
  select 'server', 'info', 'max_prepared_transactions is above 0: the dispatcher polls instead of being notified', 'set it to 0 unless two-phase commit is used'
  where current_setting('max_prepared_transactions') <> '0'
  union all
  select r.name, 'error', format('%s belongs to %I, whom the owner of dynrec does not trust: nothing is read, and changes are looked for when it is', s.relation, dynrec._untrusted_owner(s.relation)),
    format('let the owner of dynrec own the table, or select dynrec.trust_owner(%L); then select dynrec.resume(%L); select dynrec.refresh(%L)', dynrec._untrusted_owner(s.relation), r.name, r.name)
  from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (relation) where dynrec._untrusted_owner(s.relation) is not null
  union all
  select r.name, 'warning', format('%s belongs to %I, who is trusted and can make %s, a superuser and the owner of dynrec, run code', s.relation, t.owner, n.nspowner::regrole),
    format('let a role without superuser own dynrec, or the owner of dynrec own the table; then select dynrec.distrust_owner(%L)', t.owner)
  from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (relation) join pg_class c on c.oid = s.relation
  join dynrec_data.trusted_owner t on t.owner = pg_get_userbyid(c.relowner)
  join pg_namespace n on n.nspname = 'dynrec' join pg_roles o on o.oid = n.nspowner and o.rolsuper
  union all
  select 'server', 'warning', format('role %s is missing: rights cannot be given by it', w.role), format('create role %s nologin; select dynrec._grant_rights()', w.role)
  from (values ('dynrec_reader'), ('dynrec_writer'), ('dynrec_worker'), ('dynrec_admin')) w (role) where to_regrole(w.role) is null
  union all
  select 'history', 'warning', format('%s rows are in the default partition of %s', s.n_live_tup, s.relname), 'is the maintenance queue served? it makes the partitions ahead: dynrec worker --queues maintenance'
  from pg_stat_all_tables s where s.schemaname = 'dynrec_data' and (s.relname like '%\_history\_default' or s.relname = 'impression_default') and s.n_live_tup > 0
$$;
comment on function dynrec._ailments_of_server() is 'Internal. Findings about the server, roles and rights, and the history partitions.';

create or replace function dynrec.doctor() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select * from dynrec._ailments_of_sources()
  union all select * from dynrec._ailments_of_work()
  union all select * from dynrec._ailments_of_capture()
  union all select * from dynrec._ailments_of_outbox()
  union all select * from dynrec._ailments_of_processes()
  union all select * from dynrec._ailments_of_models()
  union all select * from dynrec._ailments_of_server()
  union all select * from dynrec._ailments_of_settings()
$$;
comment on function dynrec.doctor() is
  'What is wrong and what to do about it: missing triggers, lost columns, missing, invalid and unused indexes, mixed models, dead processes and those of another version, '
  'stuck leases, dead letters, old transactions, a stream that lags or whose slot is gone, late batches, others who are not told, slots that hold back WAL, wrong settings, missing roles. '
  'severity: error (something is lost or does not move), warning, info. No row: all is well.';
