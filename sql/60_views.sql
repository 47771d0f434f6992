-- Operating views.

create or replace view dynrec.queue with (security_invoker = true) as
select r.name as recommender, c.kind, case c.lane when 0 then 'live' when 1 then 'backfill' when 8 then 'alone' else 'parked' end as lane,
  count(*) as changes, count(distinct c.entity) as entities, min(c.captured_at) as oldest, clock_timestamp() - min(c.captured_at) as waiting
from dynrec_data.change c join dynrec_data.recommender r on r.id = c.recommender_id
group by r.name, c.kind, c.lane;
comment on view dynrec.queue is
  'Changes that wait or are being worked on, by recommender, kind (item, derived: items, for the models made of their vectors, user) and lane (live, backfill, alone: suspects tried singly, parked: backing off or given up).';

create or replace view dynrec.failures with (security_invoker = true) as
select r.name as recommender, f.kind, f.entity, f.state, f.attempts, f.error, f.at
from (
  select recommender_id, kind, entity, 'retrying' as state, attempts, error, nullif(not_before, 'infinity') as at from dynrec_data.retry
  union all
  select recommender_id, kind, entity, 'dead letter', attempts, error, failed_at from dynrec_data.dead_letter
) f join dynrec_data.recommender r on r.id = f.recommender_id;
comment on view dynrec.failures is
  'Entities whose recompute failed: retrying (at: when it is tried again) or dead letters (at: when they were given up; dynrec.retry_failed brings them back).';

create or replace view dynrec.model_versions with (security_invoker = true) as
select r.name as recommender, m.id as model_version, m.kind, m.state, m.state = 'active' as is_active, coalesce(m.encoder, 'adopted') as encoder, m.dimension,
  m.base_model_id as base_model, m.parent_model_id as parent_model, m.created_at, m.data_from, m.data_until,
  n.items, n.users,
  case when m.state = 'backfilling' then n.done end as progress,
  case when m.state = 'backfilling' and n.done between 0.01 and 1 then (clock_timestamp() - m.stored_at) * (1 / n.done - 1) end as eta,
  case when dynrec._is_live(m) then pg_total_relation_size(to_regclass(format('dynrec_data.item_vector_%s', m.id)))
    + pg_total_relation_size(to_regclass(format('dynrec_data.user_vector_%s', m.id))) else 0 end as bytes,
  dynrec._has_vector_index(m.id) as indexed, m.metrics, m.report, m.error, m.forgotten_users, m.vector_index, m.vector_storage
from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
cross join lateral (
  select c.items, c.users, (c.items + c.users)::double precision / nullif(c.items_wanted + c.users_wanted, 0) as done
  from (select
    (select count(*) from dynrec_data.item_vector v where v.model_id = m.id) as items,
    (select count(*) from dynrec_data.user_vector u where u.model_id = m.id) as users,
    (select count(*) from dynrec_data.item_vector v where v.model_id = r.content_model_id) as items_wanted,
    (select count(*) from dynrec_data.user_vector u where u.model_id = r.active_model_id) as users_wanted) c
) n;
comment on view dynrec.model_versions is
  'Every model version: kind (content: the encoder''s vectors, learned: trained), state (staged, training, failed, backfilling, shadow: complete and kept up to date, '
  'active: answers, standby: answered before and can be rolled back to, retired), encoder, dimension, what it is made of, data cut-off, number of vectors, '
  'progress of the backfill (0 to 1) with the time left, bytes on disk of its current vectors and their indexes (history, artefacts and transitions lie in tables that all versions share: dynrec_table_bytes in dynrec.metrics), whether its HNSW index stands, metrics on the validation period, what cleaning dropped; forgotten_users: how many of those whose interactions it learned from were forgotten since (dynrec.forget_user); vector_index: what the index holds that reads go through (full, half or binary); vector_storage: how they are stored (full, half, mixed while that changes).';

create or replace view dynrec.freshness with (security_invoker = true) as
select r.name as recommender, k.kind, k.fresh + k.stale as entities, k.stale, k.oldest, k.lag_p50, k.lag_p99
from dynrec_data.recommender r cross join lateral (
  select 'item' as kind,
    (select count(*) from dynrec_data.item_vector v where v.model_id = r.active_model_id and not exists (
      select from dynrec_data.change c where c.recommender_id = r.id and c.kind = any (w.kinds) and c.entity = v.item_id)) as fresh,
    (select count(distinct c.entity) from dynrec_data.change c where c.recommender_id = r.id and c.kind = any (w.kinds)) as stale,
    (select min(c.captured_at) from dynrec_data.change c where c.recommender_id = r.id and c.kind = any (w.kinds)) as oldest, l.*
  from (
    -- a learned model makes its vector of an item of the one that was encoded for it
    select case r.active_model_id when r.content_model_id then '{item}'::text[] else '{item,derived}' end as kinds
  ) w cross join (
    select percentile_cont(0.5) within group (order by n.lag) as lag_p50, percentile_cont(0.99) within group (order by n.lag) as lag_p99
    from (select v.created_at - v.valid_from as lag from dynrec_data.item_vector v where v.model_id = r.active_model_id
      and v.created_at > now() - interval '1 hour') n) l
  union all
  select 'user',
    (select count(*) from dynrec_data.user_vector u where u.model_id = r.active_model_id and not exists (
      select from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'user' and c.entity = u.user_id)),
    (select count(distinct c.entity) from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'user'),
    (select min(c.captured_at) from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'user'), l.*
  from (
    select percentile_cont(0.5) within group (order by n.lag) as lag_p50, percentile_cont(0.99) within group (order by n.lag) as lag_p99
    from (select u.created_at - u.valid_from as lag from dynrec_data.user_vector u where u.model_id = r.active_model_id
      and u.created_at > now() - interval '1 hour') n) l
) k;
comment on view dynrec.freshness is
  'By recommender and kind: entities, how many are stale (a change waits for them), since when, and the lag from change to stored vector '
  'over the last hour (median and 99th percentile). A stale user vector does not make answers stale: interactions are folded in at read time. '
  'Where a learned model answers, an item is stale until its vector of that model has been made again: of every item, while it is looked at again for another model version, too.';

create or replace view dynrec.status with (security_invoker = true) as
select r.name as recommender, dynrec._qualified(r.items) as items, dynrec._qualified(r.interactions) as interactions, r.paused,
  r.active_model_id as model_version, coalesce(m.encoder, 'adopted') as encoder,
  coalesce((select sum(q.entities) from dynrec.queue q where q.recommender = r.name), 0)::bigint as queued,
  (select count(*) from dynrec_data.lease l where l.recommender_id = r.id) as leased,
  (select count(*) from dynrec_data.task t where t.recommender_id = r.id) as tasks,
  (select count(*) from dynrec_data.dead_letter d where d.recommender_id = r.id) as dead_letters,
  (select count(*) from dynrec_data.heartbeat h where h.role = 'dispatcher' and h.beat_at > now() - interval '30 seconds') as dispatchers,
  (select count(*) from dynrec_data.heartbeat h where h.role = 'worker' and h.beat_at > now() - interval '30 seconds') as workers
from dynrec_data.recommender r join dynrec_data.model_version m on m.id = r.active_model_id;
comment on view dynrec.status is 'One row per recommender: sources, encoder, what is queued, leased and failed, and how many dispatchers and workers are alive.';
