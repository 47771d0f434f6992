-- Search: a query vector and full-text search, fused by reciprocal ranks (Cormack, Clarke & Buettcher, SIGIR 2009).

create or replace function dynrec._matching(
  r dynrec_data.recommender, query text, n int, excluded text[], filter text, filter_args jsonb)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
begin
  return query execute format($query$
    select c.item_id, ts_rank_cd(c.document, q.query)::double precision as score
    from dynrec_data.item_content c, (select websearch_to_tsquery(%L::regconfig, $3) as query) q
    where c.recommender_id = %s and c.document @@ q.query and %s and %s
    order by score desc, c.item_id limit $4
    $query$, r.options ->> 'text_search_config', r.id, dynrec._not_excluded('c.item_id'), dynrec._in_source(r, 'c.item_id', filter))
    using filter_args, excluded, query, n;
end
$$;
comment on function dynrec._matching(dynrec_data.recommender, text, int, text[], text, jsonb) is
  'Internal. The n eligible items whose text matches a web-search query best, by cover density.';

create or replace function dynrec.search(
  recommender text, query text default null, query_vector vector default null, k int default 10, filter text default null,
  filter_args jsonb default '{}', exclude_items text[] default '{}')
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  n int;
  dimension int := (select m.dimension from dynrec_data.model_version m where m.id = r.content_model_id);
begin
  perform dynrec._check_read(r, k, filter, filter_args, 0, null);
  -- a query is encoded, and compared with what items are encoded to
  r.active_model_id := r.content_model_id;
  n := greatest(3 * k, 50);
  if query is null and query_vector is null then
    perform dynrec._reject('neither query nor query_vector', null, 'Give a text, a vector of the recommender''s encoder, or both.');
  end if;
  if query_vector is not null and vector_dims(query_vector) <> dimension then
    perform dynrec._reject('query_vector has the wrong dimension', vector_dims(query_vector)::text, format('The recommender''s vectors have %s dimensions.', dimension));
  end if;
  return query
    with by_vector as (
      select c.item_id, row_number() over (order by c.score desc, c.item_id) as place
      from dynrec._nearest(r, l2_normalize(query_vector), n, dynrec._excluded(r, exclude_items), filter, filter_args, null) c
      where query_vector is not null
    ), by_text as (
      select c.item_id, row_number() over (order by c.score desc, c.item_id) as place
      from dynrec._matching(r, query, n, dynrec._excluded(r, exclude_items), filter, filter_args) c
      where query is not null
    ), fused as (
      select f.item_id, sum(1.0 / (60 + f.place))::double precision as score
      from (select * from by_vector union all select * from by_text) f group by f.item_id
    )
    select f.item_id, (row_number() over (order by f.score desc, f.item_id))::int, f.score, 'search', r.active_model_id
    from fused f order by f.score desc, f.item_id limit k;
end
$$;
comment on function dynrec.search(text, text, vector, int, text, jsonb, text[]) is
  'Up to k items for a query: query (web-search syntax) by full-text search, query_vector (made by the recommender''s encoder: the Python client and '
  '`dynrec search` do it) by similarity, both fused by reciprocal ranks, score = sum of 1 / (60 + rank). Fewer than k rows only if fewer match.';
