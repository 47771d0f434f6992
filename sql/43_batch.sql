-- Keeping up in batches: nothing is captured; once in a while what is stored is compared with the source, and what differs is queued.

create or replace function dynrec._queue_batch(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$
  update dynrec_data.recommender x set batched_at = now() where x.id = r.id;
  insert into dynrec_data.task (recommender_id, action)
  select r.id, a.action from (values (1, 'batch_items'), (2, 'popularity'), (3, 'batch_users')) a (position, action)
  where a.position = 1 or r.interactions is not null order by a.position;
$$;
comment on function dynrec._queue_batch(dynrec_data.recommender) is 'Internal. Queues a comparison of everything with the source.';

create or replace function dynrec._queue_batches() returns int
language plpgsql security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  queued int := 0;
begin
  for r in
    select x.* from dynrec_data.recommender x
    where x.options ->> 'capture' = 'batch' and not x.paused
      and coalesce(x.batched_at + (x.options ->> 'batch_every')::interval <= now(), true)
      -- one that has not run yet will see everything
      and not exists (select from dynrec_data.task t where t.recommender_id = x.id and t.action in ('batch_items', 'batch_users'))
    for update of x skip locked
  loop
    perform dynrec._queue_batch(r);
    queued := queued + 1;
  end loop;
  return queued;
end
$$;
comment on function dynrec._queue_batches() is 'Internal. Queues the batches that are due; how many.';

create or replace function dynrec._await_writers(recommender_id int) returns bigint
language plpgsql
set search_path from current
as $$
declare
  writers text[];
begin
  -- the alteration lets go of its locks once everybody is told of the new code: who writes from then on runs that
  lock table dynrec_data.lease in row exclusive mode;
  select array_agg(w) into writers from dynrec_data.recommender r cross join lateral dynrec._writers(r) w where r.id = _await_writers.recommender_id;
  if writers is not null then
    insert into dynrec_data.task (recommender_id, action, entity) values (_await_writers.recommender_id, 'batch_items', writers::text);
  end if;
  -- what is committed by now is found now: whoever waits until all is fresh does not wait for those writers
  return dynrec._batch_items(_await_writers.recommender_id);
end
$$;
comment on function dynrec._await_writers(int) is
  'Internal. After an alteration: what was written by its time may have been looked at by the columns that were watched before. '
  'The items are compared now, and again once those have ended who write now, if there are any; how many were queued now.';

create or replace function dynrec._batch_items(recommender_id int) returns bigint
language plpgsql
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  differing text[];
begin
  select x.* into strict r from dynrec_data.recommender x where x.id = _batch_items.recommender_id;
  execute dynrec._render($query$
    with compared as (
      select coalesce(s.k, c.item_id) as item_id
      from dynrec_data.source_keys_{id}() s (k)
      full join (select x.item_id from dynrec_data.item_content x where x.recommender_id = {id}) c on c.item_id = s.k
      where s.k is null or c.item_id is null
      union all
      select unnest(dynrec._outdated_items($1))
    )
    -- what waits is read afresh; what is leased may have been read already, whatever is stored now
    select array(
      select c.item_id from compared c
      except select w.entity from dynrec_data.change w where w.recommender_id = {id} and w.kind = 'item'
      union select l.entity from dynrec_data.lease l where l.recommender_id = {id} and l.kind = 'item')
    $query$, dynrec._names(r)) into differing using r;
  -- as live changes, so that the users who met them follow, and only these
  return dynrec._queue(r.id, 'item', differing, 0::smallint);
end
$$;
comment on function dynrec._batch_items(int) is
  'Internal. Queues the items that came, went or differ from what is stored of them, and those that are being worked on.';

create or replace function dynrec._batch_users(recommender_id int) returns bigint
language plpgsql
set search_path from current
as $$
declare
  queued bigint;
begin
  perform pg_advisory_xact_lock(hashtext('dynrec.batch'), recommender_id);
  -- no user is forgotten meanwhile, of whom a fingerprint would be left
  perform pg_advisory_xact_lock_shared(hashtext('dynrec.popularity'), recommender_id);
  execute dynrec._render($query$
    with source as (
      select i.user_id, count(*) as events, sum(hash_record_extended(row(i.item_id, i.kind, i.value, i.occurred_at), 0)::numeric) as fingerprint
      from dynrec_data.interactions_all_{id}() i group by i.user_id
    ), known as (
      select f.* from dynrec_data.user_fingerprint f where f.recommender_id = {id}
    ), differing as materialized (
      select coalesce(s.user_id, k.user_id) as user_id, s.events, s.fingerprint
      from source s full join known k on k.user_id = s.user_id
      where (s.events, s.fingerprint) is distinct from (k.events, k.fingerprint)
    ), noted as (
      insert into dynrec_data.user_fingerprint as f (recommender_id, user_id, events, fingerprint)
      select {id}, d.user_id, d.events, d.fingerprint from differing d where d.events is not null
      on conflict on constraint user_fingerprint_pkey do update set events = excluded.events, fingerprint = excluded.fingerprint
    ), gone as (
      delete from dynrec_data.user_fingerprint f using differing d where d.events is null and f.recommender_id = {id} and f.user_id = d.user_id
    )
    insert into dynrec_data.change (recommender_id, kind, entity, op)
    select {id}, 'user', d.user_id, 'refresh' from differing d
    $query$, (select dynrec._names(r) from dynrec_data.recommender r where r.id = _batch_users.recommender_id));
  get diagnostics queued = row_count;
  return queued;
end
$$;
comment on function dynrec._batch_users(int) is
  'Internal. Queues the users whose interactions are not those that the batch before found: another number, or another sum of their hashes.';
