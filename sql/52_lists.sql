-- How a list is made: what the model asks for, candidates, ranking, diversity; filled up to k from trending and then from any item.

create or replace function dynrec._trending(
  r dynrec_data.recommender, n int, excluded text[], filter text, filter_args jsonb, as_of timestamptz, popular jsonb)
returns table (item_id text, score double precision)
language plpgsql stable
set search_path from current
as $$
declare
  known_ids text[];
  known_scores double precision[];
begin
  if filter is null and popular ? 'trending' then
    select array_agg(t.id order by t.place), array_agg(t.score order by t.place) into known_ids, known_scores
    from (
      select e.one ->> 0 as id, (e.one ->> 1)::double precision as score, e.place from jsonb_array_elements(popular -> 'trending') with ordinality as e (one, place)
      where not exists (select from unnest(excluded) x where x = e.one ->> 0) order by e.place limit n
    ) t;
  end if;
  -- what is known beforehand are the first of them: where too few are left, all are asked for
  if cardinality(known_ids) = n then
    return query select t.id, t.score from unnest(known_ids, known_scores) with ordinality as t (id, score, place) order by t.place;
  else
    return query select * from dynrec._popular(r, n, excluded, filter, filter_args, as_of);
  end if;
end
$$;
comment on function dynrec._trending(dynrec_data.recommender, int, text[], text, jsonb, timestamptz, jsonb) is
  'Internal. The n eligible items of the highest decayed popularity (dynrec._popular), from those that are known already if these are enough.';

create or replace function dynrec._filled(
  r dynrec_data.recommender, ids text[], scores double precision[], sources text[], k int, excluded text[], filter text, filter_args jsonb, as_of timestamptz,
  popular jsonb default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  more_ids text[];
  more_scores double precision[];
begin
  if cardinality(ids) < k then
    select coalesce(array_agg(c.item_id), '{}'), coalesce(array_agg(c.score), '{}') into more_ids, more_scores
    from dynrec._trending(r, k - cardinality(ids), excluded || ids, filter, filter_args, as_of, popular) c;
    sources := sources || array_fill('trending'::text, array[cardinality(more_ids)]);
    ids := ids || more_ids;
    scores := scores || more_scores;
  end if;
  if cardinality(ids) < k then
    select coalesce(array_agg(c.item_id), '{}'), coalesce(array_agg(c.score), '{}') into more_ids, more_scores
    from dynrec._any_items(r, k - cardinality(ids), excluded || ids, filter, filter_args, as_of) c;
    sources := sources || array_fill('fallback'::text, array[cardinality(more_ids)]);
    ids := ids || more_ids;
    scores := scores || more_scores;
  end if;
  return query
    select c.item_id, c.rank::int, c.score, c.source, r.active_model_id
    from unnest(ids, scores, sources) with ordinality as c (item_id, score, source, rank);
end
$$;
comment on function dynrec._filled(dynrec_data.recommender, text[], double precision[], text[], int, text[], text, jsonb, timestamptz, jsonb) is
  'Internal. The rows found by a path, filled up to k from trending and then from any eligible item.';

create or replace function dynrec._ranked(
  r dynrec_data.recommender, query vector, context int, for_user text, path text, k int, excluded text[], filter text, filter_args jsonb,
  diversity double precision, as_of timestamptz, repeats boolean default false, session text[] default null, popular jsonb default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  n int := case when diversity > 0 then greatest(5 * k, 100) else k end;
  ids text[] := '{}';
  scores double precision[] := '{}';
  sources text[] := '{}';
  chosen int[];
begin
  if context is not null then
    select coalesce(array_agg(c.item_id), '{}'), coalesce(array_agg(c.score), '{}'), coalesce(array_agg(c.source), '{}') into ids, scores, sources
    from dynrec._learned_candidates(r, query, context, for_user, session, path, n, excluded, filter, filter_args, as_of, repeats, popular) c;
  elsif query is not null then
    select coalesce(array_agg(c.item_id), '{}'), coalesce(array_agg(c.score), '{}'), coalesce(array_agg(path), '{}') into ids, scores, sources
    from dynrec._nearest(r, query, n, excluded, filter, filter_args, as_of) c;
  end if;
  if diversity > 0 and cardinality(ids) > 0 then
    chosen := dynrec._diversify(dynrec._relevance(r, scores), dynrec._vectors_of(r, ids, as_of), k, diversity);
    select array_agg(ids[c] order by p), array_agg(scores[c] order by p), array_agg(sources[c] order by p) into ids, scores, sources
    from unnest(chosen) with ordinality x (c, p);
  end if;
  return query select * from dynrec._filled(r, ids, scores, sources, k, excluded, filter, filter_args, as_of, popular);
end
$$;
comment on function dynrec._ranked(
  dynrec_data.recommender, vector, int, text, text, int, text[], text, jsonb, double precision, timestamptz, boolean, text[], jsonb) is
  'Internal. k rows: the best for a query (in a context: by the ranking of a learned model; null: none), diversified, then trending, then any eligible item.';

create or replace function dynrec._popular_of(r dynrec_data.recommender, as_of timestamptz) returns jsonb
language plpgsql stable
set search_path from current
as $$
declare
  popular jsonb;
begin
  if exists (select from dynrec_data.model_version m where m.id = r.active_model_id and m.kind = 'learned') then
    execute format($query$
      select jsonb_build_object('ids', coalesce(jsonb_agg(p.item_id) filter (where p.slot between 2 and 4), '[]'),
        'tops', dynrec_data.tops_m%1$s(array_agg(p.rate), array_agg(p.slot)))
      from dynrec_data.popular_m%1$s($1) p
      $query$, r.active_model_id) into popular using as_of;
  end if;
  return popular;
end
$$;
comment on function dynrec._popular_of(dynrec_data.recommender, timestamptz) is
  'Internal. What a learned model ranks all lists of a moment by, now or as known at as_of: the popular items with half-lives of 1, 7 and 30 days, and how popular the top is by each half-life. Null in a content space.';

create or replace function dynrec._shared_of(r dynrec_data.recommender, as_of timestamptz) returns jsonb
language sql stable
set search_path from current
as $$
  select coalesce(dynrec._popular_of(r, as_of), '{}') || jsonb_build_object('trending', (
    select coalesce(jsonb_agg(jsonb_build_array(p.item_id, p.score) order by p.place), '[]')
    from dynrec._popular(r, 200, '{}', null, '{}', as_of) with ordinality as p (item_id, score, place)))
$$;
comment on function dynrec._shared_of(dynrec_data.recommender, timestamptz) is
  'Internal. What all lists of a moment have in common, read once for many of them: dynrec._popular_of, and the first 200 trending items.';

create or replace function dynrec._learned_candidates(
  r dynrec_data.recommender, query vector, context int, for_user text, session text[], path text, n int, excluded text[], filter text,
  filter_args jsonb, as_of timestamptz, repeats boolean, popular jsonb)
returns table (item_id text, score double precision, source text)
language plpgsql stable
set search_path from current
as $$
declare
  config jsonb;
  asked vector := query;
  near text[];
  following record;
  met text[] := '{}';
begin
  select m.config into config from dynrec_data.model_version m where m.id = r.active_model_id;
  if query is null then
    execute format('select dynrec_data.nobody_m%s($1)', r.active_model_id) into asked using context;
  end if;
  select array_agg(c.item_id) into near
  from dynrec._nearest(r, asked, greatest((config ->> 'candidates')::int, 3 * n), excluded, filter, filter_args, as_of) c;
  popular := coalesce(popular, dynrec._popular_of(r, as_of));
  execute format('select array_agg(f.item_id) as ids, array_agg(f.strength) as strengths, array_agg(f.item_id) filter (where f.is_candidate) as first from dynrec_data.following_m%s($1, $2, $3, $4) f', r.active_model_id)
    into following using for_user, session, context, as_of;
  if repeats then
    execute format('select dynrec_data.own_m%s($1, $2)', r.active_model_id) into met using for_user, as_of;
  end if;
  return query execute format($query$
    with candidate as (
      select f.item_id, min(f.place) as place from (
        select i as item_id, 1 as place from unnest($3) i
        union all select i, 2 from unnest($10) i where %2$s and %3$s
        union all select i, 3 from unnest($4) i where %2$s and %3$s
        union all select i, 4 from unnest($5) i where %2$s and %3$s
      ) f group by f.item_id
    ), ranked as (
      select s.*, row_number() over best as place, row_number() over (partition by s.is_new order by s.score desc, s.item_id) as among,
        nth_value(s.score, $13) over (best rows between unbounded preceding and unbounded following) as last
      from dynrec_data.ranked_m%1$s(array(select c.item_id from candidate c), $6, $7, $8, $9, $15, $16, $11) s
      window best as (order by s.score desc, s.item_id)
    )
    select s.item_id, s.score, case when c.place <= 2 and $6 is not null then $12 when c.place = 4 then 'repeat' else 'trending' end
    from ranked s join candidate c using (item_id)
    order by dynrec._held_place(s.place, s.among, s.is_new and coalesce(s.score >= s.last - $17, true), $13, $14), s.place limit $13
    $query$, r.active_model_id, dynrec._not_excluded('i'),
    case when as_of is not null and filter is null and not row_security_active(r.items) then 'true' else dynrec._in_source(r, 'i', filter) end)
    using filter_args, excluded, near, array(select jsonb_array_elements_text(popular -> 'ids')), met, query, context, for_user,
      array(select jsonb_array_elements_text(popular -> 'tops')::double precision), following.first, as_of, path, n,
      dynrec._held_slots(n, (config ->> 'exploration')::double precision, for_user, coalesce(as_of, dynrec._now())), following.ids, following.strengths,
      coalesce((config ->> 'exploration_gap')::double precision, 'infinity');
end
$$;
comment on function dynrec._learned_candidates(
  dynrec_data.recommender, vector, int, text, text[], text, int, text[], text, jsonb, timestamptz, boolean, jsonb) is
  'Internal. The n best of the candidates of a learned model: nearest by vector, the likeliest to follow what the user or the session met last, popular with a half-life of 1, 7 or 30 days, and, with repeats, the items that the user met last.';

create or replace function dynrec._relevance(r dynrec_data.recommender, scores double precision[]) returns double precision[]
language sql stable
set search_path from current
as $$
  select case m.kind when 'content' then scores else (
    select array_agg(case when x.highest > x.lowest then (s - x.lowest) / (x.highest - x.lowest) else 1 end order by p)
    from unnest(scores) with ordinality u (s, p), (select max(v) as highest, min(v) as lowest from unnest(scores) v) x) end
  from dynrec_data.model_version m where m.id = r.active_model_id
$$;
comment on function dynrec._relevance(dynrec_data.recommender, double precision[]) is
  'Internal. Scores beside which a cosine counts: cosines as they are, those of a learned model stretched to 0 to 1.';

create or replace function dynrec._seen(r dynrec_data.recommender, user_id text, as_of timestamptz) returns text[]
language plpgsql stable
set search_path from current
as $$
declare
  seen text[];
begin
  if r.interactions is null or not dynrec._is_key(user_id, r.user_key_type) then
    return '{}';
  elsif as_of is null then
    execute format('select array_agg(distinct i.item_id) from dynrec_data.interactions_%s(array[$1]) i', r.id)
    into seen using dynrec._as_key(user_id, r.user_key_type);
  else
    execute format('select array_agg(distinct i.item_id) from dynrec_data.interactions_known_m%s($1, $2) i', r.active_model_id)
    into seen using dynrec._as_key(user_id, r.user_key_type), as_of;
  end if;
  return coalesce(seen, '{}');
end
$$;
comment on function dynrec._seen(dynrec_data.recommender, text, timestamptz) is 'Internal. The items that a user has interacted with, of whatever kind, now or as known at as_of.';

create or replace function dynrec._asked(r dynrec_data.recommender, user_id text, as_of timestamptz, out query vector, out context int)
language plpgsql stable
set search_path from current
as $$
begin
  if not dynrec._is_key(user_id, r.user_key_type) then
    execute format('select dynrec_data.context_m%s(null, 0)', r.active_model_id) into context;
  elsif as_of is null then
    execute format('select q.query, q.context from dynrec_data.query_m%s($1) q', r.active_model_id)
    into query, context using dynrec._as_key(user_id, r.user_key_type);
  else
    execute format('select q.query, q.context from dynrec_data.query_known_m%s($1, $2) q', r.active_model_id)
    into query, context using dynrec._as_key(user_id, r.user_key_type), as_of;
  end if;
end
$$;
comment on function dynrec._asked(dynrec_data.recommender, text, timestamptz) is
  'Internal. What the model asks for on behalf of a user now or as known at as_of: query is null if nothing is known; context is null in a content space.';

create or replace function dynrec._recommended(
  r dynrec_data.recommender, user_id text, k int, filter text, filter_args jsonb, excluded text[], seen text[],
  diversity double precision, as_of timestamptz, popular jsonb default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable parallel safe
set search_path from current
as $$
#variable_conflict use_variable
declare
  asked record;
begin
  if r.interactions is null then
    return query select * from dynrec._ranked(r, null, null, null, 'personal', k, excluded, filter, filter_args, diversity, as_of);
    return;
  end if;
  -- a user of whom nothing is known is served, too; so is a key that no user can have
  asked := dynrec._asked(r, user_id, as_of);
  user_id := case when dynrec._is_key(user_id, r.user_key_type) then dynrec._as_key(user_id, r.user_key_type) end;
  return query select * from dynrec._ranked(r, asked.query, asked.context, user_id, 'personal', k, excluded || coalesce(seen, '{}'),
    filter, filter_args, diversity, as_of, repeats => seen is null, popular => popular);
end
$$;
comment on function dynrec._recommended(
  dynrec_data.recommender, text, int, text, jsonb, text[], text[], double precision, timestamptz, jsonb) is
  'Internal. k items for a user by the model version that r answers by, without those that the user has seen (null: with them); the arguments are valid. popular: dynrec._shared_of, if it is known already. Starts no subtransaction: it runs in parallel workers.';
