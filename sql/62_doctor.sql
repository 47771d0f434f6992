-- The doctor: what is wrong, and what to do about it.

create or replace function dynrec._ailments_of_sources() returns table (subject text, severity text, finding text, remedy text)
language sql stable
set search_path from current
as $$
  select r.name, 'error', format('trigger %s is missing or disabled on %s: its changes are lost', t.trigger_name, t.relation),
    format('select dynrec.alter_recommender(%L); select dynrec.refresh(%L)', r.name, r.name)
  from dynrec_data.recommender r cross join lateral dynrec._missing_triggers(r) t
  union all
  select r.name, 'error', format('trigger %s is on %s, which is not part of the source: its changes are captured all the same', t.trigger_name, t.relation),
    format('select dynrec.alter_recommender(%L); select dynrec.refresh(%L)', r.name, r.name)
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
  union all
  select m.recommender, 'warning', format('model version %s has %s items and no index', m.model_version, m.items), 'is the maintenance queue served? dynrec worker --queues maintenance'
  from dynrec.model_versions m where not m.indexed and m.items > 1000
$$;
comment on function dynrec._ailments_of_work() is 'Internal. Findings about processes, queue and indexes.';

create or replace function dynrec._wal_held_back(since pg_lsn) returns double precision
language sql stable
set search_path from current
as $$
  select pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, since)::double precision
$$;
comment on function dynrec._wal_held_back(pg_lsn) is 'Internal. Bytes of WAL since a place in it.';

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
  select r.name, 'warning', format('%s belongs to %s, who can make %s, a superuser and the owner of dynrec, run code of theirs', s.relation, c.relowner::regrole, n.nspowner::regrole),
    'let a role without superuser own dynrec, or the owner of dynrec own the table'
  from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (relation) join pg_class c on c.oid = s.relation
  join pg_namespace n on n.nspname = 'dynrec' join pg_roles o on o.oid = n.nspowner and o.rolsuper join pg_roles t on t.oid = c.relowner and not t.rolsuper
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
  union all select * from dynrec._ailments_of_server()
$$;
comment on function dynrec.doctor() is
  'What is wrong and what to do about it: missing triggers, lost columns, missing indexes, dead processes, dead letters, old transactions, missing roles. '
  'severity: error (something is lost or does not move), warning, info. No row: all is well.';
