-- Candidate generation: by vector, by popularity, or any item. Each returns at most n eligible items, best first.

create or replace function dynrec._exact_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, from_source boolean)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
begin
  return query execute format($query$
    select v.item_id, -(%s <#> $3) as score
    from %s
    where %s and (%s)
    order by score desc, v.item_id limit $4
    $query$,
    case when as_of is null then 'dynrec._vector(v.embedding, v.half)' else 'v.embedding' end,
    case when from_source then format(
        e'(select item.%I::text as id from %s item, lateral (select $1::jsonb as args) a where (\n%s\n)) e join dynrec_data.item_vector_%s v on v.item_id = e.id',
        r.item_key, dynrec._qualified(r.items), filter, r.active_model_id)
      when as_of is null then format('dynrec_data.item_vector_%s v', r.active_model_id)
      else dynrec._known_vectors(r) || ' v' end,
    dynrec._not_excluded('v.item_id'),
    case when from_source or as_of is not null and filter is null and not row_security_active(r.items) then 'true'
      else dynrec._in_source(r, 'v.item_id', filter) end)
    using filter_args, excluded, query, n, as_of;
end
$$;
comment on function dynrec._exact_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz, boolean) is
  'Internal. The n nearest by exact search: from the rows that the filter accepts (from_source), from all vectors, or from those known at as_of.';

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

create or replace function dynrec._index_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
set hnsw.iterative_scan = 'strict_order'
set hnsw.ef_search = 100
set enable_sort = off  -- through the index it is
as $$
declare
  holds text := (select m.vector_index from dynrec_data.model_version m where m.id = r.active_model_id);
begin
  perform set_config('hnsw.iterative_scan', dynrec._index_scan(holds), true);
  perform set_config('hnsw.ef_search', dynrec._probe(holds, n), true);
  return query execute dynrec._render($query$
    select c.item_id, c.score from (
      select v.item_id, -(dynrec._vector(v.embedding, v.half) <#> $3) as score
      from dynrec_data.item_vector_{model} v
      where {allowed} and {seen} and {known}
      order by {distance} limit dynrec._reach({holds}, $4)
    ) c
    order by c.score desc limit $4
    $query$, jsonb_build_object('model', r.active_model_id, 'distance', dynrec._distance(holds, vector_dims(query), '$3'), 'holds', quote_literal(holds),
      'allowed', dynrec._not_excluded('v.item_id'),
      'seen', case when as_of is not null and filter is null and not row_security_active(r.items) then 'true'
        else dynrec._in_source(r, 'v.item_id', filter) end,
      'known', case when as_of is null then 'true' else 'v.created_at <= $5' end))
    using filter_args, excluded, query, n, as_of;
end
$$;
comment on function dynrec._index_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb, timestamptz) is
  'Internal. The n nearest current vectors through the HNSW index, filtered on the way; fewer than n when the scan gives up early.';

create or replace function dynrec._filtered_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  eligible int;
  found_rows int;
begin
  -- few eligible rows: exact search among them is faster than an index scan that skips nearly everything
  execute format(e'select count(*) from (select from %s item, lateral (select $1::jsonb as args) a where (\n%s\n) limit 2001) probe',
    dynrec._qualified(r.items), filter) into eligible using filter_args;
  if eligible <= 2000 then
    return query select * from dynrec._exact_candidates(r, query, n, excluded, filter, filter_args, null, true);
    return;
  end if;
  return query
    with through_index as materialized (
      select * from dynrec._index_candidates(r, query, n, excluded, filter, filter_args, null)
    ), enough as materialized (
      select count(*) >= n as yes from through_index
    )
    select i.* from through_index i, enough where enough.yes
    union all
    select e.* from enough, dynrec._exact_candidates(r, query, n, excluded, filter, filter_args, null, true) e where not enough.yes;
end
$$;
comment on function dynrec._filtered_candidates(dynrec_data.recommender, vector, int, text[], text, jsonb) is
  'Internal. The n nearest items that the filter accepts: exact among up to 2000 eligible rows, through the index above that, exact again if it gave up early.';

create or replace function dynrec._known_candidates(
  r dynrec_data.recommender, query vector, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  ids text[];
  scores double precision[];
begin
  select array_agg(c.item_id), array_agg(c.score) into ids, scores
  from dynrec._index_candidates(r, query, n, excluded, filter, filter_args, as_of) c;
  if coalesce(cardinality(ids), 0) < n then
    return query select * from dynrec._exact_candidates(r, query, n, excluded, filter, filter_args, as_of, false);
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
    return query select * from dynrec._exact_candidates(r, query, n, excluded, null, filter_args, null, false);
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
