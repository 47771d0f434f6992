-- Generated recommendations from a content space for the plain case: a known user, no filter, no time travel. Every plan is cached.

create or replace function dynrec._content_recommend_reader() returns text
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
set enable_sort = off
as $$
declare
  query vector := (dynrec_data.query_m{model}(for_user)).query;
begin
  if query is null then
    return;
  end if;
  if dynrec._probe({holds}, n, {least_probe}) > {least_probe} then
    perform set_config('hnsw.ef_search', dynrec._probe({holds}, n, {least_probe})::text, true);
  end if;
  return query
    with near as materialized (
      select v.item_id, -(dynrec._vector(v.embedding, v.half) <#> query) as score
      from dynrec_data.item_vector_{model} v
      where not (v.item_id in (select e from unnest(excluded) e where e is not null))
        and not (leave_out_seen and v.item_id in (select i.item_id from dynrec_data.interactions_{id}(array[for_user]) i))
        and exists (select from {items} i where i.{key} = v.item_id::{key_type})
      order by {distance}
      limit dynrec._reach({holds}, n)
    ), nearest as materialized (
      select c.* from near c order by c.score desc limit n
    )
    select c.item_id, (row_number() over ())::int, c.score, 'personal', {model} from nearest c
    where (select count(*) from nearest) = n;
end
$$;
$body$ $template$;
comment on function dynrec._content_recommend_reader() is
  'Internal. Template: n personal recommendations, or none where the index or the user''s profile does not give as many: then the long way is taken.';
