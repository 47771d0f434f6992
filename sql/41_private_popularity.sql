-- Popularity that is differentially private: counters that others see are released once a day, clipped and with noise.

create or replace function dynrec._is_private(r dynrec_data.recommender) returns boolean
language sql immutable
set search_path from current
as $$ select r.options ->> 'popularity_epsilon' is not null $$;
comment on function dynrec._is_private(dynrec_data.recommender) is 'Internal. Whether the popularity counters of a recommender are differentially private.';

create or replace function dynrec._random_fraction() returns double precision
language sql volatile
as $$ select (('x' || right(gen_random_uuid()::text, 12))::bit(48)::bigint + 1) / 281474976710656::double precision $$;
comment on function dynrec._random_fraction() is
  'Internal. A number above 0 and up to 1, of 48 bits that nobody can foresee: the server''s strong randomness, by way of a random UUID. random() would not do.';

create or replace function dynrec._discrete_laplace(scale double precision) returns bigint
language sql volatile
set search_path from current
as $$ select floor(-ln(dynrec._random_fraction()) * scale)::bigint - floor(-ln(dynrec._random_fraction()) * scale)::bigint $$;
comment on function dynrec._discrete_laplace(double precision) is
  'Internal. A whole number z with probability proportional to exp(-|z| / scale), as the difference of two geometric ones (Ghosh, Roughgarden, Sundararajan, STOC 2009). '
  'Whole numbers leak nothing through the rounding of floating point (Mironov, CCS 2012); what 48 random bits cannot reach has a probability below 2^-47.';

create or replace function dynrec._bounded_popularity(recommender_id int, until timestamptz) returns table (item_id text, units bigint)
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender;
begin
  select x.* into strict r from dynrec_data.recommender x where x.id = _bounded_popularity.recommender_id;
  return query execute dynrec._render($query$
    with event as (
      select i.user_id, i.item_id, date_trunc('day', i.occurred_at, 'UTC') as day, sum(dynrec_data.kind_weight_{id}(i.kind, i.value)) as weight
      from dynrec_data.interactions_all_{id}() i
      -- a day counts once it is over, and no longer than there is a unit left of it
      where i.occurred_at < date_trunc('day', $1, 'UTC') and dynrec._age($1, i.occurred_at) < 10 * {trending_half_life} + 86400
      group by i.user_id, i.item_id, date_trunc('day', i.occurred_at, 'UTC')
    ), bounded as (
      select e.item_id, trunc(e.weight * least(1, $2 / nullif(sum(abs(e.weight)) over (partition by e.user_id, e.day), 0))
        * dynrec._decay(dynrec._age($1, e.day) - 86400, {trending_half_life}) * 1000 / $2)::bigint as units
      from event e
    )
    select b.item_id, sum(b.units)::bigint from bounded b where b.units <> 0 group by b.item_id
    $query$, dynrec._names(r)) using until, (r.options ->> 'popularity_bound')::double precision;
end
$$;
comment on function dynrec._bounded_popularity(int, timestamptz) is
  'Internal. The popularity of items without noise, in thousandths of popularity_bound: what one user does in one UTC day is scaled down to an absolute weight of popularity_bound in all, '
  'decays from the end of that day with trending_half_life, and is cut to whole units item by item, so that it never adds more than 1000 * 2^(-age / half-life) units.';

create or replace function dynrec._noise_scale(r dynrec_data.recommender) returns double precision
language sql stable
set search_path from current
as $$
  -- a day that is released again and again has decayed each time: 1 + q + q^2 + … = 1 / (1 - q), with q = 2^(-1 day / half-life)
  select 1000 / ((r.options ->> 'popularity_epsilon')::double precision * (1 - exp2.q))
  from (select power(2::double precision, -86400 / dynrec._seconds((r.options ->> 'trending_half_life')::interval)) as q) exp2
$$;
comment on function dynrec._noise_scale(dynrec_data.recommender) is
  'Internal. The scale of the noise of one release, in units, with which all releases together are popularity_epsilon-differentially private for a user''s day.';

create or replace function dynrec._release_popularity(r dynrec_data.recommender) returns bigint
language plpgsql
set search_path from current
as $$
declare
  released bigint;
  moment timestamptz := clock_timestamp();
begin
  if r.popularity_released_at > moment - interval '1 day' then
    return 0;  -- more often would tell more
  end if;
  execute format('delete from dynrec_data.item_popularity p where p.recommender_id = %1$s and not exists (select from dynrec_data.source_keys_%1$s() k where k = p.item_id)', r.id);
  execute dynrec._render($query$
    insert into dynrec_data.item_popularity (recommender_id, item_id, score, event_count, reference_time, first_met_at, key)
    select {id}, n.item_id, n.score, 1, $1, $1, dynrec._popularity_key(n.score, $1, {trending_half_life})
    from (
      -- every item of the catalogue, whether anybody met it or not
      select k.item_id, (coalesce(b.units, 0) + dynrec._discrete_laplace($2)) * $3 / 1000 as score
      from dynrec_data.source_keys_{id}() as k (item_id) left join dynrec._bounded_popularity({id}, $1) b using (item_id)
    ) n order by n.item_id
    on conflict (recommender_id, item_id) do update set score = excluded.score, event_count = 1, reference_time = excluded.reference_time,
      first_met_at = excluded.first_met_at, key = excluded.key, rates = null, rate_keys = null
    $query$, dynrec._names(r)) using moment, dynrec._noise_scale(r), (r.options ->> 'popularity_bound')::double precision;
  get diagnostics released = row_count;
  update dynrec_data.recommender x set popularity_released_at = moment, popularity_since = coalesce(x.popularity_since, clock_timestamp()) where x.id = r.id;
  return released;
end
$$;
comment on function dynrec._release_popularity(dynrec_data.recommender) is
  'Internal. Replaces the popularity counters of a recommender by private ones, at most once a day; how many items have one.';

create or replace function dynrec._forget_popularity(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$
  select pg_advisory_xact_lock(hashtext('dynrec.popularity'), r.id);
  delete from dynrec_data.item_popularity p where p.recommender_id = r.id;
  delete from dynrec_data.item_popularity_history h where h.recommender_id = r.id;
  update dynrec_data.recommender x set popularity_since = null, popularity_released_at = null where x.id = r.id;
$$;
comment on function dynrec._forget_popularity(dynrec_data.recommender) is
  'Internal. Removes all counters of a recommender, with their past: exact ones from what is private from now on, or the other way round.';
