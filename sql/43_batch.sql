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

create or replace function dynrec._interaction_hash(item_id text, kind text, value double precision, occurred_at timestamptz) returns numeric
language sql immutable parallel safe
as $$ select hash_record_extended(row(item_id, kind, value, occurred_at), 0)::numeric $$;
comment on function dynrec._interaction_hash(text, text, double precision, timestamptz) is
  'Internal. What an interaction adds to the fingerprint of its user.';

create or replace function dynrec._fingerprint_keeper() returns text
language sql immutable
as $template$ select $body$
  -- who was made of what is in the source, not of what was captured of it before there were batches
  compared as materialized (
    select distinct u.user_id from used u where u.op <> 'insert'
  ), source as materialized (
    select i.user_id, count(*) as events, sum(dynrec._interaction_hash(i.item_id, i.kind, i.value, i.occurred_at)) as fingerprint
    from dynrec_data.interactions_{id}(array(select c.user_id from compared c)) i group by i.user_id
  ), noted as (
    insert into dynrec_data.user_fingerprint as f (recommender_id, user_id, events, fingerprint)
    select {id}, s.user_id, s.events, s.fingerprint from source s
    on conflict on constraint user_fingerprint_pkey do update set events = excluded.events, fingerprint = excluded.fingerprint
  ), unknown as (
    delete from dynrec_data.user_fingerprint f using compared c
    where f.recommender_id = {id} and f.user_id = c.user_id and not exists (select from source s where s.user_id = c.user_id)
  ),
$body$ $template$;
comment on function dynrec._fingerprint_keeper() is
  'Internal. Template, part of the publisher of users where batches keep up: the fingerprint of what is read, which the next batch compares with the source.';

create or replace function dynrec._batch_users(recommender_id int) returns bigint
language plpgsql
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  differing text[];
begin
  select x.* into strict r from dynrec_data.recommender x where x.id = _batch_users.recommender_id;
  execute dynrec._render($query$
    with source as (
      select i.user_id, count(*) as events, sum(dynrec._interaction_hash(i.item_id, i.kind, i.value, i.occurred_at)) as fingerprint
      from dynrec_data.interactions_all_{id}() i group by i.user_id
    ), read as (
      select f.user_id, f.events, f.fingerprint from dynrec_data.user_fingerprint f where f.recommender_id = {id}
    ), compared as (
      select coalesce(s.user_id, d.user_id) as user_id
      from source s full join read d on d.user_id = s.user_id
      where (s.events, s.fingerprint) is distinct from (d.events, d.fingerprint)
      union
      -- made of what was captured before there were batches
      select u.user_id from dynrec_data.user_vector u where u.model_id in ({live_models}) and not exists (select from read d where d.user_id = u.user_id)
    )
    -- who waits is read afresh; who is leased may have been read already, whatever is known of it now
    select array(
      select c.user_id from compared c
      except select w.entity from dynrec_data.change w where w.recommender_id = {id} and w.kind = 'user' and w.op <> 'insert'
      union select l.entity from dynrec_data.lease l where l.recommender_id = {id} and l.kind = 'user')
    $query$, dynrec._names(r)) into differing;
  return dynrec._queue(r.id, 'user', differing, 0::smallint);
end
$$;
comment on function dynrec._batch_users(int) is
  'Internal. Queues the users whose interactions are not those that were read last: another number, or another sum of their hashes; and those who are being worked on.';
