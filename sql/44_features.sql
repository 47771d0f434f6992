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
language sql stable security definer
set search_path from current
as $$
  select f.position, f.feature, f.type
  from dynrec_data.recommender r, dynrec._item_feature_list(r) f where r.id = _feature_names.recommender_id order by f.position
$$;
comment on function dynrec._feature_names(int) is
  'Internal. The features of an item that models read, numbers before labels: the order of the arrays that dynrec._item_features returns.';

create or replace function dynrec._feature_sql(r dynrec_data.recommender, over_window text) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    -- the interactions may have keys of a narrower type
    'met_ids', case when r.interactions is null then 'null'
      else format('array(select i from unnest(item_ids) i where dynrec._is_key(i, %L))', r.item_ref_type) end,
    'given', (select format('array[%s]::double precision[]', string_agg(format('dynrec._feature_number(v.features, %L)', c.name), ', ' order by c.place))
      from unnest(r.numeric_columns) with ordinality as c (name, place)),
    'means', (select format('array[%s]::double precision[]', string_agg(format('avg(v.given[%s]) %s', c.place, over_window), ', ' order by c.place))
      from unnest(r.numeric_columns) with ordinality as c (name, place)),
    'numbers', format('array[%s]::double precision[]', string_agg(f.expression, ', ' order by f.position) filter (where f.type = 'number')),
    'labels', format('array[%s]::text[]', string_agg(f.expression, ', ' order by f.position) filter (where f.type = 'label')),
    'number_names', quote_literal(coalesce(array_agg(f.feature order by f.position) filter (where f.type = 'number'), '{}')) || '::text[]',
    'label_names', quote_literal(coalesce(array_agg(f.feature order by f.position) filter (where f.type = 'label'), '{}')) || '::text[]')
  from dynrec._item_feature_list(r) f
$$;
comment on function dynrec._feature_sql(dynrec_data.recommender, text) is
  'Internal. What the templates of features name beside the names of the recommender: lists of expressions over a version c, its means m (over a window, or, empty, of a group) '
  'and its popularity p.';

create or replace function dynrec._user_feature_list(r dynrec_data.recommender)
returns table ("position" int, feature text, type text, source text, freshness text, expression text)
language sql stable
set search_path from current
as $$
  with listed (part, place, feature, source, expression) as (
    select l.* from (values
      (1, 1, 'event_count', 'interactions, their number', 'count(e.item_id) [over]'),
      (1, 2, 'distinct_items', 'interactions, the number of different items', 'count(e.item_id) filter (where e.is_first) [over]'),
      (1, 3, 'days_since_last', 'interactions, days since the last; null before any', 'date_part(''epoch'', [moment] - max(e.occurred_at) [over]) / 86400'),
      (1, 4, 'days_since_first', 'interactions, days since the first; null before any', 'date_part(''epoch'', [moment] - min(e.occurred_at) [over]) / 86400'),
      (1, 5, 'value_count', 'interactions, the number of those with a value', 'count(e.value) [over]'),
      (1, 6, 'value_mean', 'interactions, mean of their values; null without', 'avg(e.value) [over]')
    ) l (part, place, feature, source, expression) where r.interactions is not null
    union all
    select 2, row_number() over (order by k.kind), 'count_' || k.kind, format('interactions of kind %L, their number', k.kind),
      format('count(e.item_id) filter (where e.kind = %L) [over]', k.kind)
    from dynrec_data.interaction_kind k where k.recommender_id = r.id and k.kind <> '*' and r.interactions is not null
  )
  select (row_number() over (order by l.part, l.place))::int, l.feature, 'number', l.source, 'at read', l.expression
  from listed l order by l.part, l.place
$$;
comment on function dynrec._user_feature_list(dynrec_data.recommender) is
  'Internal. The features of a user, with the aggregates over interactions e that compute them: [over] takes a window, [moment] the moment.';

create or replace function dynrec._user_feature_sql(r dynrec_data.recommender, moment text, over_window text) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'user_numbers', format('array[%s]::double precision[]',
      string_agg(replace(replace(f.expression, '[moment]', moment), '[over]', over_window), ', ' order by f.position)),
    'user_names', quote_literal(coalesce(array_agg(f.feature order by f.position), '{}')) || '::text[]')
  from dynrec._user_feature_list(r) f
$$;
comment on function dynrec._user_feature_sql(dynrec_data.recommender, text, text) is
  'Internal. What the templates of features of users name: the aggregates, over a window or (empty) of a group, and their names.';

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
    select c.item_id, {numbers}, {labels}, case when row_number() over () = 1 then {number_names} || {label_names} end
    from chosen c left join mean m on m.item_id = c.item_id left join popularity p on p.item_id = c.item_id
    where case when c.created_at <= known_at then c.replaced_at is null or c.replaced_at > known_at else backdated end;
    $query$, '[wanted]', wanted), '[events]', case when r.interactions is null
      then 'select null::text as item_id, null::double precision as age, null::double precision[] as rates where false'
      else format($events$
      select e.item_id, max(e.age) as age, {rate_sums} as rates
      from (
        -- offset 0: the age is worked out once, not for each half-life
        select i.item_id, dynrec._age(read_at, i.occurred_at) as age, (dynrec_data.kind_weight_{id}(i.kind, 1) > 0)::int as wanted
        from %s i where i.occurred_at < read_at offset 0
      ) e group by e.item_id$events$, events) end)
$$;
comment on function dynrec._features_query(dynrec_data.recommender, text, text) is
  'Internal. Template of the query of item features at read_at and as known_at, for the stored contents that are wanted and these interactions. One of the rows has the names: '
  'those by which this very code reads, whatever is declared meanwhile.';

create or replace function dynrec._interactions_then() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.interactions_then_{id}(item_ids text[], known_at timestamptz)
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
set search_path from current
as $$
  with later as (
    select c.op, c.entity as user_id, c.item_id, c.event_kind, c.value, c.occurred_at from dynrec_data.change c
    where c.recommender_id = {id} and c.kind = 'user' and c.item_id = any (item_ids) and c.captured_at > known_at
    union all
    select c.op, h.user_id, c.item_id, c.event_kind, c.value, c.occurred_at
    from dynrec_data.user_vector_history h, jsonb_to_recordset(h.closing_events)
      as c (op text, item_id text, event_kind text, value double precision, occurred_at timestamptz, captured_at timestamptz)
    -- a version ends when its last change was captured that a lease began with: for the partitions; no lease lasts a day
    where h.model_id = {content_model} and h.valid_to > known_at - interval '1 day' and h.replaced_at > known_at
      and c.item_id = any (item_ids) and c.captured_at > known_at
  )
  select i.user_id, i.item_id, i.kind, i.value, i.occurred_at from dynrec_data.interactions_with_{id}(item_ids) i
  union all select l.user_id, l.item_id, l.event_kind, l.value, l.occurred_at from later l where l.op in ('delete', 'went')
  except all select l.user_id, l.item_id, l.event_kind, l.value, l.occurred_at from later l where l.op in ('insert', 'came')
$$;
$body$ $template$;
comment on function dynrec._interactions_then() is
  'Internal. Template: the interactions with items that were known at a moment: those of today, with what went since and less what came.';

create or replace function dynrec._feature_reader(r dynrec_data.recommender) returns text
language sql stable
set search_path from current
as $body$
  select dynrec._render_code(case when r.interactions is null then '' else dynrec._interactions_then() end || $template$
create or replace function dynrec_data.item_features_{id}(item_ids text[], moment timestamptz, backdated boolean)
returns table (item_id text, numbers double precision[], labels text[], names text[])
language plpgsql stable
set search_path from current
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  read_at timestamptz := coalesce(moment, dynrec._now());
  known_at timestamptz := coalesce(moment, 'infinity');
  met_ids text[] := {met_ids};
begin
  if item_ids is null then
    return query $template$ || dynrec._features_query(r, 'true', 'dynrec_data.interactions_all_{id}()') || $template$
  elsif backdated or known_at >= now() then
    return query $template$ || dynrec._features_query(r, 's.item_id = any (item_ids)', 'dynrec_data.interactions_with_{id}(met_ids)') || $template$
  else
    return query $template$ || dynrec._features_query(r, 's.item_id = any (item_ids)', 'dynrec_data.interactions_then_{id}(met_ids, known_at)') || $template$
  end if;
end
$$;
$template$ || case when r.interactions is null then '' else $template$
create or replace function dynrec_data.user_features_{id}(for_user text, moment timestamptz) returns double precision[]
language sql stable
set search_path from current
as $$
  select {user_numbers} from (
    select i.*, row_number() over (partition by i.item_id order by i.occurred_at) = 1 as is_first
    from (
      select k.* from dynrec_data.interactions_known_m{content_model}(for_user, moment) k where moment >= {declared_at}
      union all
      select p.item_id, p.kind, p.value, p.occurred_at from dynrec_data.interactions_{id}(array[for_user]) p where moment < {declared_at}
    ) i where i.occurred_at < moment
  ) e
$$;
$template$ end, dynrec._names(r) || dynrec._user_feature_sql(r, 'moment', '') || dynrec._feature_sql(r, ''))
$body$;
comment on function dynrec._feature_reader(dynrec_data.recommender) is
  'Internal. The code that reads the features of items (null: all) now (null) or as known at a moment, interactions strictly before it. backdated: '
  'the first version stands in where none was known yet, and interactions were known when they occurred, as they are for all items together. And those of a user from the '
  'interactions before a moment that were known then; before the recommender was declared, all of them.';

create or replace function dynrec._item_features(recommender_id int, item_ids text[], moment timestamptz)
returns table (item_id text, numbers double precision[], labels text[], names text[])
language plpgsql security definer
set search_path from current
as $$
begin
  perform dynrec._hold_sources(r) from dynrec_data.recommender r where r.id = _item_features.recommender_id;
  return query execute format('select f.* from dynrec_data.item_features_%s($1, $2, true) f', recommender_id) using item_ids, moment;
end
$$;
comment on function dynrec._item_features(int, text[], timestamptz) is
  'Internal. The features of items (null: all) at a moment (null: now); null for what is missing. An item that was not known yet at that moment has the columns of its first version; '
  'one without a stored content has no row. names, in one of the rows: those of the numbers, then those of the labels, as they were declared for this reading.';

create or replace function dynrec._as_features(number_names text[], numbers double precision[], label_names text[], labels text[]) returns jsonb
language sql immutable
set search_path from current
as $$
  select case when numbers is not null then
    coalesce((select jsonb_object_agg(l.name, l.label) from unnest(label_names, labels) as l (name, label)), '{}')
    || coalesce((select jsonb_object_agg(n.name, n.number) from unnest(number_names, numbers) as n (name, number)), '{}') end
$$;
comment on function dynrec._as_features(text[], double precision[], text[], text[]) is
  'Internal. Features by name, as one JSON object; null where there are none.';

create or replace function dynrec._moment(as_of timestamptz) returns timestamptz
language plpgsql stable
set search_path from current
as $$
begin
  if not isfinite(as_of) or as_of > clock_timestamp() then
    perform dynrec._reject('as_of is not a moment of the past', as_of::text, 'Leave it out for the present.');
  end if;
  return coalesce(as_of, clock_timestamp());
end
$$;
comment on function dynrec._moment(timestamptz) is 'Internal. as_of, or the present for null; an error unless it is of the past.';

create or replace function dynrec.item_features_at(recommender text, item_id text, as_of timestamptz default now())
returns table (feature text, number double precision, label text, vector vector, known_since timestamptz)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  moment timestamptz := dynrec._moment(as_of);
  key text := dynrec._as_key(item_features_at.item_id, r.item_key_type);
  given record;
  numbers int;
begin
  execute format('select f.* from dynrec_data.item_features_%s(array[$1], $2, false) f', r.id) into given using key, moment;
  if given.item_id is null then
    return;
  end if;
  numbers := cardinality(given.numbers);
  return query
    select f.feature, case f.type when 'number' then given.numbers[f.position] end, case f.type when 'label' then given.labels[f.position - numbers] end,
      null::vector, case f.freshness when 'at read' then moment else v.created_at end
    from dynrec._item_feature_list(r) f, (
      select c.created_at from dynrec_data.item_content c where c.recommender_id = r.id and c.item_id = key and c.created_at <= moment
      union all
      select h.created_at from dynrec_data.item_content_history h
      where h.recommender_id = r.id and h.item_id = key and h.created_at <= moment and h.replaced_at > moment
    ) v
    order by f.position;
  return query
    select 'content_vector', null::double precision, null::text, v.embedding, v.created_at
    from (
      select dynrec._vector(c.embedding, c.half) as embedding, c.created_at from dynrec_data.item_vector c where c.model_id = r.content_model_id and c.item_id = key and c.created_at <= moment
      union all
      select dynrec._vector(h.embedding, h.half), h.created_at from dynrec_data.item_vector_history h
      where h.model_id = r.content_model_id and h.item_id = key and h.created_at <= moment and h.replaced_at > moment
    ) v;
end
$$;
comment on function dynrec.item_features_at(text, text, timestamptz) is
  'Every feature of an item that models read, as known at a moment: a number, a label or a vector, and since when the system has known it (what is computed at read '
  'from the interactions before the moment that were captured by then: as_of itself). No rows if nothing was known of the item. What each feature is: dynrec.features.';

create or replace function dynrec.user_features_at(recommender text, user_id text, as_of timestamptz default now())
returns table (feature text, number double precision, label text, vector vector, known_since timestamptz)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  moment timestamptz := dynrec._moment(as_of);
  given double precision[];
begin
  if r.interactions is null or not dynrec._is_key(user_features_at.user_id, r.user_key_type) then
    return;
  end if;
  execute format('select dynrec_data.user_features_%s($1, $2)', r.id) into given using dynrec._as_key(user_features_at.user_id, r.user_key_type), moment;
  return query
    select f.feature, given[f.position], null::text, null::vector, v.known_since
    from dynrec._user_feature_list(r) f, (select case when given[1] > 0 then moment end) as v (known_since)
    union all
    select 'vector', null, null, v.embedding, case when v.embedding is not null then moment end
    from (select (dynrec._asked(r, user_features_at.user_id, moment - interval '1 microsecond')).query) as v (embedding);
end
$$;
comment on function dynrec.user_features_at(text, text, timestamptz) is
  'Every feature of a user at a moment, from the interactions strictly before it that were captured by then, and the vector that the active model version makes of them (null: none was known). '
  'known_since: as_of itself; null without interactions. No rows for a key that no user can have. What each feature is: dynrec.features.';

create or replace view dynrec.features with (security_invoker = true) as
select r.name as recommender, f.entity, f.feature, f.type, f.source, f.freshness
from dynrec_data.recommender r join dynrec_data.model_version m on m.id = r.content_model_id
cross join lateral (
  select 'item' as entity, i.position, i.feature, i.type, i.source, i.freshness from dynrec._item_feature_list(r) i
  union all
  select 'item', 100000, 'content_vector', 'vector', case when r.vector_column is null
      then format('columns %s of %s, encoded by %s', array_to_string(r.text_columns || r.categorical_columns, ', '), dynrec._qualified(r.items), m.encoder)
      else format('column %s of %s', quote_ident(r.vector_column), dynrec._qualified(r.items)) end,
    'with the row''s change, as soon as a worker has read it'
  union all
  select 'user', u.position, u.feature, u.type, u.source, u.freshness from dynrec._user_feature_list(r) u
  union all
  select 'user', 100000, 'vector', 'vector', 'interactions, folded by the active model version', 'at read' where r.interactions is not null
) f
order by r.name, f.entity, f.position;
comment on view dynrec.features is
  'What models know: the features of items and users by recommender, with their type (number, label, vector), source in words, and when a change of it shows: '
  'with the row''s change (as soon as a worker has read the row) or at read. Values: dynrec.item_features_at, dynrec.user_features_at.';
