-- The queue: claim, fail, expire. A change stays until the publish that used it deletes exactly it, so losing a worker loses nothing.
-- Lanes: 0 live, 1 backfill, 8 suspects that are claimed alone, 9 parked until their retry is due or, of dead letters, until they are brought back.
--
-- The planner often believes these tables empty, for they are now and then, and it keeps plans made then. So that a plan is right
-- whatever it believes: no sequential scans, and where an entity is looked up, its key alone can be used as an index condition
-- ("is not distinct from" keeps the planner from change_head, which begins with the two columns that do not select anything).

create or replace function dynrec._lease_head(
  recommender_id int, kind text, lowest_lane smallint, highest_lane smallint, batch_size int, token uuid, lease interval)
returns bigint
language sql
set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
  with head as materialized (
    select c.entity, c.lane from dynrec_data.change c
    where c.recommender_id = _lease_head.recommender_id and c.kind = _lease_head.kind
      and c.lane between lowest_lane and highest_lane
      -- hashed once: a storm over few entities has many changes of leased ones
      and c.entity not in (
        select l.entity from dynrec_data.lease l where l.recommender_id = _lease_head.recommender_id and l.kind = _lease_head.kind)
    order by c.lane, c.id
    limit batch_size
    for update of c skip locked
  ), won as (
    insert into dynrec_data.lease (recommender_id, kind, entity, token, deadline, attempts, lane, change_ids, captured_at)
    select _lease_head.recommender_id, _lease_head.kind, h.entity, _lease_head.token, clock_timestamp() + lease,
      coalesce(r.attempts, 0), h.lane, c.ids, c.captured_at
    from (select head.entity, min(head.lane) as lane from head group by head.entity) h
    cross join lateral (
      select array_agg(c.id) as ids, max(c.captured_at) as captured_at from dynrec_data.change c
      where c.entity = h.entity
        and c.kind is not distinct from _lease_head.kind and c.recommender_id is not distinct from _lease_head.recommender_id
    ) c
    left join dynrec_data.retry r on r.entity = h.entity
      and r.kind is not distinct from _lease_head.kind and r.recommender_id is not distinct from _lease_head.recommender_id
    order by h.entity
    on conflict do nothing
    returning 1
  )
  select count(*) from won
$$;
comment on function dynrec._lease_head(int, text, smallint, smallint, int, uuid, interval) is
  'Internal. Leases the entities at the head of some lanes under a token; other claimers'' rows are skipped, never waited for.';

create or replace function dynrec._is_staying(recommender_id int) returns boolean
language sql
set search_path from current
as $$ select pg_try_advisory_xact_lock_shared(hashtext('dynrec.drop'), recommender_id) $$;
comment on function dynrec._is_staying(int) is
  'Internal. Whether a recommender is not being dropped; if so, dropping waits for the end of this transaction.';

create or replace function dynrec._keeps_encoder(recommender_id int) returns boolean
language sql
set search_path from current
as $$ select pg_try_advisory_xact_lock_shared(hashtext('dynrec.encoder'), recommender_id) $$;
comment on function dynrec._keeps_encoder(int) is
  'Internal. Whether a recommender is not just being switched to another encoder; if so, switching waits for the end of this transaction.';

create or replace function dynrec._claim(recommender text, kind text, batch_size int, lease interval, live_only boolean default false) returns uuid
language plpgsql security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  token uuid := gen_random_uuid();
begin
  if r.paused or not dynrec._is_staying(r.id) or not dynrec._may_be_read(r.id) or not dynrec._keeps_encoder(r.id) then
    return null;
  end if;
  if not live_only and dynrec._lease_head(r.id, kind, 8::smallint, 8::smallint, 1, token, lease) > 0
    or dynrec._lease_head(r.id, kind, 0::smallint, (not live_only)::int::smallint, batch_size, token, lease) > 0 then
    return token;
  end if;
  return null;
end
$$;
comment on function dynrec._claim(text, text, int, interval, boolean) is
  'Internal. Leases up to batch_size changes'' entities (kind item, derived or user) and returns the token; null if there is nothing to claim. '
  'live_only: nothing of a backfill, for a worker that keeps the way free beside one. '
  'Commit before reading the source: what is read must be newer than what was claimed.';

create or replace function dynrec._claim_batch(recommender text, kind text, batch_size int, lease interval, live_only boolean default false)
returns table (token uuid, entities bigint, first_change bigint, last_change bigint, captured_at timestamptz, live_ages double precision[], backfill_ages double precision[])
language plpgsql security definer
set search_path from current
as $$
declare
  claimed uuid := dynrec._claim(recommender, kind, batch_size, lease, live_only);
begin
  if claimed is null then
    return;
  end if;
  return query
    with held as materialized (
      select l.captured_at, l.lane = 1 as is_backfill, l.change_ids from dynrec_data.lease l where l.token = claimed
    ), change as (
      select unnest(h.change_ids) as id from held h
    ), aged as (
      select h.is_backfill, greatest(date_part('epoch', clock_timestamp() - h.captured_at), 0) as age from held h
    )
    select claimed, h.entities, c.first, c.last, h.captured_at,
      (select array_agg(a.age) from aged a where not a.is_backfill), (select array_agg(a.age) from aged a where a.is_backfill)
    from (select count(*) as entities, min(held.captured_at) as captured_at from held) h, (select min(change.id) as first, max(change.id) as last from change) c;
end
$$;
comment on function dynrec._claim_batch(text, text, int, interval, boolean) is
  'Internal. _claim, with what the logs and the metrics say of the batch: entities, the first and the last change of it, when the oldest of the '
  'entities'' last changes was captured, and how old these are in seconds, live ones and those of a backfill. No row: nothing to claim.';

create or replace function dynrec._leased_entities(token uuid) returns text[]
language sql stable security definer
set search_path from current
as $$
  select coalesce(array_agg(l.entity order by l.entity), '{}') from dynrec_data.lease l where l.token = _leased_entities.token
$$;
comment on function dynrec._leased_entities(uuid) is 'Internal. What a token still holds.';

create or replace function dynrec._put_back(recommender_id int, kind text, entity text, lane smallint) returns void
language sql
set search_path from current
as $$
  update dynrec_data.change c set lane = _put_back.lane
  where c.recommender_id = _put_back.recommender_id and c.kind = _put_back.kind and c.entity = _put_back.entity
$$;
comment on function dynrec._put_back(int, text, text, smallint) is 'Internal. Moves the changes of an entity to a lane.';

create or replace function dynrec._count(recommender_id int, name text, labels jsonb, amount double precision) returns void
language sql
set search_path from current
as $$
  insert into dynrec_data.counter as c (recommender_id, name, labels, value)
  select _count.recommender_id, _count.name, _count.labels, amount where amount > 0
  on conflict on constraint counter_pkey do update set value = c.value + excluded.value
$$;
comment on function dynrec._count(int, text, jsonb, double precision) is
  'Internal. Adds to a counter. At the end of a transaction: whoever adds to the same one waits for its end.';

create or replace function dynrec._bury(recommender_id int, kind text, entity text, change_ids bigint[], attempts smallint, error text) returns void
language sql
set search_path from current
as $$
  insert into dynrec_data.dead_letter as d (recommender_id, kind, entity, attempts, error)
  values (_bury.recommender_id, _bury.kind, _bury.entity, _bury.attempts, _bury.error)
  on conflict on constraint dead_letter_pkey
    do update set attempts = excluded.attempts, error = excluded.error, failed_at = clock_timestamp();
  delete from dynrec_data.retry r
  where r.recommender_id = _bury.recommender_id and r.kind = _bury.kind and r.entity = _bury.entity;
  -- the changes stay: reads fold them in, popularity has not counted them, and the next change of the entity takes them along
  update dynrec_data.change c set lane = 9
  where c.recommender_id = _bury.recommender_id and c.kind = _bury.kind and c.entity = _bury.entity and c.id = any (_bury.change_ids)
$$;
comment on function dynrec._bury(int, text, text, bigint[], smallint, text) is
  'Internal. Makes a dead letter of an entity and parks the changes that were tried; dynrec.retry_failed brings it back, and so does a new change.';

create or replace function dynrec._fail(token uuid, entities text[], error text, charge boolean) returns void
language plpgsql security definer
set search_path from current
as $$
declare
  failed record;
  attempts_now smallint;
  of_recommender int;
  of_kind text;
  buried int := 0;
  put_back int := 0;
begin
  for failed in
    select l.recommender_id, l.kind, l.entity, l.attempts, l.change_ids, (r.options ->> 'max_attempts')::int as max_attempts
    from dynrec_data.lease l join dynrec_data.recommender r on r.id = l.recommender_id
    where l.token = _fail.token and l.entity = any (entities)
    order by l.entity for update of l
  loop
    attempts_now := failed.attempts + charge::int;
    of_recommender := failed.recommender_id;  -- a token has entities of one recommender and kind
    of_kind := failed.kind;
    if charge and attempts_now >= failed.max_attempts then
      perform dynrec._bury(failed.recommender_id, failed.kind, failed.entity, failed.change_ids, attempts_now, error);
      buried := buried + 1;
    else
      put_back := put_back + 1;
      -- exponential backoff with full jitter: 1 s, 2 s, 4 s … at most 5 minutes
      insert into dynrec_data.retry as t (recommender_id, kind, entity, attempts, not_before, error)
      values (failed.recommender_id, failed.kind, failed.entity, attempts_now,
        clock_timestamp() + make_interval(secs => (0.5 + random()) * least(power(2, greatest(attempts_now - 1, 0)), 300)), error)
      on conflict on constraint retry_pkey
        do update set attempts = excluded.attempts, not_before = excluded.not_before, error = excluded.error;
      perform dynrec._put_back(failed.recommender_id, failed.kind, failed.entity, 9::smallint);
    end if;
  end loop;
  delete from dynrec_data.lease l where l.token = _fail.token and l.entity = any (entities);
  perform dynrec._count(of_recommender, 'dead_letters', jsonb_build_object('kind', of_kind), buried);
  perform dynrec._count(of_recommender, 'retries', jsonb_build_object('kind', of_kind), put_back);
end
$$;
comment on function dynrec._fail(uuid, text[], text, boolean) is
  'Internal. Gives leased entities back with an error. charge: the row''s own fault, counted as an attempt, a dead letter after max_attempts; '
  'otherwise a fault of the device or the provider, retried without counting.';

create or replace function dynrec._release_retries() returns bigint
language sql security definer
set search_path from current
as $$
  with due as materialized (
    select r.recommender_id, r.kind, r.entity, r.attempts from dynrec_data.retry r
    -- nobody waits for longer than 10 minutes, unless the clock was set back
    where r.not_before <= clock_timestamp() or r.not_before > clock_timestamp() + interval '10 minutes' and r.not_before < 'infinity'
    order by r.not_before limit 1000 for update skip locked
  ), looked_at as (
    update dynrec_data.retry r set not_before = 'infinity'
    from due d where r.recommender_id = d.recommender_id and r.kind = d.kind and r.entity = d.entity
  ), parked as materialized (
    -- a publish may be deleting it, and will want the row of retry next: do not wait
    select c.id, d.* from dynrec_data.change c join due d on c.recommender_id = d.recommender_id and c.kind = d.kind and c.entity = d.entity
    where c.lane = 9 for update of c skip locked
  ), moved as (
    -- a row that failed by its own fault is tried alone, so that it cannot take others with it again
    update dynrec_data.change c set lane = case when p.attempts > 1 then 8 else 0 end
    from parked p where c.recommender_id = p.recommender_id and c.kind = p.kind and c.entity = p.entity and c.id = p.id
    returning 1
  )
  select count(*) from moved
$$;
comment on function dynrec._release_retries() is 'Internal. Brings parked changes whose retry is due back into the queue.';

create or replace function dynrec._expire_leases() returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  expired record;
  one record;
  ended tid[] := '{}';
  counts jsonb := '{}';  -- recommender, kind and name -> how many
  what text;
begin
  for expired in
    select l.ctid, l.recommender_id, l.kind, l.entity, l.attempts, l.change_ids, l.lane = 8 as alone,
      l.lane = 8 and l.attempts + 1 >= (r.options ->> 'max_attempts')::int as given_up, greatest(l.deadline - l.claimed_at, interval '1 second') as length
    from dynrec_data.lease l join dynrec_data.recommender r on r.id = l.recommender_id
    -- or claimed so far in the future that the clock must have been set back
    where l.deadline < clock_timestamp() or l.claimed_at - (l.deadline - l.claimed_at) > clock_timestamp()
    order by l.recommender_id, l.kind, l.entity for update of l skip locked
  loop
    ended := ended || expired.ctid;
    foreach what in array array['leases_expired', case when expired.given_up then 'dead_letters' else 'retries' end] loop
      what := format('%s %s %s', expired.recommender_id, expired.kind, what);
      counts := counts || jsonb_build_object(what, coalesce((counts ->> what)::int, 0) + 1);
    end loop;
    if expired.given_up then
      perform dynrec._bury(expired.recommender_id, expired.kind, expired.entity, expired.change_ids, (expired.attempts + 1)::smallint,
        'the lease expired: the worker died or hung on this entity');
    else
      -- of many that were leased together one at most is to blame: that counts once, and shows when each is tried alone. Alone it is tried
      -- after ever longer pauses, so that what takes down every worker for minutes, such as a full disk, is not taken for the entity's fault
      insert into dynrec_data.retry as t (recommender_id, kind, entity, attempts, not_before, error)
      values (expired.recommender_id, expired.kind, expired.entity, case when expired.alone then expired.attempts + 1 else greatest(expired.attempts, 1) end,
        case when expired.alone then clock_timestamp() + least(expired.length * power(4, greatest(expired.attempts - 1, 0)), interval '9 minutes') else 'infinity' end,
        'the lease expired')
      on conflict on constraint retry_pkey do update set attempts = excluded.attempts, not_before = excluded.not_before;
      if expired.alone or expired.attempts > 0 then
        perform dynrec._put_back(expired.recommender_id, expired.kind, expired.entity, case when expired.alone then 9 else 8 end::smallint);
      end if;
    end if;
  end loop;
  -- at the end: a claim that waits for one of these leases may have locked changes that are moved above
  delete from dynrec_data.lease l where l.ctid = any (ended);
  for one in select string_to_array(c.key, ' ') as key, c.value::int from jsonb_each_text(counts) c order by c.key loop
    perform dynrec._count(one.key[1]::int, one.key[3], jsonb_build_object('kind', one.key[2]), one.value);
  end loop;
  return cardinality(ended);
end
$$;
comment on function dynrec._expire_leases() is
  'Internal. Ends leases past their deadline; their changes are in the queue still. The second time the entities are claimed alone; from then on an expiry counts as an attempt.';

create or replace function dynrec._writers(r dynrec_data.recommender) returns setof text
language sql stable
set search_path from current
as $$
  select distinct l.virtualtransaction from pg_locks l
  where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    and l.relation in (select dynrec._source_tables(r.items)::oid)
$$;
comment on function dynrec._writers(dynrec_data.recommender) is
  'Internal. The transactions that may have written to the items of a recommender and have not ended, prepared ones included.';

create or replace function dynrec._is_runnable(t dynrec_data.task) returns boolean
language sql stable
set search_path from current
as $$
  select case when t.action in ('scan_users', 'fill_users') then not exists (
    -- users are made of item vectors: items first
    select from dynrec_data.task s where s.recommender_id = t.recommender_id and s.action in ('scan_items', 'scan_derived')
    union all
    select from dynrec_data.change c where c.recommender_id = t.recommender_id and c.kind in ('item', 'derived') and c.lane = 1
    union all
    select from dynrec_data.lease l where l.recommender_id = t.recommender_id and l.kind in ('item', 'derived') and l.lane = 1)
  when t.action = 'batch_items' and t.entity is not null then not exists (
    select from dynrec_data.recommender r cross join lateral dynrec._writers(r) as w (writer)
    where r.id = t.recommender_id and w.writer = any (t.entity::text[]))
  -- or so far in the future that the clock must have been set back
  when t.action = 'retire' then t.captured_at <= clock_timestamp() or t.captured_at > clock_timestamp() + interval '1 minute'
  else true end
$$;
comment on function dynrec._is_runnable(dynrec_data.task) is
  'Internal. Whether a task can run now: the users are scanned once no item waits in the backfill lane, items compared once the writers that it names have ended, models retired once they were put off for long enough.';

create or replace function dynrec._pending_work()
returns table (recommender text, work text, backlog bigint, leased bigint, oldest bigint, newest bigint)
language sql stable security definer
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
  -- change by change no lease is looked for: a storm over few entities has many changes of leased ones
  with recursive waiting as (
    (select c.recommender_id, c.kind from dynrec_data.change c order by c.recommender_id, c.kind limit 1)
    union all
    select n.recommender_id, n.kind from waiting w cross join lateral (
      select c.recommender_id, c.kind from dynrec_data.change c
      where (c.recommender_id, c.kind) > (w.recommender_id, w.kind)
      order by c.recommender_id, c.kind limit 1) n
  ), held as materialized (
    select l.recommender_id, l.kind, count(distinct l.token) as batches, sum(cardinality(l.change_ids)) as changes
    from dynrec_data.lease l group by l.recommender_id, l.kind
  )
  select r.name, w.kind, greatest(there.changes - coalesce(h.changes, 0), 0), coalesce(h.batches, 0), there.oldest, there.newest
  from waiting w
  join dynrec_data.recommender r on r.id = w.recommender_id and not r.paused
  left join held h on h.recommender_id = w.recommender_id and h.kind = w.kind
  cross join lateral (
    select count(*) as changes, min(capped.id) as oldest, max(capped.id) as newest from (
      select c.id from dynrec_data.change c
      where c.recommender_id = w.recommender_id and c.kind = w.kind and c.lane < 9
      order by c.lane, c.id limit 1000 + coalesce(h.changes, 0)) capped) there
  where there.changes > 0
  union all
  select r.name, 'task', count(*), 0, min(t.id), max(t.id)
  from dynrec_data.recommender r join dynrec_data.task t on t.recommender_id = r.id
  where not r.paused and dynrec._is_runnable(t)
  group by r.name
$$;
comment on function dynrec._pending_work() is
  'Internal. What waits, by recommender: changes that no lease will use up (backlog, counted up to 1000; leased: batches in flight) and tasks; '
  'oldest and newest: numbers of the first and the last that were counted, those in flight among them.';

create or replace function dynrec._next_due() returns timestamptz
language sql stable security definer
set search_path from current
as $$
  select least((select min(r.not_before) from dynrec_data.retry r where r.not_before < 'infinity'), (select min(l.deadline) from dynrec_data.lease l))
$$;
comment on function dynrec._next_due() is 'Internal. When the next retry or lease deadline has to be looked at; null if there is none.';
