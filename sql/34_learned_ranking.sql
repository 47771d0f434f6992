-- Generated ranking of a learned model, R = h(U, I'): the inner product, and what cannot go into one: transitions, momentary popularity, repeats.

create or replace function dynrec._learned_ranker() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.rates_m{model}(known_at timestamptz)
returns table (item_id text, event_count bigint, rates double precision[], reference_time timestamptz)
language sql stable
set search_path from current
as $$
  select p.item_id, p.event_count, p.rates, p.reference_time
  from dynrec_data.recommender r, dynrec._popularity_known({id}, known_at) p where r.id = {id} and r.popularity_since <= known_at
  union all
  -- a moment before anything was counted: from what is in the source now
  select e.item_id, count(*), {rate_sums}, known_at
  from (
    select i.item_id, dynrec._age(known_at, i.occurred_at) as age, (dynrec_data.kind_weight_{id}(i.kind, 1) > 0)::int as wanted
    from dynrec_data.interactions_all_{id}() i
    where i.occurred_at <= known_at and coalesce((select r.popularity_since > known_at from dynrec_data.recommender r where r.id = {id}), true)
  ) e
  group by e.item_id
$$;
create or replace function dynrec_data.nobody_m{model}(context int) returns vector
language sql immutable
set search_path from current
as $$ select dynrec._zero({dimension} - 1) || array[({bias_weight})[context]]::vector $$;
create or replace function dynrec_data.popular_m{model}(known_at timestamptz)
returns table (slot int, item_id text, rate double precision)
language plpgsql stable rows 250
set search_path from current
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query with past as materialized (
    select r.item_id, r.rates, dynrec._age(known_at, r.reference_time) as age
    from dynrec_data.rates_m{model}(known_at) r where known_at is not null and r.rates is not null
  )
  select s.slot, t.item_id, t.rate from generate_series(1, 5) s (slot), lateral (
    select p.item_id, p.rates[s.slot] * dynrec._decay(p.age, (dynrec._rate_half_lives())[s.slot]) as rate from past p
    order by rate desc, p.item_id limit 50
  ) t
  union all
  select p.slot, p.item_id, p.rates[p.slot] * dynrec._decay(dynrec._age(dynrec._now(), p.reference_time), (dynrec._rate_half_lives())[p.slot])
  from (
    (select 1 as slot, p.* from dynrec_data.item_popularity p where p.recommender_id = {id} and p.rate_keys is not null order by p.rate_keys[1] desc limit 50)
    union all
    (select 2, p.* from dynrec_data.item_popularity p where p.recommender_id = {id} and p.rate_keys is not null order by p.rate_keys[2] desc limit 50)
    union all
    (select 3, p.* from dynrec_data.item_popularity p where p.recommender_id = {id} and p.rate_keys is not null order by p.rate_keys[3] desc limit 50)
    union all
    (select 4, p.* from dynrec_data.item_popularity p where p.recommender_id = {id} and p.rate_keys is not null order by p.rate_keys[4] desc limit 50)
    union all
    (select 5, p.* from dynrec_data.item_popularity p where p.recommender_id = {id} and p.rate_keys is not null order by p.rate_keys[5] desc limit 50)
  ) p
  where known_at is null;
end
$$;
create or replace function dynrec_data.ranked_m{model}(
  item_ids text[], query vector, context int, for_user text, tops double precision[], following text[], strengths double precision[], known_at timestamptz)
returns table (item_id text, score double precision, is_new boolean)
language plpgsql stable
set search_path from current
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  asked vector := coalesce(query, dynrec_data.nobody_m{model}(context));
  read_at timestamptz := coalesce(known_at, dynrec._now());
  half_lives double precision[] := dynrec._rate_half_lives();
  weight double precision := ({popularity_weight})[context];
  shares double precision[];  -- of the mixture, over what the half-life's most popular items have
  powers double precision[];
  unit double precision;  -- what the powers make of those items
begin
  select array_agg(m.mixture[h][context] / (tops[h] + 0.5) order by h), array_agg(m.power[h][context] order by h), sum(m.power[h][context] * ln(tops[h] + 0.5))
  into shares, powers, unit from (select {mixture} as mixture, {power} as power) m, generate_series(1, 5) h;
  return query
    with uncounted as materialized (
      select r.* from dynrec_data.rates_m{model}(known_at) r
      where known_at is not null and coalesce((select c.popularity_since > known_at from dynrec_data.recommender c where c.id = {id}), true)
    ), met as materialized (
      select i.item_id, count(*) as times, max(i.occurred_at) as last_at from (
        select n.item_id, n.occurred_at from dynrec_data.interactions_{id}(array[for_user]) n where known_at is null
        union all
        select p.item_id, p.occurred_at from dynrec_data.interactions_known_m{model}(for_user, known_at) p where known_at is not null and p.occurred_at <= known_at
      ) i group by i.item_id
    ), given as materialized (
      select i.item_id, case when known_at is null
        then (select dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector_{model} v where v.item_id = i.item_id)
        else dynrec_data.vector_known_m{model}(i.item_id, known_at) end as embedding
      from unnest(item_ids) as i (item_id)
    ), counted as (
      select g.item_id, -(g.embedding <#> asked) as product, p.event_count, p.rates, dynrec._age(read_at, p.reference_time) as age
      from given g left join lateral (
        select n.event_count, n.rates, n.reference_time from dynrec_data.item_popularity n
        where n.recommender_id = {id} and n.item_id = g.item_id
          and (known_at is null or n.created_at <= known_at and not exists (select from uncounted))
        union all
        select h.event_count, h.rates, h.reference_time from dynrec_data.item_popularity_history h
        where known_at is not null and h.recommender_id = {id} and h.item_id = g.item_id and h.created_at <= known_at and h.replaced_at > known_at
          and not exists (select from uncounted)
        union all
        select u.event_count, u.rates, u.reference_time from uncounted u where u.item_id = g.item_id
      ) p on true
      where g.embedding is not null
    ), rated as materialized (
      select c.item_id, c.product, coalesce(c.event_count, 0) < 1 as is_new, c.rates is not null as is_rated, array[
        greatest(c.rates[1] * dynrec._decay(c.age, half_lives[1]), 0) + 0.5,
        greatest(c.rates[2] * dynrec._decay(c.age, half_lives[2]), 0) + 0.5,
        greatest(c.rates[3] * dynrec._decay(c.age, half_lives[3]), 0) + 0.5,
        greatest(c.rates[4] * dynrec._decay(c.age, half_lives[4]), 0) + 0.5,
        greatest(c.rates[5] * dynrec._decay(c.age, half_lives[5]), 0) + 0.5] as rates
      from counted c
    )
    select c.item_id, c.product + coalesce(f.strength, 0)
        + case when c.is_new or not c.is_rated then ({cold})[context] else
          weight * ln(shares[1] * c.rates[1] + shares[2] * c.rates[2] + shares[3] * c.rates[3] + shares[4] * c.rates[4] + shares[5] * c.rates[5])
          + powers[1] * ln(c.rates[1]) + powers[2] * ln(c.rates[2]) + powers[3] * ln(c.rates[3]) + powers[4] * ln(c.rates[4]) + powers[5] * ln(c.rates[5])
          - unit end
        + case when met.item_id is null then 0 else ({repeat_base})[context] + {repeat_count} * ln(1.0::double precision + met.times)
          + {repeat_recency} * ln(1 + dynrec._age(read_at, met.last_at) / 86400) end,
      c.is_new
    from rated c left join met on met.item_id = c.item_id
    left join unnest(following, strengths) as f (item_id, strength) on f.item_id = c.item_id;
end
$$;
create or replace function dynrec_data.own_m{model}(for_user text, known_at timestamptz) returns text[]
language sql stable
set search_path from current
as $$
  select coalesce(array_agg(o.item_id), '{}') from (
    select i.item_id from (
      select n.item_id, n.occurred_at from dynrec_data.interactions_{id}(array[for_user]) n where known_at is null
      union all
      select p.item_id, p.occurred_at from dynrec_data.interactions_known_m{model}(for_user, known_at) p where known_at is not null and p.occurred_at <= known_at
    ) i group by i.item_id order by max(i.occurred_at) desc, i.item_id limit 50
  ) o
$$;
create or replace function dynrec_data.tops_m{model}(rates double precision[], slots int[]) returns double precision[]
language sql immutable
set search_path from current
as $$
  select array_agg(coalesce(t.mean, 0) order by s.slot)
  from generate_series(1, 5) s (slot)
  left join (select p.slot, avg(greatest(p.rate, 0)) as mean from unnest(slots, rates) as p (slot, rate) group by p.slot) t using (slot)
$$;
$body$ $template$;
comment on function dynrec._learned_ranker() is
  'Internal. Template: the 50 most popular items by half-life, the 50 items that a user met last, and the scores of candidates: the inner product of query and embedding, plus what transitions add, plus a weight times '
  'ln(sum over half-lives of mixture * r) + sum over half-lives of power * ln(r), r = (rate + 1/2) / (mean rate of the top 50 + 1/2), or a constant for an item that nobody has met, plus a term for items that the user has met.';

create or replace function dynrec._learned_recommend_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.recommend_m{model}(for_user text, n int, excluded text[], leave_out_seen boolean)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
set hnsw.iterative_scan = '{scan}'
set hnsw.ef_search = {least_probe}
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
declare
  asked record;
  query vector;
  wanted int := greatest({candidates}, 3 * n);
  met text[] := '{}';
  slots int := dynrec._held_slots(n, {exploration}, for_user, dynrec._now());
begin
  select q.* into asked from dynrec_data.query_m{model}(for_user) q;
  query := asked.query;
  if query is null then
    return;
  end if;
  if leave_out_seen then
    met := array(select distinct i.item_id from dynrec_data.interactions_{id}(array[for_user]) i);
  end if;
  perform set_config('hnsw.ef_search', dynrec._probe({holds}, wanted, cardinality(excluded || met), {least_probe})::text, true);
  return query
    with nearest as materialized (
      select v.item_id from dynrec_data.item_vector_{model} v
      where not (v.item_id in (select e from unnest(excluded) e where e is not null))
        and not (v.item_id in (select m from unnest(met) m))
        and exists (select from {items} i where i.{key} = v.item_id::{key_type})
      order by {distance}
      limit wanted
    ), popular as materialized (
      select p.* from dynrec_data.popular_m{model}(null) p
    ), following as materialized (
      select f.* from dynrec_data.following_m{model}(for_user, null, asked.context, null) f
    ), candidate as materialized (
      select f.item_id, min(f.place) as place from (
        select x.item_id, 1 as place from nearest x
        union all
        select f.item_id, 2 from following f where f.is_candidate
        union all
        select p.item_id, 3 from popular p where p.slot between 2 and 4
        union all
        select o, 4 from unnest(dynrec_data.own_m{model}(for_user, null)) o where not leave_out_seen
      ) f
      where f.place = 1 or not (f.item_id in (select e from unnest(excluded) e where e is not null))
        and not (f.item_id in (select m from unnest(met) m))
        -- not by exists(): that could be answered by hashing the whole table
        and (select true from {items} i where i.{key} = case when pg_input_is_valid(f.item_id, '{key_type}') then f.item_id::{key_type} end limit 1)
      group by f.item_id
    ), ranked as materialized (
      select r.*, row_number() over best as place, row_number() over (partition by r.is_new order by r.score desc, r.item_id) as among,
        nth_value(r.score, n) over (best rows between unbounded preceding and unbounded following) as last
      from dynrec_data.ranked_m{model}(array(select c.item_id from candidate c), asked.query, asked.context, for_user,
        dynrec_data.tops_m{model}(array(select p.rate from popular p), array(select p.slot from popular p)),
        array(select f.item_id from following f), array(select f.strength from following f), null) r
      window best as (order by r.score desc, r.item_id)
    ), chosen as (
      select r.*, dynrec._held_place(r.place, r.among, r.is_new and coalesce(r.score >= r.last - {exploration_gap}, true), n, slots) as held
      from ranked r order by held, r.place limit n
    )
    select r.item_id, (row_number() over (order by r.held, r.place))::int, r.score,
      case c.place when 3 then 'trending' when 4 then 'repeat' else 'personal' end, {model}
    from chosen r join candidate c using (item_id)
    where (select count(*) from chosen) = n
    order by 2;
end
$$;
$body$ $template$;
comment on function dynrec._learned_recommend_reader() is
  'Internal. Template: n recommendations of a learned model for the plain case, or none where the user or enough candidates are unknown: then the long way is taken.';

create or replace function dynrec._held_slots(n int, exploration double precision, for_user text, moment timestamptz) returns int
language sql stable
set search_path from current
as $$
  select floor(n * exploration + (hashtext(coalesce(for_user, '') || to_char(moment at time zone 'UTC', 'YYYY-MM-DD'))::bigint + 2147483648) / 4294967296.0)::int
$$;
comment on function dynrec._held_slots(int, double precision, text, timestamptz) is
  'Internal. How many of n places are held for items that nobody has met: n * exploration, rounded up or down by user and day.';

create or replace function dynrec._held_place(place bigint, among bigint, is_worth_it boolean, n int, slots int) returns double precision
language sql immutable parallel safe
as $$ select case when is_worth_it and among <= slots then least(place, n - slots + 0.5) else place end $$;
comment on function dynrec._held_place(bigint, bigint, boolean, int, int) is
  'Internal. The place of a candidate in a list of n whose last slots are held for the best of the items that nobody has met, those whose score is not too far below the others.';
