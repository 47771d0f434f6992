-- A filter is a predicate over the item source, written by the caller and run with the caller's rights.

create or replace function dynrec._check_filter(r dynrec_data.recommender, filter text, filter_args jsonb) returns void
language plpgsql stable
set search_path from current
as $$
declare
  context text := format('from %s item, lateral (select $1::jsonb as args) a', dynrec._qualified(r.items));
  parsed refcursor;
begin
  if filter is null then
    return;
  end if;
  -- it must parse in two places that no text can leave at once, as one ends with ) and the other with ]; the line breaks end any comment.
  -- A cursor is one statement and need not run; beside false it is not even planned
  open parsed no scroll for execute format(e'select 1 %s where false and (\n%s\n)', context, filter) using filter_args;
  close parsed;
  open parsed no scroll for execute format(e'select array[\n%s\n]::boolean[] %s where false', filter, context) using filter_args;
  close parsed;
exception
  when insufficient_privilege or query_canceled then
    raise;
  when others then
    raise exception 'filter is not a predicate over %: %', r.items, dynrec._quoted(filter)
      using errcode = 'invalid_parameter_value', detail = sqlerrm,
        hint = 'Write a boolean expression over its columns; bind values as args ->> ''name'' with filter_args. Columns: ' || (
          select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute a where a.attrelid = r.items and a.attnum > 0 and not a.attisdropped) || '.';
end
$$;
comment on function dynrec._check_filter(dynrec_data.recommender, text, jsonb) is
  'Internal. Accepts a predicate over the item source and only a predicate; an error that names it and lists the columns otherwise.';

create or replace function dynrec._source_row(r dynrec_data.recommender, item_id text, filter text) returns text
language sql stable
set search_path from current
as $$
  -- a key that the column's type cannot hold is no row of the source
  select format(e'from %s item, lateral (select $1::jsonb as args) a where item.%I = %s and (\n%s\n)',
    dynrec._qualified(r.items), r.item_key,
    case when r.item_key_type = 'text' then item_id
      else format('case when pg_input_is_valid(%1$s, %2$L) then %1$s::%2$s end', item_id, r.item_key_type) end,
    coalesce(filter, 'true'))
$$;
comment on function dynrec._source_row(dynrec_data.recommender, text, text) is
  'Internal. from and where of the source row of an item (an expression for its id) that the caller can see and the filter accepts; $1: filter_args.';

create or replace function dynrec._in_source(r dynrec_data.recommender, item_id text, filter text) returns text
language sql stable
set search_path from current
as $$ select format('exists (select %s)', dynrec._source_row(r, item_id, filter)) $$;
comment on function dynrec._in_source(dynrec_data.recommender, text, text) is
  'Internal. The condition that an item (an expression for its id) has a source row that the caller can see and the filter accepts; $1: filter_args.';

create or replace function dynrec._not_excluded(item_id text) returns text
language sql immutable
set search_path from current
as $$ select format('not (%s in (select e from unnest($2::text[]) e where e is not null))', item_id) $$;
comment on function dynrec._not_excluded(text) is 'Internal. The condition that an item (an expression for its id) is not in $2, as a hashed lookup.';

create or replace function dynrec._eligible(r dynrec_data.recommender, filter text, filter_args jsonb, most bigint) returns text[]
language plpgsql stable
set search_path from current
as $$
declare
  ids text[];
begin
  execute format(e'select array(select item.%I::text from %s item, lateral (select $1::jsonb as args) a where (\n%s\n) limit $2)',
    r.item_key, dynrec._qualified(r.items), filter) into ids using filter_args, most + 1;
  return case when most is null or cardinality(ids) <= most then ids end;
end
$$;
comment on function dynrec._eligible(dynrec_data.recommender, text, jsonb, bigint) is
  'Internal. The keys of the rows that the filter accepts and the caller can see; null if they are more than most (null: all, however many).';

create or replace function dynrec._filter_estimate(
  r dynrec_data.recommender, filter text, filter_args jsonb, out eligible double precision, out cost double precision)
language plpgsql volatile  -- or explain would not be allowed
set search_path from current
as $$
declare
  explained refcursor;  -- which is one statement, whatever the filter is
  plan jsonb;
begin
  open explained no scroll for execute format(e'explain (format json) select item.%I from %s item, lateral (select $1::jsonb as args) a where (\n%s\n)',
    r.item_key, dynrec._qualified(r.items), filter) using filter_args;
  fetch explained into plan;
  close explained;
  eligible := plan #> '{0,Plan,Plan Rows}';
  cost := plan #> '{0,Plan,Total Cost}';
end
$$;
comment on function dynrec._filter_estimate(dynrec_data.recommender, text, jsonb) is
  'Internal. What the planner expects of a filter that _check_filter has accepted: rows that it accepts, and the cost of finding them in the planner''s units.';

create or replace function dynrec._filter_bounds(
  r dynrec_data.recommender, n int, filter text, filter_args jsonb, out few bigint, out first_visits bigint, out more_visits bigint)
language plpgsql stable
set search_path from current
as $$
declare
  visiting constant double precision := 16;  -- cost of a row that the index scan visits, in the planner's units
  comparing constant double precision := 2;  -- cost of an eligible row's vector
  items double precision;
  estimate record;
begin
  select greatest(c.reltuples, 1) into items from pg_class c where c.oid = format('dynrec_data.item_vector_%s', r.active_model_id)::regclass;
  estimate := dynrec._filter_estimate(r, filter, filter_args);
  -- where cost + few * comparing, exact, equals visiting * 1.5 * n * items / few, through the index
  few := (sqrt(estimate.cost ^ 2 + 6 * comparing * visiting * n * items) - estimate.cost) / (2 * comparing);
  -- with twice what exact search costs, as the number that has to be visited scatters
  first_visits := case when estimate.eligible > few then 2 * (estimate.cost + comparing * few) / visiting else 0 end;
  more_visits := 2 * (estimate.cost + comparing * greatest(estimate.eligible, 4 * few)) / visiting;
end
$$;
comment on function dynrec._filter_bounds(dynrec_data.recommender, int, text, jsonb) is
  'Internal. How n items that a filter accepts are found: exactly among up to few eligible rows; rows that the index scan visits before these are looked for '
  '(0: where few rows are expected), and after it is known that they are more than few.';
