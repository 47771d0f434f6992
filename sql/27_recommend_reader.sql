-- Generated recommendations for the plain case: a known user, no filter, no time travel. Every plan is cached.

create or replace function dynrec._recommend_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.recommend_{id}(for_user text, n int, excluded text[], leave_out_seen boolean)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
set hnsw.iterative_scan = 'strict_order'
set hnsw.ef_search = 100
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
declare
  query vector := dynrec_data.profile_{id}(for_user);
  ids text[];
  scores double precision[];
begin
  if query is null then
    return;
  end if;
  if leave_out_seen then
    excluded := excluded || array(select i.item_id from dynrec_data.interactions_{id}(array[for_user]) i);
  end if;
  select array_agg(c.item_id), array_agg(c.score) into ids, scores from ({nearest_query}) c;
  if cardinality(ids) = n then
    return query
      select c.item_id, c.rank::int, c.score, 'personal', {model} from unnest(ids, scores) with ordinality as c (item_id, score, rank);
  end if;
end
$$;
$body$ $template$;
comment on function dynrec._recommend_reader() is
  'Internal. Template: n personal recommendations, or none where the index or the user''s profile does not give as many: then the long way is taken.';
