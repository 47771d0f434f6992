-- Diversity: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).

create or replace function dynrec._vectors_of(r dynrec_data.recommender, item_ids text[], as_of timestamptz) returns vector[]
language plpgsql stable
set search_path from current
as $$
declare
  vectors vector[];
begin
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
  'Internal. The vectors of items, in order, now or as known at as_of; null where there is none. The keys are written as in the source.';

create or replace function dynrec._diversify(scores double precision[], vectors vector[], k int, diversity double precision) returns int[]
language plpgsql immutable
set search_path from current
as $$
declare
  directions vector[] := array(select l2_normalize(v) from unnest(vectors) v);  -- of length 1, as those of a learned model are not
  relevance double precision[] := array(select (1 - diversity) * s from unnest(scores) s);
  marginal double precision[] := relevance;
  chosen int[] := '{}';
  best int;
  latest vector;
begin
  for place in 1 .. least(k, cardinality(scores)) loop
    best := array_position(marginal, (select max(m) from unnest(marginal) m));
    chosen[place] := best;
    latest := directions[best];
    relevance[best] := '-infinity';
    -- each pass over the candidates counts: arrays that are unnested side by side are not stored in between, as those after "from" are
    marginal := array(
      select case when place = 1 then c.relevance + coalesce(diversity * (c.direction <#> latest), 0)
        else least(c.marginal, c.relevance + coalesce(diversity * (c.direction <#> latest), 0)) end
      from (select unnest(directions) as direction, unnest(relevance) as relevance, unnest(marginal) as marginal) c);
  end loop;
  return chosen;
end
$$;
comment on function dynrec._diversify(double precision[], vector[], int, double precision) is
  'Internal. Positions of k candidates, chosen one by one by (1 - diversity) * score - diversity * (highest cosine with those chosen before).';
