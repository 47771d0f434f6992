-- A filter is a predicate over the item source, written by the caller and run with the caller's rights.

create or replace function dynrec._check_filter(r dynrec_data.recommender, filter text, filter_args jsonb) returns void
language plpgsql stable
set search_path from current
as $$
declare
  context text := format('from %s item, lateral (select $1::jsonb as args) a', dynrec._qualified(r.items));
begin
  if filter is null then
    return;
  end if;
  -- it must parse in two places that no text can leave at once, as one ends with ) and the other with ]; the line breaks end any comment
  execute format(e'select 1 %s where (\n%s\n) limit 0', context, filter) using filter_args;
  execute format(e'select array[\n%s\n]::boolean[] %s limit 0', filter, context) using filter_args;
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

create or replace function dynrec._in_source(r dynrec_data.recommender, item_id text, filter text) returns text
language sql stable
set search_path from current
as $$
  -- a key that the column's type cannot hold is no row of the source
  select format(e'exists (select from %s item, lateral (select $1::jsonb as args) a where item.%I = %s and (\n%s\n))',
    dynrec._qualified(r.items), r.item_key,
    case when r.item_key_type = 'text' then item_id
      else format('case when pg_input_is_valid(%1$s, %2$L) then %1$s::%2$s end', item_id, r.item_key_type) end,
    coalesce(filter, 'true'))
$$;
comment on function dynrec._in_source(dynrec_data.recommender, text, text) is
  'Internal. The condition that an item (an expression for its id) has a source row that the caller can see and the filter accepts; $1: filter_args.';

create or replace function dynrec._not_excluded(item_id text) returns text
language sql immutable
set search_path from current
as $$ select format('not (%s in (select e from unnest($2::text[]) e where e is not null))', item_id) $$;
comment on function dynrec._not_excluded(text) is 'Internal. The condition that an item (an expression for its id) is not in $2, as a hashed lookup.';
