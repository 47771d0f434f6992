-- Operating functions.

create or replace function dynrec.refresh(recommender text, item_ids text[] default null, user_ids text[] default null) returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  perform dynrec._notify_wake();
  if item_ids is null and user_ids is null then
    perform dynrec._hold_source(r.items);
    perform dynrec._queue_backfill(r);
    return dynrec._estimate(r.items);
  end if;
  perform dynrec._reject('not a key of an item', i, format('Keys of %s are of type %s.', r.items, r.item_key_type))
  from unnest(item_ids) i where not dynrec._is_key(i, r.item_key_type);
  perform dynrec._reject('not a key of a user', u, coalesce(format('Keys of users are of type %s.', r.user_key_type), 'The recommender has no interactions.'))
  from unnest(user_ids) u where r.interactions is null or not dynrec._is_key(u, r.user_key_type);
  return dynrec._queue(r.id, 'item', coalesce(dynrec._as_keys(item_ids, r.item_key_type), '{}'), 0::smallint)
    + dynrec._queue(r.id, 'user', coalesce(dynrec._as_keys(user_ids, r.user_key_type), '{}'), 0::smallint);
end
$$;
comment on function dynrec.refresh(text, text[], text[]) is
  'Queues items and users to be compared with their source again (none given: everything, in the backfill lane), for example after a partition was attached '
  'or triggers were off. Returns how many entities that is (about, for everything); unchanged texts are not encoded again.';

create or replace function dynrec._waits_before(recommender_id int, change_mark bigint, task_mark bigint) returns boolean
language sql volatile
set search_path from current
as $$
  select exists (
    select from dynrec_data.change c where c.recommender_id = _waits_before.recommender_id and c.lane < 9 and c.id <= change_mark
    union all select from dynrec_data.task t where t.recommender_id = _waits_before.recommender_id and t.id <= task_mark and t.action <> 'retire')
$$;
comment on function dynrec._waits_before(int, bigint, bigint) is
  'Internal. Whether a change or a task up to these ids still waits for a recommender; what backs off after a failure does not count, nor do models that are to be retired.';

create or replace function dynrec.wait_until_fresh(recommender text, timeout interval default '30 seconds') returns boolean
language plpgsql volatile
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  started timestamptz := clock_timestamp();
  change_mark bigint;
  task_mark bigint;
begin
  if timeout is null or timeout < interval '0' then
    perform dynrec._reject('timeout is not a length of time', timeout::text, 'Give an interval of 0 or more.');
  end if;
  perform dynrec._check_sees_all(array[r.items, r.interactions], 'the queue is not for it');
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'wait_until_fresh under % would never see the workers'' commits', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state', hint = 'Call it at read committed, as a statement of its own.';
  end if;
  if pg_current_xact_id_if_assigned() is not null then
    raise exception 'wait_until_fresh in a transaction that has written would wait for its own uncommitted changes'
      using errcode = 'invalid_transaction_state', hint = 'Commit first, then call it as a statement of its own.';
  end if;
  -- what waits now, what that queues, and so on: a scan its rows, an item its vectors of other models, these their audience, and that its users
  for round in 1 .. 5 loop
    select max(c.id) into change_mark from dynrec_data.change c where c.recommender_id = r.id;
    select max(t.id) into task_mark from dynrec_data.task t where t.recommender_id = r.id;
    while dynrec._waits_before(r.id, change_mark, task_mark) loop
      if clock_timestamp() - started >= timeout then
        return false;
      end if;
      -- often at first, then at a twentieth of the time waited: looking costs, the more the longer the queue
      perform pg_sleep(least(greatest(dynrec._age(clock_timestamp(), started) / 20, 0.001), 0.1));
    end loop;
  end loop;
  return true;
end
$$;
comment on function dynrec.wait_until_fresh(text, interval) is
  'Waits until every change committed before, and what follows from it, has been published; false if the timeout came first. '
  'Its own statement, at read committed. Entities that back off after a failure are not waited for: see dynrec.failures.';

create or replace function dynrec.retry_failed(recommender text default null) returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  brought_back bigint;
begin
  if recommender is not null then
    perform dynrec._recommender(recommender);
  end if;
  -- rows that others have locked are being published or given back just now: never waited for
  with chosen as (
    select r.id from dynrec_data.recommender r where retry_failed.recommender is null or r.name = retry_failed.recommender
  ), dead as (
    delete from dynrec_data.dead_letter d using (
      select f.* from dynrec_data.dead_letter f join chosen c on f.recommender_id = c.id for update of f skip locked) f
    where d.recommender_id = f.recommender_id and d.kind = f.kind and d.entity = f.entity
    returning d.recommender_id, d.kind, d.entity
  ), waiting as (
    delete from dynrec_data.retry t using (
      select f.* from dynrec_data.retry f join chosen c on f.recommender_id = c.id for update of f skip locked) f
    where t.recommender_id = f.recommender_id and t.kind = f.kind and t.entity = f.entity
    returning t.recommender_id, t.kind, t.entity
  ), parked as materialized (
    -- whatever lane they were in when this began: a failure may have parked them since
    select c.id, c.recommender_id, c.kind, c.entity
    from (select * from dead union select * from waiting) b
    join dynrec_data.change c on c.recommender_id = b.recommender_id and c.kind = b.kind and c.entity = b.entity
    for update of c skip locked
  ), untold as (
    update dynrec_data.outbox o set error = null from (
      select f.* from dynrec_data.outbox f join chosen c on f.recommender_id = c.id where f.error is not null for update of f skip locked) f
    where o.model_id = f.model_id and o.kind = f.kind and o.entity = f.entity
    returning 1
  ), unparked as (
    update dynrec_data.change c set lane = 0 from parked p
    where c.recommender_id = p.recommender_id and c.kind = p.kind and c.entity = p.entity and c.id = p.id
  )
  select (select count(*) from dead) + (select count(*) from waiting) + (select count(*) from untold) into brought_back;
  perform dynrec._notify_wake();
  return brought_back;
end
$$;
comment on function dynrec.retry_failed(text) is
  'Brings the dead letters and the backing-off entities of a recommender (null: of all) back into the queue at once, their attempts forgotten, and vectors that others could not be told of into the outbox; how many there were.';

create or replace function dynrec.pause(recommender text) returns void
language plpgsql security definer
set search_path from current
as $$
begin
  perform dynrec._recommender(recommender);
  update dynrec_data.recommender r set paused = true where r.name = pause.recommender;
end
$$;
comment on function dynrec.pause(text) is 'Stops recomputing for a recommender. Changes are captured still, and reads go on.';

create or replace function dynrec.resume(recommender text) returns void
language plpgsql security definer
set search_path from current
as $$
begin
  perform dynrec._recommender(recommender);
  update dynrec_data.recommender r set paused = false where r.name = resume.recommender;
  perform dynrec._notify_wake();
end
$$;
comment on function dynrec.resume(text) is 'Goes on recomputing after dynrec.pause.';
