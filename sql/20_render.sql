-- Per-recommender code is generated: table, column and type names become literals, so that plans are cached and indexes used.

create or replace function dynrec._render(template text, names jsonb) returns text
language plpgsql immutable
set search_path from current
as $$
declare
  rendered text;
  missing text;
begin
  -- in one pass: a value may contain what looks like a placeholder
  select string_agg(coalesce(names ->> substring(t.token[1] from '^\{([a-z_]+)\}$'), t.token[1]), '' order by t.position),
    min(t.token[1]) filter (where t.token[1] ~ '^\{[a-z_]+\}$' and names ->> btrim(t.token[1], '{}') is null)
  into rendered, missing
  from regexp_matches(template, '\{[a-z_]+\}|[^{]+|\{', 'g') with ordinality as t (token, position);
  if missing is not null then
    raise exception 'template placeholder % has no value', missing using errcode = 'internal_error';
  end if;
  return rendered;
end
$$;
comment on function dynrec._render(text, jsonb) is
  'Internal. The template with every {name} replaced by names ->> name; the values must be quoted already.';

create or replace function dynrec._render_code(template text, names jsonb) returns text
language sql immutable
set search_path from current
as $$ select dynrec._render(replace(template, '$' || '$', '$d' || md5(names::text) || '$'), names) $$;
comment on function dynrec._render_code(text, jsonb) is
  'Internal. A template of functions, rendered; its dollar quotes become such that no name of a column or kind can end them.';

create or replace function dynrec._qualified(relation regclass) returns text
language sql stable
set search_path from current
as $$
  select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation
$$;
comment on function dynrec._qualified(regclass) is 'Internal. schema.table, quoted, whatever the search path is.';

create or replace function dynrec._time_expression(relation regclass, column_name text, alias text) returns text
language sql stable
set search_path from current
as $$
  select case dynrec._column_type('time_column', relation, column_name)
    when 'timestamp with time zone' then format('%s.%I', alias, column_name)
    when 'timestamp without time zone' then format('(%s.%I at time zone ''UTC'')', alias, column_name)
    -- dates reach further than timestamps: what lies beyond is no time, like infinity
    when 'date' then format('(case when %1$s.%2$I < ''294276-12-31'' then %1$s.%2$I end::timestamp at time zone ''UTC'')', alias, column_name)
  end
$$;
comment on function dynrec._time_expression(regclass, text, text) is
  'Internal. The expression that reads a time column as timestamptz; times without a zone are UTC. Null for other types.';

create or replace function dynrec._value_expression(relation regclass, column_name text, alias text) returns text
language sql stable
set search_path from current
as $$
  -- greatest() passes over nulls, so they have to be told apart first
  select case
    when t.type in ('smallint', 'integer', 'bigint') then format(
      'case when %1$s.%2$I is not null then least(greatest(%1$s.%2$I, -1000000), 1000000)::double precision end', alias, column_name)
    when t.type in ('numeric', 'real', 'double precision') then format(
      -- below 1e-12 vectors are scaled by 0 anyway, and a numeric may be too small for a double precision
      'case when %1$s.%2$I <> ''NaN'' then case when abs(%1$s.%2$I) < 1e-12 then 0 else least(greatest(%1$s.%2$I, -1000000), 1000000) end::double precision end',
      alias, column_name)
    when t.type = 'boolean' then format('%s.%I::integer::double precision', alias, column_name)
  end
  from (select dynrec._column_type('value_column', relation, column_name)) as t (type)
$$;
comment on function dynrec._value_expression(regclass, text, text) is
  'Internal. The expression that reads a value column as double precision, NaN as null, held within +-1e6, and 0 below 1e-12. Null for other types.';

create or replace function dynrec._content_expression(relation regclass, columns text[], alias text) returns text
language sql stable
set search_path from current
as $$
  select 'array_to_string(array[' || coalesce(string_agg(
    case when dynrec._column_type('text_columns', relation, c.name) like '%[]'
      then format('nullif(btrim(array_to_string(%s.%I, '', '')), '''')', alias, c.name)
      else format('nullif(btrim(%s.%I::text), '''')', alias, c.name)
    end, ', ' order by c.position), '') || ']::text[], ''. '')'
  from unnest(columns) with ordinality as c (name, position)
$$;
comment on function dynrec._content_expression(regclass, text[], text) is
  'Internal. The expression that makes the text to encode: the columns in order, nulls and blanks left out, joined by ". "; the empty text if all are.';

create or replace function dynrec._features_expression(columns text[], alias text) returns text
language sql immutable
set search_path from current
as $$
  -- a function takes at most 100 arguments
  select coalesce(string_agg(format('jsonb_build_object(%L, %s.%I)', c.name, alias, c.name), ' || ' order by c.position), '''{}''::jsonb')
  from unnest(columns) with ordinality as c (name, position)
$$;
comment on function dynrec._features_expression(text[], text) is
  'Internal. The expression that collects numeric and categorical columns as one jsonb object.';

create or replace function dynrec._kind_case(recommender_id int, what text) returns text
language sql stable
set search_path from current
as $$
  select format('case %s else %s end',
    coalesce(string_agg(format('when $1 = %L then %s', k.kind, k.given), ' ' order by k.kind) filter (where k.kind <> '*'), 'when false then null'),
    max(k.given) filter (where k.kind = '*'))
  from (
    select k.kind, case what when 'weight' then k.weight::text else array_position(r.half_lives, k.half_life)::text end as given
    from dynrec_data.interaction_kind k join dynrec_data.recommender r on r.id = k.recommender_id
    where k.recommender_id = _kind_case.recommender_id
  ) k
$$;
comment on function dynrec._kind_case(int, text) is
  'Internal. A case expression from a kind ($1) to its weight or to its slot (position of its half-life); kind "*" is every other kind.';

create or replace function dynrec._is_live(m dynrec_data.model_version) returns boolean
language sql immutable
set search_path from current
as $$ select m.state in ('backfilling', 'shadow', 'active', 'standby') $$;
comment on function dynrec._is_live(dynrec_data.model_version) is
  'Internal. Whether a model version has vectors, which are kept up to date.';

create or replace function dynrec._live_models(recommender_id int) returns text
language sql stable
set search_path from current
as $$
  select string_agg(m.id::text, ', ' order by m.id) from dynrec_data.model_version m
  where m.recommender_id = _live_models.recommender_id and dynrec._is_live(m)
$$;
comment on function dynrec._live_models(int) is 'Internal. The ids of the live model versions of a recommender, as an SQL list.';

create or replace function dynrec._wake_key() returns bigint
language sql immutable parallel safe
as $$ select 7236293311874 $$;
comment on function dynrec._wake_key() is
  'Internal. The advisory lock that a sleeping dispatcher holds; a writer that cannot share it sends a notification.';

create or replace function dynrec._notify_wake() returns void
language sql
set search_path from current
as $$ select pg_notify('dynrec_wake', '') where current_setting('max_prepared_transactions') = '0' $$;
comment on function dynrec._notify_wake() is 'Internal. Wakes a sleeping dispatcher when the transaction commits.';

create or replace function dynrec._fits(key text, type text) returns text
language sql immutable
set search_path from current
as $$ select case when type = 'text' then format('octet_length(%s) <= %s', key, dynrec._longest_key()) else 'true' end $$;
comment on function dynrec._fits(text, text) is
  'Internal. The condition in generated code that the key of an expression fits into an index: a longer one would make the application''s write fail.';

create or replace function dynrec._output(alias text, column_name text) returns text
language sql immutable
as $$ select format('pg_catalog.concat(%s.%I)', alias, column_name) $$;
comment on function dynrec._output(text, text) is
  'Internal. The expression that reads a column as text by the output function of its type, so that no cast of the owner of the type runs; of null it makes the empty text.';

create or replace function dynrec._unless_foreign(alias text, column_name text, types regtype[], expression text, otherwise text) returns text
language sql immutable
as $$
  select format('(case when pg_catalog.pg_typeof(%s.%I) operator(pg_catalog.=) any (%L::pg_catalog.regtype[]) then %s else %s end)', alias, column_name, types, expression, otherwise)
$$;
comment on function dynrec._unless_foreign(text, text, regtype[], text, text) is
  'Internal. An expression of a column that is evaluated only while the column is of one of these types, which belong to nobody but Postgres; otherwise another. '
  'Both are to name the type of the result: it would be that of the column, and be cast outside.';

create or replace function dynrec._event_names(r dynrec_data.recommender) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'event_user', t.event_user,
    'event_item', t.event_item,
    'event_kind', case when r.kind_column is null then 'null::text'
      -- what a cast makes of these is not what they show
      else format('case when e.%I is not null then %s end', r.kind_column, dynrec._unless_foreign('e', r.kind_column,
        '{boolean,character,name,"\"char\"",inet,cidr,xml}', format('e.%I::text', r.kind_column), dynrec._output('e', r.kind_column))) end,
    'event_value', case when r.value_column is null then 'null::double precision'
      else dynrec._unless_foreign('e', r.value_column, '{smallint,integer,bigint,numeric,real,"double precision",boolean}',
        format('(%s)::double precision', dynrec._value_expression(r.interactions, r.value_column, 'e')), 'null::double precision') end,
    'event_time', dynrec._unless_foreign('e', r.time_column, '{timestamptz,timestamp,date}',
      format('(%s)::timestamptz', dynrec._time_expression(r.interactions, r.time_column, 'e')), 'null::timestamptz'),
    'known_event', concat_ws(' and ', dynrec._fits(t.event_user, r.user_key_type), dynrec._fits(t.event_item, r.item_ref_type), dynrec._known_user(r, t.event_user)))
  from (select dynrec._output('e', r.user_column), dynrec._output('e', r.item_column)) t (event_user, event_item)
$$;
comment on function dynrec._event_names(dynrec_data.recommender) is
  'Internal. What triggers see of an interaction, without running code of the owner of its table: user, item, kind, value, time, and whether it is to be captured.';

create or replace function dynrec._names(r dynrec_data.recommender) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'id', r.id,
    'content_model', r.content_model_id,
    'content_dimension', m.dimension,
    'in_half', dynrec._in_half(r, m)::text,
    'live_models', dynrec._live_models(r.id),
    'has_derived', (dynrec._live_models(r.id) <> r.content_model_id::text)::text,
    'has_learned', exists (select from dynrec_data.model_version l where l.recommender_id = r.id and l.kind = 'learned' and dynrec._is_live(l))::text,
    'items', dynrec._qualified(r.items),
    'key', quote_ident(r.item_key),
    'key_type', r.item_key_type,
    'fitting_key', dynrec._fits(format('i.%I::text', r.item_key), r.item_key_type),
    'new_entity', dynrec._output('n', r.item_key),
    'old_entity', dynrec._output('o', r.item_key),
    'fitting_new', dynrec._fits(dynrec._output('n', r.item_key), r.item_key_type),
    'fitting_old', dynrec._fits(dynrec._output('o', r.item_key), r.item_key_type),
    'fitting_after', dynrec._fits('key_after', r.item_key_type),
    'fitting_entity', dynrec._fits('k.entity', r.item_key_type),
    'watched_old', w.watched_old,
    'watched_new', w.watched_new,
    'watched_before', w.watched_before,
    'watched_after', w.watched_after,
    'content', dynrec._content_expression(r.items, r.text_columns || r.categorical_columns, 'i'),
    'features', dynrec._features_expression(r.numeric_columns || r.categorical_columns, 'i'),
    'vector', coalesce('i.' || quote_ident(r.vector_column) || '::vector', 'null::vector'),
    'least_probe', r.options ->> 'vector_probe',
    'half_lives', quote_literal(r.half_lives) || '::double precision[]',
    'rate_sums', dynrec._rate_sums(),
    'publishes', (r.options ->> 'publish' is not null)::text,
    'counts_live', (r.options ->> 'popularity_epsilon' is null)::text,
    'trending_half_life', dynrec._seconds((r.options ->> 'trending_half_life')::interval)::text,
    'wake_key', dynrec._wake_key(),
    -- what a notification says, so that the dispatcher can send its hint before it looks
    'item_hint', quote_literal(left('item ' || r.name, 1000)),
    'user_hint', quote_literal(left('user ' || r.name, 1000)),
    'text_search_config', quote_literal(r.options ->> 'text_search_config') || '::regconfig',
    'has_interactions', (r.interactions is not null)::text,
    'item_scans', quote_literal(array_remove(array['scan_items', case when r.interactions is not null then 'scan_users' end], null)) || '::text[]',
    'key_name', quote_literal(r.item_key),
    'watched_names', quote_literal(r.text_columns || r.numeric_columns || r.categorical_columns || array_remove(array[r.vector_column, r.item_key], null)) || '::text[]',
    'watched_generated', exists (select from pg_attribute a where a.attrelid = r.items and a.attgenerated <> ''
      and a.attname = any (r.text_columns || r.numeric_columns || r.categorical_columns || r.vector_column))::text,
    'declared_at', format('(select x.created_at from dynrec_data.recommender x where x.id = %s)', r.id),
    'events_since', format('to_timestamp(%L::double precision)', coalesce(extract(epoch from r.events_since), '-infinity'))
  ) || case when r.interactions is null then '{}' else dynrec._event_names(r) || jsonb_build_object(
    'interactions', dynrec._qualified(r.interactions),
    'event_names', quote_literal(array_remove(array[r.user_column, r.item_column, r.time_column, r.kind_column, r.value_column], null)) || '::text[]',
    'user', quote_ident(r.user_column),
    -- who and what an interaction must be of, to be read and captured
    'known_user', concat_ws(' and ', dynrec._fits(format('e.%I::text', r.user_column), r.user_key_type),
      dynrec._fits(format('e.%I::text', r.item_column), r.item_ref_type), dynrec._known_user(r, format('e.%I::text', r.user_column))),
    'known_entity', concat_ws(' and ', dynrec._fits('d.entity', r.user_key_type), dynrec._fits('d.item_id', r.item_ref_type),
      dynrec._known_user(r, 'd.entity')),
    'known_holder', dynrec._known_user(r, 'h.user_id'),
    'user_type', r.user_key_type,
    'item', quote_ident(r.item_column),
    'item_type', r.item_ref_type,
    'occurred_at', dynrec._time_expression(r.interactions, r.time_column, 'e'),
    'kind', coalesce('e.' || quote_ident(r.kind_column) || '::text', 'null::text'),
    'value', case when r.value_column is null then 'null::double precision' else dynrec._value_expression(r.interactions, r.value_column, 'e') end,
    'value_given', case when r.value_column is null then 'false' else format('e.%I is not null', r.value_column) end,
    'weight', dynrec._kind_case(r.id, 'weight'),
    'slot', dynrec._kind_case(r.id, 'slot')
  ) end
  from dynrec_data.model_version m,
    lateral (
      select string_agg(format('o.%I', c.name), ', ' order by c.position) as watched_old,
        string_agg(format('n.%I', c.name), ', ' order by c.position) as watched_new,
        string_agg(format('old.%I', c.name), ', ' order by c.position) as watched_before,
        string_agg(format('new.%I', c.name), ', ' order by c.position) as watched_after
      from unnest(r.text_columns || r.numeric_columns || r.categorical_columns || array_remove(array[r.vector_column], null))
        with ordinality as c (name, position)
    ) w
  where m.id = r.content_model_id
$$;
comment on function dynrec._names(dynrec_data.recommender) is
  'Internal. Everything that the templates of a recommender''s generated code name, quoted.';

create or replace function dynrec._model_names(r dynrec_data.recommender, m dynrec_data.model_version) returns jsonb
language plpgsql stable
set search_path from current
as $$
begin
  return dynrec._names(r) || jsonb_build_object('model', m.id, 'dimension', m.dimension, 'in_half', dynrec._in_half(r, m)::text)
    || case m.kind when 'learned' then dynrec._learned_names(m) else '{}' end || dynrec._index_names(m);
end
$$;
comment on function dynrec._model_names(dynrec_data.recommender, dynrec_data.model_version) is
  'Internal. Everything that the templates of a model version''s generated code name, quoted.';
