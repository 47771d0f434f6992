-- Set-based work: scans, audiences, popularity. Each task is a row; it is deleted in the transaction that did it.

create or replace function dynrec._scan(recommender_id int, kind text) returns bigint
language plpgsql
set search_path from current
as $$
declare
  queued bigint;
begin
  -- what the source has, what is stored and what is being worked on: the latter two may have lost their rows
  execute dynrec._render(case kind
    when 'item' then $query$
      insert into dynrec_data.change (recommender_id, kind, entity, op, lane)
      select {id}, 'item', k, 'refresh', 1 from (
        select k from dynrec_data.source_keys_{id}() k
        union select c.item_id from dynrec_data.item_content c where c.recommender_id = {id}
        union select l.entity from dynrec_data.lease l where l.recommender_id = {id} and l.kind = 'item') s (k)
      $query$
    when 'derived' then $query$
      insert into dynrec_data.change (recommender_id, kind, entity, op, lane)
      select {id}, 'derived', k, 'refresh', 1 from (
        select c.item_id from dynrec_data.item_content c where c.recommender_id = {id}
        union select v.item_id from dynrec_data.item_vector v where v.model_id in ({live_models}) and v.model_id <> {content_model}
        union select l.entity from dynrec_data.lease l where l.recommender_id = {id} and l.kind = 'derived') s (k)
      $query$
    else $query$
      insert into dynrec_data.change (recommender_id, kind, entity, op, lane)
      select {id}, 'user', k, 'refresh', 1 from (
        select i.user_id from dynrec_data.interactions_all_{id}() i
        union select u.user_id from dynrec_data.user_vector u where u.model_id in ({live_models})
        union select l.entity from dynrec_data.lease l where l.recommender_id = {id} and l.kind = 'user') s (k)
      $query$
    end, (select dynrec._names(r) from dynrec_data.recommender r where r.id = _scan.recommender_id));
  get diagnostics queued = row_count;
  return queued;
end
$$;
comment on function dynrec._scan(int, text) is 'Internal. Queues every item (to be encoded, or derived for the other models) or every user of a recommender in the backfill lane.';

create or replace function dynrec._refresh_audience(recommender_id int, item_ids text[]) returns bigint
language plpgsql
set search_path from current
as $$
declare
  queued bigint;
begin
  -- a refresh that waits unclaimed will see the new vectors anyway; one that is leased may have read the old ones.
  -- "is true" keeps these lookups hashed, whatever the planner believes of tables that are often empty.
  execute dynrec._render($query$
    with met as materialized (
      select distinct i.user_id from dynrec_data.interactions_with_{id}($1) i
    )
    insert into dynrec_data.change (recommender_id, kind, entity, op, lane)
    select {id}, 'user', m.user_id, 'refresh', 1 from met m
    where (m.user_id in (select l.entity from dynrec_data.lease l where l.recommender_id = {id} and l.kind = 'user')) is true
      or exists (select from dynrec_data.user_vector u where u.model_id in ({live_models}) and u.user_id = m.user_id)
        and (m.user_id in (select c.entity from dynrec_data.change c where c.recommender_id = {id} and c.kind = 'user' and c.op = 'refresh')) is not true
    $query$, (select dynrec._names(r) from dynrec_data.recommender r where r.id = _refresh_audience.recommender_id))
  using (select array_agg(i) from unnest(item_ids) i
         where dynrec._is_key(i, (select r.item_ref_type from dynrec_data.recommender r where r.id = _refresh_audience.recommender_id)));
  get diagnostics queued = row_count;
  return queued;
end
$$;
comment on function dynrec._refresh_audience(int, text[]) is 'Internal. Queues the users who met items whose vectors moved.';

create or replace function dynrec._rebuild_popularity(recommender_id int) returns bigint
language plpgsql
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  counted bigint;
begin
  perform pg_advisory_xact_lock(hashtext('dynrec.popularity'), recommender_id);
  select x.* into strict r from dynrec_data.recommender x where x.id = _rebuild_popularity.recommender_id;
  if dynrec._is_private(r) then
    return dynrec._release_popularity(r);
  end if;
  -- pending interactions are in the source already and will be added when they are published: leave them out here
  execute dynrec._render($query$
    with event as (
      select i.item_id, i.kind, i.value, least(i.occurred_at, now()) as occurred_at, 1 as sign from dynrec_data.interactions_all_{id}() i
      union all
      select c.item_id, c.event_kind, c.value, least(c.occurred_at, now()), case when c.op in ('insert', 'came') then -1 else 1 end
      from dynrec_data.change c where c.recommender_id = {id} and c.kind = 'user' and c.op <> 'refresh'
    ), dated as (
      select e.*, p.reference_time, p.first_met_at, dynrec._age(p.reference_time, e.occurred_at) as age,
        dynrec_data.kind_weight_{id}(e.kind, e.value) as weight, e.sign * (dynrec_data.kind_weight_{id}(e.kind, 1) > 0)::int as wanted
      from event e join (
        select item_id, max(occurred_at) as reference_time, min(occurred_at) as first_met_at from event group by item_id
      ) p using (item_id)
    ), counted as (
      select e.item_id, e.reference_time, e.first_met_at, sum(e.sign) as event_count,
        sum(e.sign * e.weight * dynrec._decay(e.age, {trending_half_life})) as score, case when {has_learned} then {rate_sums} end as rates
      from dated e group by e.item_id, e.reference_time, e.first_met_at
    ), noted as (
      -- what is in this snapshot is counted: the stream adds only what is not
      update dynrec_data.stream_span s set counted = pg_current_snapshot()::text where s.recommender_id = {id}
    ), gone as (
      delete from dynrec_data.item_popularity p where p.recommender_id = {id} and not exists (select from counted c where c.item_id = p.item_id)
    )
    insert into dynrec_data.item_popularity (recommender_id, item_id, score, event_count, reference_time, first_met_at, key, rates, rate_keys)
    select {id}, c.item_id, c.score, c.event_count, c.reference_time, c.first_met_at,
      dynrec._popularity_key(c.score, c.reference_time, {trending_half_life}), c.rates, dynrec._rate_keys(c.rates, c.reference_time)
    from counted c order by c.item_id
    on conflict (recommender_id, item_id) do update set score = excluded.score, event_count = excluded.event_count,
      reference_time = excluded.reference_time, first_met_at = excluded.first_met_at, key = excluded.key, rates = excluded.rates,
      rate_keys = excluded.rate_keys
    $query$, dynrec._names(r));
  get diagnostics counted = row_count;
  update dynrec_data.recommender x set popularity_since = clock_timestamp() where x.id = r.id and x.popularity_since is null;
  return counted;
end
$$;
comment on function dynrec._rebuild_popularity(int) is 'Internal. Counts the decayed popularity of every item afresh; of a recommender with private popularity, releases it if that is due.';

create or replace function dynrec._join_tasks(t dynrec_data.task) returns void
language sql
set search_path from current
as $$
  -- what is visible was committed, and so was what it is to look at: the scan that begins after this sees it.
  -- A scan of users that waits for items is left to wait.
  with more as (
    select x.id from dynrec_data.task x
    where x.recommender_id = t.recommender_id and x.action = t.action and dynrec._is_runnable(x) for update skip locked
  )
  delete from dynrec_data.task x using more where x.id = more.id
$$;
comment on function dynrec._join_tasks(dynrec_data.task) is
  'Internal. Takes the tasks that are equal to one that is about to run, such as those of a load in many transactions: it does their work.';

create or replace function dynrec._run_task() returns text
language plpgsql security definer
set search_path from current
as $$
declare
  t dynrec_data.task;
  name text;
  item_ids text[];
  done bigint;
begin
  loop
    select x.* into t from dynrec_data.task x join dynrec_data.recommender r on r.id = x.recommender_id
    where not r.paused and dynrec._is_runnable(x)
    order by x.id limit 1 for update of x skip locked;
    if not found or not dynrec._is_staying(t.recommender_id) then
      return null;
    end if;
    -- if not, it is paused from now on, and the next one is another's
    exit when dynrec._may_be_read(t.recommender_id);
  end loop;
  perform dynrec._hold_sources(r) from dynrec_data.recommender r where r.id = t.recommender_id and t.action <> 'retire';
  select r.name into name from dynrec_data.recommender r where r.id = t.recommender_id;
  delete from dynrec_data.task x where x.id = t.id;
  if t.action in ('scan_items', 'scan_users', 'popularity') then
    perform dynrec._join_tasks(t);
  end if;
  case t.action
    when 'scan_items' then done := dynrec._scan(t.recommender_id, 'item');
    when 'scan_derived' then done := dynrec._scan(t.recommender_id, 'derived');
    when 'scan_users', 'fill_users' then
      done := dynrec._scan(t.recommender_id, 'user');
    when 'await_writers' then done := dynrec._await_writers(t.recommender_id);
    when 'batch_items' then done := dynrec._batch_items(t.recommender_id);
    when 'batch_users' then done := dynrec._batch_users(t.recommender_id);
    when 'popularity' then done := dynrec._rebuild_popularity(t.recommender_id);
    when 'begin_outbox' then done := dynrec._begin_outbox(t.recommender_id);
    when 'fill_outbox' then done := dynrec._fill_outbox(t.recommender_id);
    when 'retire' then done := dynrec._retire_superseded(t);
    when 'audience' then
      with more as (
        select x.id from dynrec_data.task x
        where x.recommender_id = t.recommender_id and x.action = 'audience' limit 200 for update skip locked
      ), gone as (
        delete from dynrec_data.task x using more where x.id = more.id returning x.entity
      )
      select array_agg(gone.entity) || t.entity into item_ids from gone;
      done := dynrec._refresh_audience(t.recommender_id, coalesce(item_ids, array[t.entity]));
  end case;
  return format('%s of %s: %s', t.action, quote_literal(name), done);
end
$$;
comment on function dynrec._run_task() is 'Internal. Runs the next task and says what it did; null if none can run. One transaction: killed, it is run again.';
