-- Publishing user vectors: new interactions are folded into the stored sums; where something was taken back, the sums are made afresh.
-- One statement for all live model versions, of parts: what was claimed, a part for each model, popularity, what is done with.

create or replace function dynrec._user_publisher_begins() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.publish_users_{id}(by_token uuid) returns bigint
language sql
set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
  -- one statement, one snapshot: an interaction is visible in the source exactly if its change is, so none counts twice
  with leased as materialized (
    select l.entity as user_id, l.captured_at from dynrec_data.lease l
    where l.token = by_token and l.recommender_id = {id} and l.kind = 'user' order by l.entity for update
  ), held as materialized (
    select h.* from leased h where {known_holder}
  ), gone as (
    -- of a user who was forgotten: came from a transaction that had begun before
    delete from dynrec_data.change c
    where c.entity = any (array(select l.user_id from leased l except select h.user_id from held h))
      and c.kind is not distinct from 'user' and c.recommender_id is not distinct from {id}
  ), used as materialized (
    delete from dynrec_data.change c
    where c.entity = any (array(select h.user_id from held h))
      and c.kind is not distinct from 'user' and c.recommender_id is not distinct from {id}
    returning c.entity as user_id, c.op, c.item_id, c.event_kind, c.value, c.occurred_at, c.captured_at
  ),
$body$ $template$;
comment on function dynrec._user_publisher_begins() is 'Internal. Template, first part of the publisher of users: the lease, and the interactions that it uses up.';

create or replace function dynrec._content_user_publisher() returns text
language sql immutable
as $template$ select $body$
  old_{model} as materialized (
    select h.user_id, u.state, u.half_lives, u.reference_time, u.event_count,
      coalesce(u.valid_from, gone.valid_to, '-infinity') as valid_from, coalesce(u.created_at, gone.replaced_at, '-infinity') as created_at,
      -- a version begins after the one before it, also where transactions commit in another order than they captured
      greatest(h.captured_at, coalesce(u.valid_from, gone.valid_to) + interval '1 microsecond') as starts_at,
      u.user_id is null or u.half_lives <> {half_lives} or exists (select from used c where c.user_id = h.user_id and c.op <> 'insert') as afresh
    from held h left join dynrec_data.user_vector_{model} u on u.user_id = h.user_id
    left join lateral (
      select p.valid_to, p.replaced_at from dynrec_data.user_vector_history p where p.model_id = {model} and p.user_id = h.user_id
      order by p.valid_to desc limit 1
    ) gone on u.user_id is null
  ), event_{model} as materialized (
    select e.*, greatest(max(e.occurred_at) over (partition by e.user_id), e.old_reference) as reference
    from (
      select c.user_id, c.item_id, c.event_kind as kind, c.value, least(c.occurred_at, now()) as occurred_at, old.reference_time as old_reference
      from used c join old_{model} old using (user_id) where not old.afresh
      union all
      select i.user_id, i.item_id, i.kind, i.value, least(i.occurred_at, now()), null
      from dynrec_data.interactions_{id}(array(select old.user_id from old_{model} old where old.afresh)) i
    ) e
  ), clock_{model} as materialized (
    select o.*, coalesce(e.reference, case when not o.afresh then o.reference_time end) as new_reference,
      coalesce(e.events, 0) + case when o.afresh then 0 else o.event_count end as new_count
    from old_{model} o left join (
      select e.user_id, max(e.reference) as reference, count(*) as events from event_{model} e group by e.user_id
    ) e using (user_id)
  ), moved_{model} as materialized (
    select w.user_id, w.slot, sum(dynrec._scale(dynrec._vector(v.embedding, v.half), w.weight)) as total
    from (
      select e.user_id, dynrec_data.kind_slot_{id}(e.kind) as slot, e.item_id,
        sum(dynrec_data.kind_weight_{id}(e.kind, e.value)
          * dynrec._decay(dynrec._age(e.reference, e.occurred_at), half_life.seconds[dynrec_data.kind_slot_{id}(e.kind)])) as weight
      from event_{model} e, (select {half_lives} as seconds) half_life
      group by 1, 2, 3
    ) w join dynrec_data.item_vector_{model} v on v.item_id = w.item_id
    group by w.user_id, w.slot
  ), made_{model} as materialized (
    select c.*, greatest(clock_timestamp(), c.created_at) as made_at, array(
      select coalesce(m.total, dynrec._zero({dimension})) + case when c.afresh then dynrec._zero({dimension})
        else dynrec._flush(dynrec._scale(c.state[h.slot], dynrec._decay(dynrec._age(c.new_reference, c.reference_time), h.seconds))) end
      from unnest({half_lives}) with ordinality as h (seconds, slot)
      left join moved_{model} m on m.user_id = c.user_id and m.slot = h.slot
      order by h.slot
    ) as new_state, {half_lives} as new_half_lives, null::double precision[] as new_weights, null::double precision[] as weights
    from clock_{model} c
  ),
$body$ $template$;
comment on function dynrec._content_user_publisher() is
  'Internal. Template, part of the publisher of users: U = f(U_prev, I, t) in a content space, one decayed sum of item vectors for each half-life.';

create or replace function dynrec._user_storer() returns text
language sql immutable
as $template$ select $body$
  differing_{model} as materialized (
    select m.* from made_{model} m
    where not (m.state is null and m.new_count = 0)
      and ((m.half_lives, m.reference_time, m.event_count) is distinct from (m.new_half_lives, m.new_reference, m.new_count)
        or not coalesce(dynrec._equal_sums(m.state, m.new_state), false)
        -- seen in the source before the stream told of it: when it came is kept all the same
        or exists (select from used c where c.user_id = m.user_id and c.op in ('came', 'went')))
  ), closed_{model} as (
    insert into dynrec_data.user_vector_history
      (model_id, user_id, state, half_lives, weights, reference_time, event_count, valid_from, valid_to, created_at, replaced_at, closing_events)
    -- a user of whom nothing was known has an empty version up to now, with the interactions that ended it
    select {model}, d.user_id, coalesce(d.state, '{}'), coalesce(d.half_lives, '{}'), d.weights, coalesce(d.reference_time, '-infinity'),
      coalesce(d.event_count, 0), d.valid_from, d.starts_at, d.created_at, d.made_at, u.events
    from differing_{model} d, lateral (
      select coalesce(jsonb_agg(to_jsonb(u) - 'user_id'), '[]') as events, bool_or(u.op <> 'refresh') as live from used u where u.user_id = d.user_id
    ) u
    where d.state is not null or u.live
  ), gone_{model} as (
    delete from dynrec_data.user_vector_{model} u using differing_{model} d where u.user_id = d.user_id and d.new_count = 0
  ), stored_{model} as (
    insert into dynrec_data.user_vector_{model} as u
      (model_id, user_id, state, half_lives, weights, reference_time, event_count, valid_from, created_at)
    select {model}, d.user_id, d.new_state, d.new_half_lives, d.new_weights, d.new_reference, d.new_count, d.starts_at, d.made_at
    from differing_{model} d where d.new_count > 0 order by d.user_id
    on conflict (user_id, model_id) do update set state = excluded.state, half_lives = excluded.half_lives, weights = excluded.weights,
      reference_time = excluded.reference_time, event_count = excluded.event_count, valid_from = excluded.valid_from, created_at = excluded.created_at
  ), told_{model} as (
    insert into dynrec_data.outbox (model_id, kind, entity, recommender_id, valid_from)
    select {model}, 'user', d.user_id, {id}, d.starts_at from differing_{model} d where {publishes} order by d.user_id
    on conflict (model_id, kind, entity) do update set valid_from = excluded.valid_from, version = excluded.version, error = null
  ),
$body$ $template$;
comment on function dynrec._user_storer() is
  'Internal. Template, part of the publisher of users: closes the versions of a model that changed and makes the new ones current.';

create or replace function dynrec._equal_sums(a vector[], b vector[]) returns boolean
language sql immutable parallel safe
set search_path from current
as $$
  select cardinality(a) = cardinality(b) and a is not null and b is not null and (
    a = b or not exists (
      select from unnest(a, b) as s (x, y)
      where s.x is null or s.y is null or vector_dims(s.x) <> vector_dims(s.y)
        or (s.x <-> s.y) > 1e-5 * greatest(vector_norm(s.x), vector_norm(s.y))))
$$;
comment on function dynrec._equal_sums(vector[], vector[]) is
  'Internal. Whether two states differ by rounding alone: the same sums, added in another order.';

create or replace function dynrec._user_publisher_ends() returns text
language sql immutable
as $template$ select $body$
  counted as materialized (
    select e.item_id, max(e.occurred_at) as reference_time, min(e.occurred_at) as first_met_at,
      sum(e.sign * e.weight * dynrec._decay(e.age, {trending_half_life})) as score, sum(e.sign) as event_count,
      case when {has_learned} then {rate_sums} end as rates
    from (
      select c.*, dynrec_data.kind_weight_{id}(c.kind, c.value) as weight, c.sign * (dynrec_data.kind_weight_{id}(c.kind, 1) > 0)::int as wanted,
        dynrec._age(max(c.occurred_at) over (partition by c.item_id), c.occurred_at) as age
      from (
        select u.item_id, u.event_kind as kind, u.value, least(u.occurred_at, now()) as occurred_at, case when u.op in ('insert', 'came') then 1 else -1 end as sign
        from used u where u.op <> 'refresh' and {counts_live}
      ) c
    ) e
    group by e.item_id
  ), popularity as (
    -- in key order, so that two publishes never wait for each other in a circle
    insert into dynrec_data.item_popularity as p (recommender_id, item_id, score, event_count, reference_time, first_met_at, key, rates, rate_keys)
    select {id}, c.item_id, c.score, c.event_count, c.reference_time, c.first_met_at,
      dynrec._popularity_key(c.score, c.reference_time, {trending_half_life}), c.rates, dynrec._rate_keys(c.rates, c.reference_time)
    from counted c order by c.item_id
    on conflict (recommender_id, item_id) do update set (score, event_count, reference_time, first_met_at, key, rates, rate_keys) = (
      select m.score, p.event_count + excluded.event_count, m.at, least(p.first_met_at, excluded.first_met_at),
        dynrec._popularity_key(m.score, m.at, {trending_half_life}), m.rates, dynrec._rate_keys(m.rates, m.at)
      from (select greatest(p.reference_time, excluded.reference_time) as at,
        p.score * dynrec._decay(dynrec._age(excluded.reference_time, p.reference_time), {trending_half_life})
          + excluded.score * dynrec._decay(dynrec._age(p.reference_time, excluded.reference_time), {trending_half_life}) as score,
        dynrec._merged_rates(p.rates, p.reference_time, excluded.rates, excluded.reference_time) as rates) m)
  ), unlocked as materialized (
    -- changes go before leases and retries: a claim locks changes first, too, and then looks for the lease
    select count(*) from used
  ), released as (
    delete from dynrec_data.lease l using unlocked
    where l.token = by_token and l.recommender_id = {id} and l.kind = 'user' and l.entity = any (array(select h.user_id from leased h))
  ), forgiven as (
    delete from dynrec_data.retry t using unlocked
    where t.recommender_id = {id} and t.kind = 'user' and t.entity = any (array(select h.user_id from leased h))
  ), revived as (
    delete from dynrec_data.dead_letter x using unlocked
    where x.recommender_id = {id} and x.kind = 'user' and x.entity = any (array(select h.user_id from leased h))
  )
  select count(*) from leased
$$;
$body$ $template$;
comment on function dynrec._user_publisher_ends() is
  'Internal. Template, last part of the publisher of users: the popularity that their interactions add, and what is done with.';

create or replace function dynrec._publish_users(token uuid) returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  recommender_id int;
  published bigint;
begin
  select l.recommender_id into recommender_id from dynrec_data.lease l where l.token = _publish_users.token and l.kind = 'user' limit 1;
  if not found then
    return 0;
  end if;
  perform dynrec._hold_interactions(r) from dynrec_data.recommender r where r.id = recommender_id;
  -- a rebuild of the popularity counters reads the source and the pending changes at one moment: not between our two
  perform pg_advisory_xact_lock_shared(hashtext('dynrec.popularity'), recommender_id);
  execute format('select dynrec_data.publish_users_%s($1)', recommender_id) into published using token;
  return published;
end
$$;
comment on function dynrec._publish_users(uuid) is 'Internal. Folds the pending interactions of the leased users into their vectors; how many were published.';
