-- Diversity: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).

create or replace function dynrec._vectors_of(r dynrec_data.recommender, item_ids text[], as_of timestamptz) returns vector[]
language plpgsql stable
set search_path from current
as $$
declare
  vectors vector[];
begin
  item_ids := dynrec._as_keys(item_ids, r.item_key_type);
  if as_of is null then
    execute format('select array_agg(dynrec._vector(v.embedding, v.half) order by i.position) from unnest($1) with ordinality i (item_id, position) '
      'left join dynrec_data.item_vector_%s v using (item_id)', r.active_model_id) into vectors using item_ids;
  else
    execute format('select array_agg(dynrec_data.vector_known_m%s(i.item_id, $2) order by i.position) '
      'from unnest($1) with ordinality i (item_id, position)', r.active_model_id) into vectors using item_ids, as_of;
  end if;
  return vectors;
end
$$;
comment on function dynrec._vectors_of(dynrec_data.recommender, text[], timestamptz) is
  'Internal. The vectors of items, in order, now or as known at as_of; null where there is none.';

create or replace function dynrec._diversify(scores double precision[], vectors vector[], k int, diversity double precision) returns int[]
language plpgsql immutable
set search_path from current
as $$
declare
  closeness double precision[] := array_fill(0::double precision, array[cardinality(scores)]);
  open boolean[] := array_fill(true, array[cardinality(scores)]);
  directions vector[];  -- of length 1, as those of a learned model are not
  chosen int[] := '{}';
  best int;
begin
  select array_agg(l2_normalize(v.embedding) order by v.position) into directions from unnest(vectors) with ordinality as v (embedding, position);
  while cardinality(chosen) < least(k, cardinality(scores)) loop
    select c.position into best
    from unnest(scores, closeness, open) with ordinality as c (score, close_to, is_open, position)
    where c.is_open
    order by (1 - diversity) * c.score - diversity * c.close_to desc, c.position limit 1;
    chosen := chosen || best;
    open[best] := false;
    select array_agg(case when cardinality(chosen) = 1 then v.similarity else greatest(v.close_to, v.similarity) end order by v.position) into closeness
    from (
      select c.close_to, c.position, coalesce(-(c.embedding <#> directions[best]), 0) as similarity
      from unnest(directions, closeness) with ordinality as c (embedding, close_to, position)
    ) v;
  end loop;
  return chosen;
end
$$;
comment on function dynrec._diversify(double precision[], vector[], int, double precision) is
  'Internal. Positions of k candidates, chosen one by one by (1 - diversity) * score - diversity * (highest cosine with those chosen before).';
