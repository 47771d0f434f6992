-- Diversity: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).

create or replace function dynrec._vectors_of(r dynrec_data.recommender, item_ids text[], as_of timestamptz) returns vector[]
language plpgsql stable
set search_path from current
as $$
declare
  vectors vector[];
begin
  if as_of is null then
    -- each by its key: a join would hash the whole table for a few hundred
    execute format('select array_agg((select dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector_%s v where v.item_id = i.item_id limit 1) '
      'order by i.position) from unnest($1) with ordinality i (item_id, position)', r.active_model_id) into vectors using item_ids;
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
  -- of length 1, as those of a learned model are not; an item without a vector is like no other
  zero vector := (select v - v from unnest(vectors) v where v is not null limit 1);
  directions vector[] := array(select coalesce(l2_normalize(v), zero) from unnest(vectors) v);
  relevance double precision[] := array(select (1 - diversity) * s from unnest(scores) s);
  wanted int := least(k, cardinality(scores));
  best int := array_position(scores, (select max(s) from unnest(scores) s));
  chosen int[] := array[best];
  latest vector[] := array[directions[best]];  -- of those chosen that not all candidates have been compared with
  marginal double precision[] := array_fill('infinity'::double precision, array[cardinality(scores)]);  -- relevance less similarity, to those compared with
  front int[];  -- the best by that, who are compared with each that is chosen at once
  front_directions vector[];
  front_relevance double precision[];
  front_marginal double precision[];
  behind double precision;  -- the best marginal of the others. By what they were not compared with yet it can only fall
  highest double precision;
begin
  marginal[best] := '-infinity';
  while cardinality(chosen) < wanted loop
    -- each pass over the candidates counts: one for eight choices, and arrays that are unnested side by side are not stored in between, as those after "from" are
    marginal := array(
      select least(c.marginal, c.relevance + coalesce(diversity * least(
        c.direction <#> latest[1], c.direction <#> latest[2], c.direction <#> latest[3], c.direction <#> latest[4],
        c.direction <#> latest[5], c.direction <#> latest[6], c.direction <#> latest[7], c.direction <#> latest[8]), 0))
      from (select unnest(directions) as direction, unnest(relevance) as relevance, unnest(marginal) as marginal) c);
    latest := '{}';
    front := array(select m.position from unnest(marginal) with ordinality m (marginal, position) order by m.marginal desc, m.position limit 33);
    behind := coalesce(marginal[front[33]], '-infinity');
    front := front[:32];
    select array_agg(directions[f]), array_agg(relevance[f]), array_agg(marginal[f]) into front_directions, front_relevance, front_marginal from unnest(front) f;
    while cardinality(chosen) < wanted and cardinality(latest) < 8 loop
      highest := (select max(m) from unnest(front_marginal) m);
      exit when highest < behind;
      best := array_position(front_marginal, highest);
      chosen := chosen || front[best];
      latest := latest || front_directions[best];
      marginal[front[best]] := '-infinity';
      front_marginal[best] := '-infinity';
      front_marginal := array(
        select least(c.marginal, c.relevance + coalesce(diversity * (c.direction <#> latest[cardinality(latest)]), 0))
        from (select unnest(front_directions) as direction, unnest(front_relevance) as relevance, unnest(front_marginal) as marginal) c);
    end loop;
  end loop;
  return chosen[:wanted];
end
$$;
comment on function dynrec._diversify(double precision[], vector[], int, double precision) is
  'Internal. Positions of k candidates, chosen one by one by (1 - diversity) * score - diversity * (highest cosine with those chosen before).';
