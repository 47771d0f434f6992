-- The features of items and users that models read: what each is, where it comes from, and its value as known at a moment.
-- Their definitions are lists of expressions, of which one query for each recommender is generated.

create or replace function dynrec._feature_number(features jsonb, name text) returns double precision
language sql stable
as $$
  select case pg_catalog.jsonb_typeof(features -> name)
    when 'number' then case
      when pg_catalog.abs((features ->> name)::numeric) < 1e-100 then 0
      when pg_catalog.abs((features ->> name)::numeric) <= 1e100 then (features ->> name)::double precision end
    -- money is kept as it is written; so are NaN and infinity
    when 'string' then case
      when pg_catalog.pg_input_is_valid(features ->> name, 'money') then (features ->> name)::money::numeric::double precision end
  end
$$;
comment on function dynrec._feature_number(jsonb, text) is
  'Internal. A numeric feature of a stored content; null for NaN, infinity and numbers beyond 1e100, which no sum of squares can hold.';

create or replace function dynrec._relative(number double precision, mean double precision) returns double precision
language sql immutable parallel safe
as $$ select case when number = coalesce(mean, number) then 0 when pg_catalog.abs(number) < 1e6 * pg_catalog.abs(mean) then number / mean - 1 end $$;
comment on function dynrec._relative(double precision, double precision) is
  'Internal. number / mean - 1, the mean being that of an item''s own versions: 0 where they do not differ, null where the mean is (next to) 0.';

create or replace function dynrec._slope(
  short double precision, short_half_life double precision, long double precision, long_half_life double precision, age double precision)
returns double precision
language sql immutable parallel safe
as $$
  select coalesce(pg_catalog.ln(
    (short / (short_half_life * (1 - dynrec._decay(greatest(age, 86400), short_half_life))) * 86400 * 0.6931471805599453 + 1 / 30.0::double precision)
    / (long / (long_half_life * (1 - dynrec._decay(greatest(age, 86400), long_half_life))) * 86400 * 0.6931471805599453 + 1 / 30.0::double precision)), 0)
$$;
comment on function dynrec._slope(double precision, double precision, double precision, double precision, double precision) is
  'Internal. ln((s + 1/30) / (l + 1/30)) of two decayed counts as rates a day: count * ln 2 / (half_life * (1 - 2^(-age / half_life))), in days, which is the '
  'true rate of an item that is met steadily from its first interaction, age seconds ago (at least a day), on. 0 for an item that nobody has met.';

create or replace function dynrec._item_feature_list(r dynrec_data.recommender)
returns table ("position" int, feature text, type text, source text, freshness text, expression text)
language sql stable
set search_path from current
as $$
  with rate (slot, name, words) as (
    values (1, '6h', '6 hours'), (2, '1d', '1 day'), (3, '7d', '7 days'), (4, '30d', '30 days'), (5, 'ever', '36500 days')
  ), listed (part, place, feature, type, source, freshness, expression) as (
    select 1, c.place, c.name, 'number', format('column %s of %s', quote_ident(c.name), dynrec._qualified(r.items)), 'with the row''s change',
      format('c.given[%s]', c.place)
    from unnest(r.numeric_columns) with ordinality as c (name, place)
    union all
    select 2, c.place, c.name || '_relative', 'number',
      format('column %s of %s, divided by its mean over the item''s versions so far, less 1', quote_ident(c.name), dynrec._qualified(r.items)),
      'with the row''s change', format('dynrec._relative(c.given[%1$s], m.means[%1$s])', c.place)
    from unnest(r.numeric_columns) with ordinality as c (name, place)
    union all
    select 3, 1, 'age_days', 'number', 'interactions, days since the first with the item; null before it', 'at read', 'p.age / 86400'
    where r.interactions is not null
    union all
    select 4, h.slot, 'popularity_' || h.name, 'number',
      'interactions of kinds of positive weight, ln(1 + decayed count) with half-life ' || h.words, 'at read',
      format('coalesce(ln(1 + p.rates[%s]), 0)', h.slot)
    from rate h where r.interactions is not null
    union all
    select 5, h.slot, format('popularity_slope_%s_%s', h.name, l.name), 'number',
      format('interactions of kinds of positive weight, ln of the rate a day with half-life %s over that with %s', h.words, l.words), 'at read',
      format('dynrec._slope(p.rates[%1$s], (dynrec._rate_half_lives())[%1$s], p.rates[%2$s], (dynrec._rate_half_lives())[%2$s], p.age)', h.slot, l.slot)
    from rate h join rate l on l.slot = h.slot + 1 where r.interactions is not null
    union all
    select 6, c.place, c.name, 'label', format('column %s of %s', quote_ident(c.name), dynrec._qualified(r.items)), 'with the row''s change',
      format('c.features ->> %L', c.name)
    from unnest(r.categorical_columns) with ordinality as c (name, place)
  )
  select (row_number() over (order by l.part, l.place))::int,
    -- a declared column keeps its name where another feature would have it as well
    l.feature || repeat('_', (row_number() over (partition by l.feature order by l.part not in (1, 6), l.part, l.place) - 1)::int),
    l.type, l.source, l.freshness, l.expression
  from listed l order by l.part, l.place
$$;
comment on function dynrec._item_feature_list(dynrec_data.recommender) is
  'Internal. The features of an item, numbers before labels, with the expressions that compute them in the generated queries.';

create or replace function dynrec._feature_names(recommender_id int) returns table ("position" int, feature text, type text)
language sql stable
set search_path from current
as $$
  select f.position, f.feature, f.type
  from dynrec_data.recommender r, dynrec._item_feature_list(r) f where r.id = _feature_names.recommender_id order by f.position
$$;
comment on function dynrec._feature_names(int) is
  'Internal. The features of an item that models read, numbers before labels: the order of the arrays that dynrec._item_features returns.';

create or replace function dynrec._feature_sql(r dynrec_data.recommender) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'given', (select format('array[%s]::double precision[]', string_agg(format('dynrec._feature_number(v.features, %L)', c.name), ', ' order by c.place))
      from unnest(r.numeric_columns) with ordinality as c (name, place)),
    'means', (select format('array[%s]::double precision[]', string_agg(format('avg(v.given[%s])', c.place), ', ' order by c.place))
      from unnest(r.numeric_columns) with ordinality as c (name, place)),
    'numbers', format('array[%s]::double precision[]', string_agg(f.expression, ', ' order by f.position) filter (where f.type = 'number')),
    'labels', format('array[%s]::text[]', string_agg(f.expression, ', ' order by f.position) filter (where f.type = 'label')),
    'number_names', quote_literal(coalesce(array_agg(f.feature order by f.position) filter (where f.type = 'number'), '{}')) || '::text[]',
    'label_names', quote_literal(coalesce(array_agg(f.feature order by f.position) filter (where f.type = 'label'), '{}')) || '::text[]')
  from dynrec._item_feature_list(r) f
$$;
comment on function dynrec._feature_sql(dynrec_data.recommender) is
  'Internal. What the templates of features name beside the names of the recommender: lists of expressions over a version c, its means m and its popularity p.';

create or replace function dynrec._features_query(r dynrec_data.recommender, wanted text, events text) returns text
language sql stable
set search_path from current
as $$
  select replace(replace($query$
    with version as (
      select v.*, {given} as given
      from (
        select s.item_id, s.features, s.created_at, null::timestamptz as replaced_at
        from dynrec_data.item_content s where s.recommender_id = {id} and [wanted]
        union all
        select s.item_id, s.features, s.created_at, s.replaced_at
        from dynrec_data.item_content_history s where s.recommender_id = {id} and [wanted]
      ) v
    ), chosen as (
      -- the version of that moment; before the first one, the first
      select distinct on (v.item_id) v.* from version v
      order by v.item_id, v.created_at > known_at, case when v.created_at <= known_at then v.created_at end desc, v.created_at
    ), mean as (
      select v.item_id, {means} as means from version v where v.created_at <= known_at group by v.item_id
    ), popularity as ([events]
    )
    select c.item_id, {numbers}, {labels}
    from chosen c left join mean m on m.item_id = c.item_id left join popularity p on p.item_id = c.item_id
    where case when c.created_at <= known_at then c.replaced_at is null or c.replaced_at > known_at else backdated end;
    $query$, '[wanted]', wanted), '[events]', case when r.interactions is null
      then 'select null::text as item_id, null::double precision as age, null::double precision[] as rates where false'
      else format($events$
      select e.item_id, max(e.age) as age, array[
        sum(case when e.wanted then dynrec._decay(e.age, (dynrec._rate_half_lives())[1]) else 0 end),
        sum(case when e.wanted then dynrec._decay(e.age, (dynrec._rate_half_lives())[2]) else 0 end),
        sum(case when e.wanted then dynrec._decay(e.age, (dynrec._rate_half_lives())[3]) else 0 end),
        sum(case when e.wanted then dynrec._decay(e.age, (dynrec._rate_half_lives())[4]) else 0 end),
        sum(case when e.wanted then dynrec._decay(e.age, (dynrec._rate_half_lives())[5]) else 0 end)] as rates
      from (
        -- offset 0: the age is worked out once, not for each half-life
        select i.item_id, dynrec._age(read_at, i.occurred_at) as age, dynrec_data.kind_weight_{id}(i.kind, 1) > 0 as wanted
        from %s i where i.occurred_at < read_at offset 0
      ) e group by e.item_id$events$, events) end)
$$;
comment on function dynrec._features_query(dynrec_data.recommender, text, text) is
  'Internal. Template of the query of item features at read_at and as known_at, for the stored contents that are wanted and these interactions.';

create or replace function dynrec._feature_reader(r dynrec_data.recommender) returns text
language sql stable
set search_path from current
as $body$
  select dynrec._render_code($template$
create or replace function dynrec_data.item_features_{id}(item_ids text[], moment timestamptz, backdated boolean)
returns table (item_id text, numbers double precision[], labels text[])
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  read_at timestamptz := coalesce(moment, dynrec._now());
  known_at timestamptz := coalesce(moment, 'infinity');
begin
  if item_ids is null then
    return query $template$ || dynrec._features_query(r, 'true', 'dynrec_data.interactions_all_{id}()') || $template$
  else
    return query $template$ || dynrec._features_query(r, 's.item_id = any (item_ids)', 'dynrec_data.interactions_with_{id}(item_ids)') || $template$
  end if;
end
$$;
$template$, dynrec._names(r) || dynrec._feature_sql(r))
$body$;
comment on function dynrec._feature_reader(dynrec_data.recommender) is
  'Internal. The code that reads the features of items (null: all) now (null) or as known at a moment, interactions strictly before it. backdated: '
  'the first version stands in where none was known yet.';

create or replace function dynrec._item_features(recommender_id int, item_ids text[], moment timestamptz)
returns table (item_id text, numbers double precision[], labels text[])
language plpgsql stable
set search_path from current
as $$
begin
  return query execute format('select f.* from dynrec_data.item_features_%s($1, $2, true) f', recommender_id) using item_ids, moment;
end
$$;
comment on function dynrec._item_features(int, text[], timestamptz) is
  'Internal. The features of items (null: all) at a moment (null: now), in the order of dynrec._feature_names; null for what is missing. An item that was '
  'not known yet at that moment has the columns of its first version; one without a stored content has no row.';
