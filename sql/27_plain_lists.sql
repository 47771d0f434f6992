-- Generated lists for the plain case: no filter, no diversity, no time travel, and enough items. Every plan is cached.

create or replace function dynrec._plain_list(signature text, query text, condition text, left_out text, path text) returns text
language sql immutable
set search_path from current
as $function$
  select format($template$
create or replace function dynrec_data.%s
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
set hnsw.iterative_scan = '{scan}'
set hnsw.ef_search = {least_probe}
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set enable_sort = off
as $$
declare
  query vector := %s;
begin
  if query is null then
    return;
  end if;
  if dynrec._probe({holds}, n, n, {least_probe}) > {least_probe} then
    perform set_config('hnsw.ef_search', dynrec._probe({holds}, n, cardinality(excluded) + %s, {least_probe})::text, true);
  end if;
  return query
    with near as materialized (
      select v.item_id, -(dynrec._vector(v.embedding, v.half) <#> query) as score
      from dynrec_data.item_vector_{model} v
      where not (v.item_id in (select e from unnest(excluded) e where e is not null))
        and %s
        and exists (select from {items} i where i.{key} = v.item_id::{key_type})
      order by {distance}
      limit dynrec._reach({holds}, n)
    ), nearest as materialized (
      select c.* from near c order by c.score desc limit n
    )
    select c.item_id, (row_number() over ())::int, c.score, %L, {model} from nearest c
    where (select count(*) from nearest) = n;
end
$$;
$template$, signature, query, left_out, condition, path)
$function$;
comment on function dynrec._plain_list(text, text, text, text, text) is
  'Internal. Template: n items nearest to a query (an expression for it) for which a condition holds (left_out: an expression for how many may be left out by it); '
  'or none where the query is null or the index does not give as many: then the long way is taken.';

create or replace function dynrec._plain_recommendations() returns text
language sql immutable
set search_path from current
as $$
  select dynrec._plain_list('recommend_m{model}(for_user text, n int, excluded text[], leave_out_seen boolean)',
    '(dynrec_data.query_m{model}(for_user)).query',
    'not (leave_out_seen and v.item_id in (select i.item_id from dynrec_data.interactions_{id}(array[for_user]) i))',
    'case when leave_out_seen then (select count(distinct i.item_id) from dynrec_data.interactions_{id}(array[for_user]) i) else 0 end', 'personal')
$$;
comment on function dynrec._plain_recommendations() is 'Internal. Template: n personal recommendations from a content space.';

create or replace function dynrec._plain_similar_items(kind text) returns text
language sql immutable
set search_path from current
as $$
  select dynrec._plain_list('similar_m{model}(item text, n int, excluded text[])',
    format($query$(
    select %s from dynrec_data.item_vector_{model} v
    where v.item_id = item and exists (select from {items} i where i.{key} = item::{key_type}))$query$,
      case kind when 'content' then 'dynrec._vector(v.embedding, v.half)'
        else $bias$subvector(dynrec._vector(v.embedding, v.half), 1, {dimension} - 1) || '[0]'::vector$bias$ end),
    'v.item_id <> item', '1', 'similar')
$$;
comment on function dynrec._plain_similar_items(text) is
  'Internal. Template: n items like one that is in the source, by a model version of a kind; a learned model''s are asked for without the bias.';

create or replace function dynrec._plain_session() returns text
language sql immutable
set search_path from current
as $$
  select dynrec._plain_list('session_list_m{model}(item_ids text[], n int, excluded text[])',
    '(dynrec_data.session_m{model}(item_ids, null)).query',
    'not (v.item_id in (select e from unnest(item_ids) e where e is not null))', 'cardinality(item_ids)', 'session')
$$;
comment on function dynrec._plain_session() is 'Internal. Template: n recommendations for a session from a content space.';
