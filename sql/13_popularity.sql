-- Popularity: decayed sums as at an item's latest interaction, with keys that order items whatever the time is.

create or replace function dynrec._rate_half_lives() returns double precision[]
language sql immutable parallel safe
as $$ select '{21600, 86400, 604800, 2592000, 3153600000}'::double precision[] $$;
comment on function dynrec._rate_half_lives() is
  'Internal. The half-lives of item_popularity.rates in seconds: 6 hours, 1, 7 and 30 days, and 36500 days, which is for ever.';

create or replace function dynrec._popularity_key(score double precision, reference_time timestamptz, half_life double precision)
returns double precision
language sql immutable parallel safe
as $$
  select case when score > 1e-300
    then pg_catalog.ln(score) / 0.6931471805599453 + pg_catalog.date_part('epoch', reference_time at time zone 'UTC') / half_life
    else '-infinity' end
$$;
comment on function dynrec._popularity_key(double precision, timestamptz, double precision) is
  'Internal. log2 of a decayed sum, forward to a common moment: orders items by their sums at any time without rewriting them '
  '(forward decay: Cormode et al., ICDE 2009; in logarithms, which never overflow). -infinity for sums that are not positive.';

create or replace function dynrec._rate_keys(rates double precision[], reference_time timestamptz) returns double precision[]
language sql immutable parallel safe
set search_path from current
as $$
  select array_agg(dynrec._popularity_key(r.rate, reference_time, h.half_life) order by h.slot)
  from unnest(rates) with ordinality as r (rate, slot) join unnest(dynrec._rate_half_lives()) with ordinality as h (half_life, slot) using (slot)
$$;
comment on function dynrec._rate_keys(double precision[], timestamptz) is 'Internal. The key of each of the rates; null for null.';

create or replace function dynrec._rates_at(rates double precision[], reference_time timestamptz, moment timestamptz) returns double precision[]
language sql immutable parallel safe
set search_path from current
as $$
  select array_agg(r.rate * dynrec._decay(dynrec._age(moment, reference_time), h.half_life) order by h.slot)
  from unnest(rates) with ordinality as r (rate, slot) join unnest(dynrec._rate_half_lives()) with ordinality as h (half_life, slot) using (slot)
$$;
comment on function dynrec._rates_at(double precision[], timestamptz, timestamptz) is
  'Internal. Rates that hold at reference_time, decayed to a later moment; null for null.';

create or replace function dynrec._merged_rates(
  rates double precision[], reference_time timestamptz, more double precision[], more_time timestamptz) returns double precision[]
language sql immutable parallel safe
set search_path from current
as $$
  select array_agg(a.rate + b.rate order by a.slot)
  from unnest(dynrec._rates_at(rates, reference_time, greatest(reference_time, more_time))) with ordinality as a (rate, slot)
  join unnest(dynrec._rates_at(more, more_time, greatest(reference_time, more_time))) with ordinality as b (rate, slot) using (slot)
$$;
comment on function dynrec._merged_rates(double precision[], timestamptz, double precision[], timestamptz) is
  'Internal. The sum of two sets of rates, as at the later of their times; null if one is missing.';

create or replace function dynrec._rate_sums() returns text
language sql immutable
set search_path from current
as $$
  select format('array[%s]', string_agg(format('sum(e.wanted * dynrec._decay(e.age, (dynrec._rate_half_lives())[%s]))', h.slot), ', ' order by h.slot))
  from unnest(dynrec._rate_half_lives()) with ordinality as h (half_life, slot)
$$;
comment on function dynrec._rate_sums() is
  'Internal. The aggregate that makes rates of interactions e: e.wanted is what each counts (1, or 0 for kinds without positive weight; less for one taken back), e.age seconds.';

create or replace function dynrec._popularity_known(recommender_id int, known_at timestamptz)
returns table (item_id text, score double precision, event_count bigint, reference_time timestamptz, rates double precision[])
language sql stable
as $$
  select p.item_id, p.score, p.event_count, p.reference_time, p.rates from dynrec_data.item_popularity p
  where p.recommender_id = $1 and p.created_at <= $2
  union all
  select h.item_id, h.score, h.event_count, h.reference_time, h.rates from dynrec_data.item_popularity_history h
  where h.recommender_id = $1 and h.created_at <= $2 and h.replaced_at > $2
$$;
comment on function dynrec._popularity_known(int, timestamptz) is
  'Internal. The counters of popularity as known at a moment, with the times that they hold at. Before recommender.popularity_since there are none.';
