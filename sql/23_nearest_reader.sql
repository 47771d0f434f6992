-- Generated search of the current item vectors: literal model and dimension, or Postgres would not use the HNSW index.

create or replace function dynrec._nearest_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.nearest_m{model}(query vector, n int, excluded text[])
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set hnsw.iterative_scan = '{scan}'
set hnsw.ef_search = {least_probe}
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set enable_sort = off
as $$
begin
  if dynrec._probe({holds}, n, cardinality(excluded), {least_probe}) > {least_probe} then
    perform set_config('hnsw.ef_search', dynrec._probe({holds}, n, cardinality(excluded), {least_probe})::text, true);
  end if;
  return query
    select c.item_id, c.score from (
      select v.item_id, -(dynrec._vector(v.embedding, v.half) <#> query) as score
      from dynrec_data.item_vector_{model} v
      where not (v.item_id in (select e from unnest(excluded) e where e is not null))
        and exists (select from {items} i where i.{key} = v.item_id::{key_type})
      order by {distance}
      limit dynrec._reach({holds}, n)
    ) c
    order by c.score desc limit n;
end
$$;
create or replace function dynrec_data.vector_known_m{model}(item text, known_at timestamptz) returns vector
language sql stable
as $$
  select coalesce(
    (select dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector_{model} v where v.item_id = item and v.created_at <= known_at),
    (select dynrec._vector(h.embedding, h.half) from dynrec_data.item_vector_history h
     where h.model_id = {model} and h.item_id = item and h.created_at <= known_at and h.replaced_at > known_at limit 1))
$$;
$body$ $template$;
comment on function dynrec._nearest_reader() is
  'Internal. Template: the items of a model version nearest to a query, of the candidates that the index gives; and the vector of one item as known at a moment.';
