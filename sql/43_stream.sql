-- Keeping up by a logical replication slot, one for all recommenders of the database; dynrec stream reads it.

create or replace function dynrec._stream_slot() returns text
language sql stable
set search_path from current
as $$ select format('dynrec_%s', d.oid) from pg_database d where d.datname = current_database() $$;
comment on function dynrec._stream_slot() is 'Internal. The name of the replication slot of this database.';

create or replace function dynrec._unidentified_tables(r dynrec_data.recommender) returns setof regclass
language sql stable
set search_path from current
as $$
  -- what the log says of a row that was deleted is its replica identity
  select t.relation from dynrec._source_tables(r.interactions) t (relation) join pg_class c on c.oid = t.relation
  where c.relkind = 'r' and c.relreplident <> 'f'
  union
  select t.relation from dynrec._source_tables(r.items) t (relation) join pg_class c on c.oid = t.relation
  where c.relkind = 'r' and c.relreplident <> 'f' and not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
    where i.indrelid = c.oid and a.attname = r.item_key and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end)
$$;
comment on function dynrec._unidentified_tables(dynrec_data.recommender) is
  'Internal. Tables whose replica identity does not tell the stream enough: all of a deleted interaction, the key of a deleted item.';

create or replace function dynrec._check_stream(r dynrec_data.recommender) returns void
language plpgsql stable
set search_path from current
as $$
declare
  remedy text;
begin
  if r.options ->> 'capture' <> 'stream' then
    return;
  end if;
  if current_setting('wal_level') <> 'logical' then
    perform dynrec._reject('options.capture: stream needs wal_level = logical, which is', current_setting('wal_level'),
      'alter system set wal_level = ''logical'', then restart the server; or keep incremental.');
  end if;
  if not exists (select from pg_roles o where o.rolname = current_user and (o.rolreplication or o.rolsuper)) then
    perform dynrec._reject('options.capture: stream needs a replication slot, which the owner of dynrec may not make', current_user,
      format('Have a superuser run: alter role %I replication.', current_user));
  end if;
  perform dynrec._reject(format('options.capture: stream is not told of generated columns, such as this one of %s', a.attrelid::regclass), a.attname,
    'Keep incremental, or batch.')
  from pg_attribute a join pg_class c on c.oid = a.attrelid
  where a.attrelid in (r.items, r.interactions) and a.attgenerated <> '' and not a.attisdropped and case
    -- of virtual ones any makes updates fail of a table whose replica identity is all of its columns
    when current_setting('server_version_num')::int >= 180000 then a.attgenerated = 'v' and c.relreplident = 'f'
    else a.attrelid = r.items and a.attname = r.item_key
      or a.attrelid = r.interactions and a.attname in (r.user_column, r.item_column, r.time_column, r.kind_column, r.value_column) end;
  select string_agg(format('alter table %s replica identity full', dynrec._qualified(t)), '; ') into remedy from dynrec._unidentified_tables(r) t;
  if remedy is not null then
    perform dynrec._reject('options.capture: stream would not see which rows are deleted from',
      (select string_agg(t::text, ', ') from dynrec._unidentified_tables(r) t), remedy);
  end if;
end
$$;
comment on function dynrec._check_stream(dynrec_data.recommender) is 'Internal. An error, with what to do, if a recommender is to be kept up to date by a stream that cannot be.';

create or replace function dynrec._streamed_sources() returns setof regclass
language sql stable
set search_path from current
as $$
  select distinct s.source from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (source)
  where exists (select from dynrec_data.stream_span x where x.recommender_id = r.id) and exists (select from pg_class c where c.oid = s.source)
$$;
comment on function dynrec._streamed_sources() is 'Internal. The sources of the recommenders that take from the stream.';

create or replace function dynrec._is_published() returns boolean
language sql stable
set search_path from current
as $$
  select not exists (
    select from dynrec._streamed_sources() s where not exists (
      select from pg_publication_rel p join pg_publication b on b.oid = p.prpubid where b.pubname = 'dynrec_stream' and p.prrelid = s))
$$;
comment on function dynrec._is_published() is 'Internal. Whether the publication has all sources still; what is written to others, the slot does not tell of, also later.';

create or replace function dynrec._publish_sources() returns void
language plpgsql
set search_path from current
as $$
declare
  wanted text;
  published text;
begin
  select string_agg(dynrec._qualified(s), ', ' order by s::oid) into wanted from dynrec._streamed_sources() s;
  select string_agg(dynrec._qualified(p.prrelid::regclass), ', ' order by p.prrelid) into published
  from pg_publication_rel p join pg_publication b on b.oid = p.prpubid where b.pubname = 'dynrec_stream';
  if not exists (select from pg_publication b where b.pubname = 'dynrec_stream') then
    create publication dynrec_stream;
    if current_setting('server_version_num')::int >= 180000 then
      -- or updates of a table with replica identity full would fail that has generated columns
      execute 'alter publication dynrec_stream set (publish_generated_columns = stored)';
    end if;
  end if;
  if wanted is distinct from published then
    if wanted is null then
      execute format('alter publication dynrec_stream drop table %s', published);
    else
      execute format('alter publication dynrec_stream set table %s', wanted);
    end if;
  end if;
end
$$;
comment on function dynrec._publish_sources() is 'Internal. Brings the publication that the slot reads to the sources of the recommenders that take from the stream.';

create or replace function dynrec._begin_stream(r dynrec_data.recommender) returns boolean
language plpgsql
set search_path from current
-- less than deadlock_timeout: rather this waits again than an application fails
set lock_timeout = '500ms'
as $$
begin
  perform dynrec._lock_sources(r);
  insert into dynrec_data.stream_span (recommender_id, starts_at) values (r.id, pg_current_wal_insert_lsn()::text);
  perform dynrec._publish_sources();
  perform dynrec._install_triggers(r);
  return true;
exception when lock_not_available or deadlock_detected then
  return false;
end
$$;
comment on function dynrec._begin_stream(dynrec_data.recommender) is
  'Internal. From here on the stream sees what is committed, and triggers, which go, saw what was before; false if the tables were in use.';

create or replace function dynrec._stream_stands() returns void
language plpgsql security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender;
begin
  -- a new slot begins now: of what came before it, and was not read from the one that was lost, a scan sees all
  for r in select x.* from dynrec_data.recommender x where exists (select from dynrec_data.stream_span s where s.recommender_id = x.id) order by x.id loop
    perform dynrec._queue_backfill(r);
    update dynrec_data.recommender x set events_since = greatest(x.events_since, clock_timestamp()) where x.id = r.id;
    perform dynrec._generate(r.id);
  end loop;
  delete from dynrec_data.stream_span s where s.ends_at is not null;
  update dynrec_data.stream_position p set stands = true, applied = '0/0' where p.slot = dynrec._stream_slot();
  perform dynrec._notify_wake();
end
$$;
comment on function dynrec._stream_stands() is 'Internal. The slot has been made: what no slot told of is looked for.';

create or replace function dynrec._make_stream_slot() returns void
language sql security definer
set search_path from current
as $$ select pg_create_logical_replication_slot(dynrec._stream_slot(), 'pgoutput') $$;
comment on function dynrec._make_stream_slot() is 'Internal. Makes the slot; a transaction of its own, after the publication has been made and before _stream_stands.';

create or replace function dynrec._stream_lag() returns bigint
language sql stable
set search_path from current
as $$
  select pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint from pg_replication_slots s where s.slot_name = dynrec._stream_slot()
$$;
comment on function dynrec._stream_lag() is 'Internal. How many bytes of WAL the slot holds back; null without one.';

create or replace function dynrec._is_slot_read(slot text, active boolean) returns boolean
language sql stable
set search_path from current
as $$
  -- dynrec stream has its slot only while it looks, but a lock all the time
  select active or slot = dynrec._stream_slot() and exists (
    select from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
    where l.locktype = 'advisory' and l.granted and l.classid = hashtext('dynrec.stream')::oid and l.objid = 0 and l.objsubid = 2)
$$;
comment on function dynrec._is_slot_read(text, boolean) is
  'Internal. Whether somebody is there who reads a replication slot; active: as pg_replication_slots says, which of dynrec stream is true only while it looks.';

create or replace function dynrec._drop_stream_slot() returns void
language plpgsql security definer
set search_path from current
as $$
begin
  update dynrec_data.stream_position p set stands = false where p.slot = dynrec._stream_slot();
  perform pg_drop_replication_slot(s.slot_name) from pg_replication_slots s where s.slot_name = dynrec._stream_slot();
exception when object_in_use then
  null;  -- it is being read just now: next time
end
$$;
comment on function dynrec._drop_stream_slot() is 'Internal. Gives the slot up; the next one is followed by a scan.';

create or replace function dynrec._bound_stream() returns void
language plpgsql security definer
set search_path from current
as $$
declare
  most numeric := (select min((r.options ->> 'stream_max_lag_bytes')::numeric) from dynrec_data.recommender r where r.options ->> 'capture' = 'stream');
begin
  if dynrec._stream_lag() > most or exists (
    select from pg_replication_slots s where s.slot_name = dynrec._stream_slot() and s.wal_status = 'lost')
  then
    raise warning 'the stream holds back % bytes of WAL, more than stream_max_lag_bytes: its slot is given up', dynrec._stream_lag();
    perform dynrec._drop_stream_slot();
  end if;
end
$$;
comment on function dynrec._bound_stream() is 'Internal. Gives the slot up when it holds back more WAL than it may, so that the disk does not fill.';

create or replace function dynrec._tend_stream() returns text
language plpgsql security definer
set search_path from current
as $$
declare
  own_slot text := dynrec._stream_slot();
  begun boolean := true;
  r dynrec_data.recommender;
begin
  delete from dynrec_data.stream_span s
  -- read up to there: the last change is behind it, or there was none, as the slot moves on after what it told of is queued
  where s.ends_at::pg_lsn <= (
      select greatest(p.applied::pg_lsn, c.confirmed_flush_lsn) from dynrec_data.stream_position p left join pg_replication_slots c on c.slot_name = p.slot
      where p.slot = own_slot and p.stands)
    or not exists (select from dynrec_data.recommender x where x.id = s.recommender_id);
  if not exists (select from dynrec_data.stream_span)
    and not exists (select from dynrec_data.recommender x where x.options ->> 'capture' = 'stream')
  then
    if exists (select from dynrec_data.stream_position) then
      perform dynrec._drop_stream_slot();
      delete from dynrec_data.stream_position p where not exists (select from pg_replication_slots s where s.slot_name = p.slot);
      drop publication if exists dynrec_stream;
    end if;
    return 'idle';
  end if;
  perform dynrec._bound_stream();
  if not dynrec._is_published() then
    -- somebody took a table out of the publication, or dropped it
    perform dynrec._drop_stream_slot();
  end if;
  insert into dynrec_data.stream_position (slot, applied, stands) values (own_slot, '0/0', false) on conflict do nothing;
  perform dynrec._publish_sources();
  if not exists (select from pg_replication_slots s where s.slot_name = own_slot) then
    update dynrec_data.stream_position p set stands = false where p.slot = own_slot;
    return 'no slot';
  elsif not (select p.stands from dynrec_data.stream_position p where p.slot = own_slot) then
    return 'new slot';
  end if;
  for r in select x.* from dynrec_data.recommender x where x.options ->> 'capture' = 'stream' and dynrec._uses_triggers(x) order by x.id loop
    begun := dynrec._begin_stream(r) and begun;
  end loop;
  -- each look reads the log again from the slot's restart point, which moves past such a record only; the server makes one every 15 seconds
  if dynrec._stream_lag() > 4194304 and has_function_privilege('pg_log_standby_snapshot()', 'execute') then
    perform pg_log_standby_snapshot();
  end if;
  return case when begun then 'ready' else 'waiting' end;
end
$$;
comment on function dynrec._tend_stream() is
  'Internal. Begins and ends what the recommenders'' options ask for, and says what the stream has to do: idle (nothing), no slot (make it), new slot (say that it stands), '
  'ready (read), waiting (read; a recommender waits for its tables).';

create or replace function dynrec._read_stream(up_to pg_lsn, most int) returns setof bytea
language sql security definer
set search_path from current
as $$
  select data from pg_logical_slot_peek_binary_changes(dynrec._stream_slot(), up_to, most, 'proto_version', '1', 'publication_names', 'dynrec_stream')
$$;
comment on function dynrec._read_stream(pg_lsn, int) is 'Internal. The messages of pgoutput that wait, about so many, without using them up.';

create or replace function dynrec._stream_end() returns pg_lsn
language sql
set search_path from current
as $$ select pg_current_wal_flush_lsn() $$;
comment on function dynrec._stream_end() is 'Internal. As far as there is something to read.';

create or replace function dynrec._as_full_xid(xid bigint, next_xid bigint) returns xid8
language sql immutable
as $$
  -- the log has the last 32 bits: the latest number that ends with them and is not in the future
  select (next_xid - ((next_xid - xid) & 4294967295))::text::xid8
$$;
comment on function dynrec._as_full_xid(bigint, bigint) is 'Internal. The transaction that the log means, at a time when next_xid is the next one.';

create or replace function dynrec._streamed_rows(r dynrec_data.recommender, source regclass, rows jsonb) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_agg(w.row || jsonb_build_object('counted', w.counted) order by w.position) from (
    select c.row, c.position, case when s.counted is null then false
      else pg_visible_in_snapshot(dynrec._as_full_xid((c.row ->> 'xid')::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint), s.counted::pg_snapshot) end as counted
    from jsonb_array_elements(rows) with ordinality as c (row, position)
    join dynrec_data.stream_span s on s.recommender_id = r.id
      and (c.row ->> 'lsn')::pg_lsn >= s.starts_at::pg_lsn and (s.ends_at is null or (c.row ->> 'lsn')::pg_lsn < s.ends_at::pg_lsn)
    where (c.row ->> 'relation')::oid in (select t::oid from dynrec._source_tables(source) t)
  ) w
$$;
comment on function dynrec._streamed_rows(dynrec_data.recommender, regclass, jsonb) is
  'Internal. The rows that are of a source and of the spans in which the recommender takes them from the stream; counted: popularity has them already.';

create or replace function dynrec._queue_streamed(r dynrec_data.recommender, rows jsonb) returns bigint
language plpgsql
set search_path from current
as $$
declare
  of_items jsonb := dynrec._streamed_rows(r, r.items, rows);
  of_users jsonb := dynrec._streamed_rows(r, r.interactions, rows);
  queued bigint := 0;
  more bigint;
begin
  if of_items @> '[{"op": "truncate"}]' then
    insert into dynrec_data.task (recommender_id, action)
    select r.id, a.action from (values (1, 'scan_items'), (2, 'scan_users')) a (position, action)
    where a.position = 1 or r.interactions is not null order by a.position;
  end if;
  if of_items is not null then
    execute format('select dynrec_data.capture_streamed_items_%s($1)', r.id) into queued using of_items;
  end if;
  if of_users @> '[{"op": "truncate"}]' then
    insert into dynrec_data.task (recommender_id, action) values (r.id, 'scan_users'), (r.id, 'popularity');
  end if;
  if of_users is not null then
    execute format('select dynrec_data.capture_streamed_interactions_%s($1)', r.id) into more using of_users;
  end if;
  return queued + coalesce(more, 0) + coalesce(jsonb_array_length(of_items || of_users), 0);
end
$$;
comment on function dynrec._queue_streamed(dynrec_data.recommender, jsonb) is 'Internal. Queues what rows from the stream mean for one recommender; 0 if nothing.';

create or replace function dynrec._apply_stream(rows jsonb) returns boolean
language plpgsql security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  applied pg_lsn;
  fresh jsonb;
  queued bigint := 0;
begin
  select p.applied::pg_lsn into applied from dynrec_data.stream_position p where p.slot = dynrec._stream_slot() for update;
  select jsonb_agg(c.row order by c.position) into fresh from jsonb_array_elements(rows) with ordinality as c (row, position) where (c.row ->> 'lsn')::pg_lsn > applied;
  -- a commit is in the log a moment before others see it, and long before where it waits for a standby
  if exists (
    select from (select distinct (c ->> 'xid')::bigint as xid from jsonb_array_elements(fresh) c) c
    where not pg_visible_in_snapshot(dynrec._as_full_xid(c.xid, pg_snapshot_xmax(pg_current_snapshot())::text::bigint), pg_current_snapshot()))
  then
    return false;
  end if;
  for r in select x.* from dynrec_data.recommender x where exists (select from dynrec_data.stream_span s where s.recommender_id = x.id) order by x.id loop
    continue when not dynrec._is_staying(r.id);
    -- popularity is not counted from now on until this is in the queue
    perform pg_advisory_xact_lock_shared(hashtext('dynrec.popularity'), r.id);
    if not dynrec._may_be_read(r.id) then
      -- what may not be looked at now is looked for when it may
      perform dynrec._queue_backfill(r)
      where not exists (select from dynrec_data.task t where t.recommender_id = r.id and t.action = 'scan_items');
      continue;
    end if;
    queued := queued + dynrec._queue_streamed(r, fresh);
  end loop;
  if queued > 0 then
    perform dynrec._notify_wake();
  end if;
  return true;
end
$$;
comment on function dynrec._apply_stream(jsonb) is
  'Internal. Queues rows from the stream, but for those that were before; false if a transaction of them is not visible yet: then nothing was done. '
  'rows: [{relation, lsn, xid, at, op, old, new}].';

create or replace function dynrec._stream_applied(up_to pg_lsn) returns void
language sql security definer
set search_path from current
as $$
  update dynrec_data.stream_position p set applied = greatest(p.applied::pg_lsn, up_to)::text where p.slot = dynrec._stream_slot()
$$;
comment on function dynrec._stream_applied(pg_lsn) is 'Internal. Says, in the transaction that queued them, up to which commit changes are in the queue.';

create or replace function dynrec._advance_stream(up_to pg_lsn) returns void
language plpgsql security definer
set search_path from current
as $$
begin
  perform pg_replication_slot_advance(s.slot_name, up_to) from pg_replication_slots s
  where s.slot_name = dynrec._stream_slot() and s.confirmed_flush_lsn < up_to;
end
$$;
comment on function dynrec._advance_stream(pg_lsn) is 'Internal. Lets the server forget WAL that has been read; after the commit that queued it.';
