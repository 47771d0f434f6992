-- Candidate generation: by vector, by popularity, or any item. Each returns at most n eligible items, best first.

create or replace function dynrec._exact_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
begin
  return query execute format($query$
    select v.item_id, -(%s <#> $3) as score
    from %s v
    where %s and (%s)
    order by score desc, v.item_id limit $4
    $query$,
    case when as_of is null then 'dynrec._vector(v.embedding, v.half)' else 'v.embedding' end,
    case when as_of is null then format('dynrec_data.item_vector_%s', r.active_model_id) else dynrec._known_vectors(r) end,
    dynrec._not_excluded('v.item_id'),
    case when as_of is not null and filter is null and not row_security_active(r.items) then 'true' else dynrec._in_source(r, 'v.item_id', filter) end)
    using filter_args, excluded, query, n, as_of;
end
$$;
comment on function dynrec._exact_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz) is
  'Internal. The n nearest by exact search, of all vectors or of those known at as_of.';

create or replace function dynrec._nearest_among(r dynrec_data.recommender, query vector, n int, excluded text[], ids text[])
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set random_page_cost = 1  -- vectors are in memory: a search through the index needs them there, too
as $$
begin
  return query execute format($query$
    select v.item_id, -(dynrec._vector(v.embedding, v.half) <#> $1) as score
    from unnest($4) e (id) join dynrec_data.item_vector_%s v on v.item_id = e.id
    where %s
    order by score desc, v.item_id limit $3
    $query$, r.active_model_id, dynrec._not_excluded('v.item_id'))
    using query, excluded, n, ids;
end
$$;
comment on function dynrec._nearest_among(dynrec_data.recommender, vector, int, text[], text[]) is 'Internal. The n nearest of the items named, by exact search.';

create or replace function dynrec._known_vectors(r dynrec_data.recommender) returns text
language sql stable
set search_path from current
as $$
  select format($query$(
    select c.item_id, dynrec._vector(c.embedding, c.half) as embedding from dynrec_data.item_vector_%1$s c where c.created_at <= $5
    union all
    select h.item_id, dynrec._vector(h.embedding, h.half) from dynrec_data.item_vector_history h
    where h.model_id = %1$s and h.created_at <= $5 and h.replaced_at > $5)$query$, r.active_model_id)
$$;
comment on function dynrec._known_vectors(dynrec_data.recommender) is 'Internal. The item vectors as known at $5, as a subquery.';

create or replace function dynrec._scan_index(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, most bigint, probe int)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set hnsw.iterative_scan = 'relaxed_order'  -- a strict order leaves out what is found late, though it is nearer
set hnsw.max_scan_tuples = 2147483647
set enable_sort = off  -- through the index it is
as $$
declare
  holds text := (select m.vector_index from dynrec_data.model_version m where m.id = r.active_model_id);
  wanted int := dynrec._reach(holds, n);  -- that the n nearest are among
  near refcursor;
  hit record;
  ids text[] := '{}';
  scores double precision[] := '{}';
  lowest double precision;  -- of the first n
  patience double precision;  -- rows to visit beyond the latest that was better than that
  better_at bigint;
begin
  -- the rows that are accepted; of the others each fiftieth, to know how far the scan has come
  open near no scroll for execute format($query$
    select s.* from (
      select v.*, row_number() over () as visited, %3$s and %4$s and %5$s as accepted from (
        select v.item_id, -(dynrec._vector(v.embedding, v.half) <#> $3) as score, v.created_at from dynrec_data.item_vector_%1$s v
        order by %2$s
      ) v
    ) s
    where s.accepted or s.visited %% 50 = 0
    $query$, r.active_model_id, dynrec._distance(holds, vector_dims(query), '$3'), dynrec._not_excluded('v.item_id'),
    case when as_of is not null and filter is null and not row_security_active(r.items) then 'true'
      -- not by exists(): that could be answered by hashing the whole table
      else format('(select true %s limit 1)', dynrec._source_row(r, 'v.item_id', filter)) end,
    case when as_of is null then 'true' else 'v.created_at <= $5' end)
    using filter_args, excluded, query, n, as_of;
  loop
    fetch near into hit;
    exit when not found or hit.visited > most or hit.visited - better_at > patience;
    continue when hit.accepted is not true;
    ids := ids || hit.item_id;
    scores := scores || hit.score;
    if cardinality(ids) = wanted then
      -- those that one probe finds are the nearest. Where it takes more, nearer ones may be found later
      exit when hit.visited <= probe;
      lowest := (select min(best.score) from (select x as score from unnest(scores) x order by x desc limit n) best);
      patience := 0.5 * hit.visited;
      better_at := hit.visited;
    elsif hit.score > lowest then
      better_at := hit.visited;
    end if;
  end loop;
  close near;
  return query select c.item_id, c.score from unnest(ids, scores) as c (item_id, score) order by c.score desc, c.item_id limit n;
end
$$;
comment on function dynrec._scan_index(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz, bigint, int) is
  'Internal. The n nearest current vectors through the HNSW index, filtered on the way; fewer than n when as many rows as most have been visited. probe: the hnsw.ef_search that it is called with.';

create or replace function dynrec._index_narrow(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, most bigint)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set hnsw.ef_search = 100
as $$ begin return query select * from dynrec._scan_index(r, query, n, excluded, filter, filter_args, as_of, most, 100); end $$;
comment on function dynrec._index_narrow(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz, bigint) is
  'Internal. _scan_index with hnsw.ef_search at 100.';

create or replace function dynrec._index_wide(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, most bigint)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set hnsw.ef_search = 300
as $$ begin return query select * from dynrec._scan_index(r, query, n, excluded, filter, filter_args, as_of, most, 300); end $$;
comment on function dynrec._index_wide(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz, bigint) is
  'Internal. _scan_index with hnsw.ef_search at 300.';

create or replace function dynrec._index_widest(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, most bigint)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set hnsw.ef_search = 1000
as $$ begin return query select * from dynrec._scan_index(r, query, n, excluded, filter, filter_args, as_of, most, 1000); end $$;
comment on function dynrec._index_widest(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz, bigint) is
  'Internal. _scan_index with hnsw.ef_search at 1000.';

create or replace function dynrec._index_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, most bigint)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  holds text := (select m.vector_index from dynrec_data.model_version m where m.id = r.active_model_id);
  probe int := dynrec._probe(holds, n, cardinality(excluded), (r.options ->> 'vector_probe')::int);
begin
  -- evaluations run in parallel workers, where only the definition of a function may change a setting
  if probe <= 100 then
    return query select * from dynrec._index_narrow(r, query, n, excluded, filter, filter_args, as_of, most);
  elsif probe <= 300 then
    return query select * from dynrec._index_wide(r, query, n, excluded, filter, filter_args, as_of, most);
  else
    return query select * from dynrec._index_widest(r, query, n, excluded, filter, filter_args, as_of, most);
  end if;
end
$$;
comment on function dynrec._index_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz, bigint) is
  'Internal. The n nearest current vectors through the HNSW index, filtered on the way; fewer than n when as many rows as most have been visited.';

create or replace function dynrec._filtered_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  bounds record := dynrec._filter_bounds(r, n, filter, filter_args);
  visits bigint;
  found_ids text[];
  found_scores double precision[];
  eligible text[];
begin
  for attempt in 1 .. 2 loop
    visits := case attempt when 1 then bounds.first_visits else bounds.more_visits end;
    if visits > 0 then
      select array_agg(c.item_id), array_agg(c.score) into found_ids, found_scores
      from dynrec._index_candidates(r, query, n, excluded, filter, filter_args, null, visits) c;
      if cardinality(found_ids) = n then
        return query select * from unnest(found_ids, found_scores);
        return;
      end if;
    end if;
    -- few are expected, or they are rarer than expected where the query is: all of them, after the second time however many
    eligible := dynrec._eligible(r, filter, filter_args, case attempt when 1 then bounds.few end);
    exit when eligible is not null;
  end loop;
  return query select * from dynrec._nearest_among(r, query, n, excluded, eligible);
end
$$;
comment on function dynrec._filtered_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb) is
  'Internal. The n nearest items that the filter accepts: exact search among the eligible or through the index, as few or many are expected; if that was wrong, the other.';

create or replace function dynrec._known_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  items double precision;
  ids text[];
  scores double precision[];
begin
  select greatest(c.reltuples, 0) into items from pg_class c where c.oid = format('dynrec_data.item_vector_%s', r.active_model_id)::regclass;
  select array_agg(c.item_id), array_agg(c.score) into ids, scores
  -- to visit a row of the index costs as much as to compare sixteen vectors
  from dynrec._index_candidates(r, query, n, excluded, filter, filter_args, as_of, greatest(items / 16, 1000)::bigint) c;
  if coalesce(cardinality(ids), 0) < n then
    return query select * from dynrec._exact_candidates(r, query, n, excluded, filter, filter_args, as_of);
    return;
  end if;
  -- the current versions that were known then, through the index, and those replaced since, exactly
  return query execute format($query$
    select c.item_id, c.score from (
      select * from unnest($6, $7) as i (item_id, score)
      union all
      select h.item_id, -(dynrec._vector(h.embedding, h.half) <#> $3) from dynrec_data.item_vector_history h
      where h.model_id = %s and h.created_at <= $5 and h.replaced_at > $5 and %s and %s
    ) c
    order by c.score desc, c.item_id limit $4
    $query$, r.active_model_id, dynrec._not_excluded('h.item_id'),
    case when filter is null and not row_security_active(r.items) then 'true' else dynrec._in_source(r, 'h.item_id', filter) end)
    using filter_args, excluded, query, n, as_of, ids, scores;
end
$$;
comment on function dynrec._known_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz) is
  'Internal. The n nearest item versions known at as_of. Items deleted since are among them, unless a filter or row security needs their source row.';

create or replace function dynrec._nearest(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  ids text[];
  scores double precision[];
begin
  if as_of is not null then
    return query select * from dynrec._known_candidates(r, query, n, excluded, filter, filter_args, as_of);
    return;
  elsif filter is not null then
    return query select * from dynrec._filtered_candidates(r, query, n, excluded, filter, filter_args);
    return;
  end if;
  execute format('select array_agg(c.item_id), array_agg(c.score) from dynrec_data.nearest_m%s($1, $2, $3) c', r.active_model_id)
    into ids, scores using query, n, excluded;
  if cardinality(ids) = n then
    return query select * from unnest(ids, scores);
  else
    return query select * from dynrec._exact_candidates(r, query, n, excluded, null, filter_args, null);
  end if;
end
$$;
comment on function dynrec._nearest(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz) is
  'Internal. The n eligible items nearest to a query vector, with their inner products; exactly n if there are as many.';

create or replace function dynrec._popular(
  r dynrec_data.recommender, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  half_life double precision := dynrec._seconds((r.options ->> 'trending_half_life')::interval);
begin
  if r.interactions is null then
    return;
  elsif as_of is null then
    return query execute format($query$
      select p.item_id, p.score * dynrec._decay(dynrec._age(dynrec._now(), p.reference_time), $3) from dynrec_data.item_popularity p
      where p.recommender_id = %s and p.score > 0 and p.event_count > 0 and %s and %s
      order by p.key desc, p.item_id limit $4
      $query$, r.id, dynrec._not_excluded('p.item_id'), dynrec._in_source(r, 'p.item_id', filter))
      using filter_args, excluded, half_life, n;
  else
    return query execute format($query$
      -- in order first: whether an item is eligible is dear to ask
      select o.item_id, o.score from (
        select p.* from (
          select k.item_id, k.score * dynrec._decay(dynrec._age($5, k.reference_time), $3) as score, dynrec._popularity_key(k.score, k.reference_time, $3) as key
          from dynrec._popularity_known(%1$s, $5) k where $6 and k.score > 0 and k.event_count > 0
          union all
          -- a moment before anything was counted: from what is in the source now
          select w.item_id, w.score, dynrec._popularity_key(w.score, $5, $3) from (
            select i.item_id, sum(dynrec_data.kind_weight_%1$s(i.kind, i.value) * dynrec._decay(dynrec._age($5, i.occurred_at), $3)) as score
            from dynrec_data.interactions_all_%1$s() i where not $6 and $7 and i.occurred_at <= $5 and dynrec._age($5, i.occurred_at) < 30 * $3
            group by i.item_id
          ) w
        ) p
        where p.score > 0 and %2$s
        order by p.key desc, p.item_id offset 0
      ) o
      where %3$s
      order by o.key desc, o.item_id limit $4
      $query$, r.id, dynrec._not_excluded('p.item_id'),
      case when filter is null and not row_security_active(r.items) then format('dynrec_data.vector_known_m%s(o.item_id, $5) is not null', r.active_model_id)
        else dynrec._in_source(r, 'o.item_id', filter) end)
      using filter_args, excluded, half_life, n, as_of, coalesce(r.popularity_since <= as_of, false), not dynrec._is_private(r);
  end if;
end
$$;
comment on function dynrec._popular(dynrec_data.recommender, int, text[], text, jsonb, timestamptz) is
  'Internal. The n eligible items of the highest decayed popularity, now or as it was counted at as_of; before anything was counted, from the interactions dated up to then.';

create or replace function dynrec._any_items(
  r dynrec_data.recommender, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
begin
  if as_of is not null then
    return query execute format('select v.item_id, 0::double precision from %s v where %s and %s order by v.item_id limit $4',
      dynrec._known_vectors(r), dynrec._not_excluded('v.item_id'),
      case when filter is null and not row_security_active(r.items) then 'true' else dynrec._in_source(r, 'v.item_id', filter) end)
      using filter_args, excluded, null::vector, n, as_of;
    return;
  end if;
  return query execute format(e'select item.%1$I::text, 0::double precision from %2$s item, lateral (select $1::jsonb as args) a\n'
    'where (\n%3$s\n) and %4$s order by item.%1$I limit $3',
    r.item_key, dynrec._qualified(r.items), coalesce(filter, 'true'), dynrec._not_excluded(format('item.%I::text', r.item_key)))
    using filter_args, excluded, n;
end
$$;
comment on function dynrec._any_items(dynrec_data.recommender, int, text[], text, jsonb, timestamptz) is
  'Internal. Any n eligible items in key order, whether they have a vector or not: the last resort that keeps a list at k rows.';
