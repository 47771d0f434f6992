-- How much of what an exact search finds the vector index finds as well.

create or replace function dynrec.index_recall(recommender text, k int default 10, sample int default 100, seed int default 0, by_model int default null)
returns table (model_version int, recall double precision, standard_error double precision, queries bigint)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._answering(dynrec._recommender(recommender), null, by_model);
begin
  perform dynrec._check_k(k);
  if sample is null or sample not between 1 and 100000 then
    perform dynrec._reject('sample is out of range', sample::text, 'Give how many searches are compared: 1 to 100000.');
  end if;
  return query execute format($query$
    select %1$s, avg(a.recall), stddev_samp(a.recall) / sqrt(count(*)), count(*)
    from (
      select dynrec._vector(v.embedding, v.half) as embedding from dynrec_data.item_vector_%1$s v order by hashtextextended(v.item_id, $4), v.item_id limit $3
    ) q, lateral (
      select count(*) as found, min(e.score) as last from dynrec._exact_candidates($1, q.embedding, $2, '{}', null, '{}', null) e
    ) exact, lateral (
      -- equally near items are equally right
      select count(*) filter (where n.score >= exact.last - 1e-6 * greatest(abs(exact.last), 1)) / exact.found::double precision as recall
      from dynrec_data.nearest_m%1$s(q.embedding, $2, '{}') n
    ) a
    where exact.found > 0
    $query$, r.active_model_id) using r, k, sample, coalesce(seed, 0)::bigint;
end
$$;
comment on function dynrec.index_recall(text, int, int, int, int) is
  'The recall@k of the vector index: of the k nearest items by exact search, the share that the index finds, 0 to 1, in the mean over the vectors of a sample of items (drawn by seed), with its standard error. '
  'Of the active model version or of by_model. Below 0.95 rebuild the index: it has churned. Each exact search reads all vectors. recall is null where there are no vectors.';
