-- Evaluation on a global temporal split: scores of every user's list, and their means.

create or replace function dynrec._counts_known(r dynrec_data.recommender, known_at timestamptz) returns table (item_id text, event_count bigint)
language plpgsql stable
set search_path from current
as $$
begin
  if r.popularity_since <= known_at then
    return query select p.item_id, p.event_count from dynrec._popularity_known(r.id, known_at) p where p.event_count > 0;
  else
    return query execute format('select i.item_id, count(*) from dynrec_data.interactions_all_%s() i where i.occurred_at <= $1 group by i.item_id', r.id)
      using known_at;
  end if;
end
$$;
comment on function dynrec._counts_known(dynrec_data.recommender, timestamptz) is 'Internal. How many interactions each item had, as known at a moment; only items that had any.';

create or replace function dynrec._catalogue_known(r dynrec_data.recommender, known_at timestamptz, category text)
returns table (item_id text, embedding vector, category_value text)
language plpgsql stable
set search_path from current
as $$
begin
  return query execute format($query$
    select v.item_id, v.embedding, case when $1 is not null then coalesce((
      select c.features ->> $1 from dynrec_data.item_content c where c.recommender_id = %s and c.item_id = v.item_id), 'none') end
    from %s v$query$, r.id, dynrec._known_vectors(r)) using category, null::text[], null::vector, null::int, known_at;
end
$$;
comment on function dynrec._catalogue_known(dynrec_data.recommender, timestamptz, text) is
  'Internal. The items that had a vector at a moment, with that vector and a category of today: none where it has none, null without a column.';

create or replace function dynrec._check_cut_offs(k int[]) returns int
language plpgsql immutable
set search_path from current
as $$
begin
  if k is null or cardinality(k) = 0 then
    perform dynrec._reject('k is missing', k::text, 'Give one length of list or several, for example array[5, 10].');
  end if;
  perform dynrec._check_k(c) from unnest(k) c;
  return (select max(c) from unnest(k) c);
end
$$;
comment on function dynrec._check_cut_offs(int[]) is 'Internal. The greatest of several k; an error unless all are from 1 to 10000.';

create or replace function dynrec._check_category(r dynrec_data.recommender, category text) returns void
language plpgsql stable
set search_path from current
as $$
begin
  if category is not null and category <> all (r.categorical_columns) then
    perform dynrec._reject('category is not a categorical column of the recommender', category,
      format('There are: %s.', coalesce(nullif(array_to_string(r.categorical_columns, ', '), ''), 'none')));
  end if;
end
$$;
comment on function dynrec._check_category(dynrec_data.recommender, text) is 'Internal. An error unless category is null or a categorical column.';

create or replace function dynrec._evaluation(
  recommender text, "from" timestamptz, "to" timestamptz, k int[], by_model int, users int, seed int, user_ids text[], filter text,
  filter_args jsonb, exclude_seen boolean, diversity double precision, category text)
returns table (user_id text, metric text, at_k int, slice text, value double precision, error double precision, n bigint)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  longest int := dynrec._check_cut_offs(k);
begin
  perform dynrec._check_category(r, category);
  r := dynrec._answering(r, least("from", clock_timestamp()), by_model);
  return query
    with list as materialized (
      select e.user_id as id, e.recommended, e.relevant, e.gains, e.is_new, 1 + abs(hashtextextended(e.user_id, 1) % 10) as part
      from dynrec.evaluation_lists(recommender, "from", "to", longest, by_model, users, seed, user_ids, filter, filter_args, exclude_seen, diversity) e
    ), counted as materialized (
      select c.item_id, c.event_count, row_number() over (order by c.event_count desc, c.item_id) as place, sum(c.event_count) over () as total
      from dynrec._counts_known(r, "from") c
    ), item as materialized (
      select c.item_id, l2_normalize(c.embedding) as direction, c.category_value as category, coalesce(n.event_count, 0) as events, coalesce(n.place, 9223372036854775807) as place,
        -ln(greatest(coalesce(n.event_count, 0), 1)::double precision / greatest(coalesce(t.total, 0), 1)) / ln(2::double precision) as information
      from dynrec._catalogue_known(r, "from", category) c left join counted n on n.item_id = c.item_id cross join (select max(x.total)::double precision as total from counted x) t
    ), wanted as materialized (
      select l.id, w.item_id, w.gain, i.events, i.category from list l, unnest(l.relevant, l.gains) w (item_id, gain) join item i on i.item_id = w.item_id
    ), target as materialized (
      select w.id, 'all' as slice, array_agg(w.item_id) as items from wanted w group by w.id
      union all
      select w.id, 'cold items', array_agg(w.item_id) from wanted w where w.events = 0 group by w.id
      union all
      select w.id, category || ': ' || w.category, array_agg(w.item_id) from wanted w where category is not null group by w.id, w.category
    ), shown as materialized (
      select l.id, l.part, s.item_id, s.rank, i.information, i.direction, i.place, i.events
      from list l, unnest(l.recommended) with ordinality s (item_id, rank) left join item i on i.item_id = s.item_id
    ), cut as (
      select distinct c as k from unnest(k) c
    ), hit as (
      select s.id, t.slice, s.rank, s.place, row_number() over (partition by s.id, t.slice order by s.rank) as nth
      from shown s join target t on t.id = s.id and s.item_id = any (t.items)
    ), found as (
      select t.id, t.slice, c.k, cardinality(t.items) as wanted, count(h.rank)::int as hits, min(h.rank) as first,
        coalesce(sum(ln(2::double precision) / ln(h.rank + 1::double precision)), 0) as gain, coalesce(sum(h.nth / h.rank::double precision), 0) as precisions,
        (count(h.rank) filter (where h.place > c.k))::int as unexpected
      from target t cross join cut c left join hit h on h.id = t.id and h.slice = t.slice and h.rank <= c.k
      group by t.id, t.slice, c.k, t.items
    ), ideal as materialized (
      select g.rank, sum(ln(2::double precision) / ln(g.rank + 1::double precision)) over (order by g.rank) as gain from generate_series(1, longest) as g (rank)
    ), accuracy as (
      select f.id, f.slice, f.k, m.metric, m.value
      from found f join ideal i on i.rank = least(f.k, f.wanted), lateral (values
        ('precision_at_k', f.hits / f.k::double precision), ('recall_at_k', f.hits / f.wanted::double precision), ('ndcg_at_k', f.gain / i.gain),
        ('average_precision_at_k', f.precisions / least(f.k, f.wanted)), ('reciprocal_rank', coalesce(1 / f.first::double precision, 0)),
        ('hit_rate_at_k', (f.hits > 0)::int::double precision), ('serendipity_at_k', f.unexpected / f.k::double precision)) m (metric, value)
    ), graded as (
      select w.id, 'all' as slice, c.k, 'graded_ndcg_at_k' as metric, coalesce(sum(w.gain * ln(2::double precision) / ln(s.rank + 1::double precision)) filter (where s.rank <= c.k), 0)
        / nullif(sum(w.gain * ln(2::double precision) / ln(w.best + 1::double precision)) filter (where w.best <= c.k), 0) as value
      from (select w.*, row_number() over (partition by w.id order by w.gain desc) as best from wanted w) w
      cross join cut c left join shown s on s.id = w.id and s.item_id = w.item_id
      group by w.id, c.k
    ), beyond as (
      select x.id, 'all' as slice, x.k, m.metric, m.value
      from (
        select s.id, c.k, avg(s.information) as novelty, avg(s.events) as events, count(s.direction) as directions, vector_norm(sum(s.direction)) as length
        from shown s cross join cut c where s.rank <= c.k group by s.id, c.k
      ) x, (select avg(i.events) as events from item i) catalogue, lateral (values
        ('novelty_at_k', x.novelty),
        ('popularity_bias_at_k', (x.events / nullif(catalogue.events, 0))::double precision),
        ('intra_list_diversity_at_k', case when x.directions > 1 then 1 - (x.length ^ 2 - x.directions) / (x.directions * (x.directions - 1)) end)) m (metric, value)
    ), scored as (
      select * from accuracy union all select * from graded union all select * from beyond
    ), without as (
      -- of all lists together, and of all but one part of the users: how the values vary says how sure they are
      select c.k, p.part, m.metric, m.value
      from cut c cross join generate_series(0, 10) as p (part), (select count(*) as size from item) catalogue, lateral (
        select array_agg(s.item_id) as items from shown s where s.rank <= c.k and s.part <> p.part
      ) shown, lateral (values
        ('catalogue_coverage_at_k', dynrec.catalogue_coverage(shown.items, catalogue.size)),
        ('user_coverage_at_k', dynrec.user_coverage(array(select cardinality(l.recommended) from list l where l.part <> p.part), c.k)),
        ('gini_of_exposure_at_k', dynrec.gini_of_exposure(shown.items, catalogue.size)),
        ('shannon_of_exposure_at_k', dynrec.shannon_of_exposure(shown.items))) m (metric, value)
    ), together as (
      select w.k, w.metric, max(w.value) filter (where w.part = 0) as value,
        case when (select count(distinct l.part) from list l) = 10 then 3 * stddev_pop(w.value) filter (where w.part > 0) end as error
      from without w group by w.k, w.metric
    )
    select s.id, s.metric, s.k, s.slice, s.value, null::double precision, 1::bigint from scored s
    union all
    select l.id, s.metric, s.k, case when l.is_new then 'new users' else 'known users' end, s.value, null, 1
    from scored s join list l on l.id = s.id where s.slice = 'all'
    union all
    select null, t.metric, t.k, 'all', t.value, t.error, l.lists from together t, (select count(*) as lists from list) l where l.lists > 0;
end
$$;
comment on function dynrec._evaluation(
  text, timestamptz, timestamptz, int[], int, int, int, text[], text, jsonb, boolean, double precision, text) is
  'Internal. The scores of each list, and those of all lists together (user_id null) with their standard errors, and how many lists stand behind each.';

create or replace function dynrec.evaluate_users(
  recommender text, "from" timestamptz, "to" timestamptz, k int[] default '{10}', by_model int default null, users int default null,
  seed int default 0, user_ids text[] default null, filter text default null, filter_args jsonb default '{}', exclude_seen boolean default null,
  diversity double precision default 0, category text default null)
returns table (user_id text, metric text, at_k int, slice text, value double precision)
language sql stable
set search_path from current
as $$
  select e.user_id, e.metric, e.at_k, e.slice, e.value
  from dynrec._evaluation(recommender, "from", "to", k, by_model, users, seed, user_ids, filter, filter_args, exclude_seen, diversity, category) e
  where e.user_id is not null and e.value is not null
$$;
comment on function dynrec.evaluate_users(
  text, timestamptz, timestamptz, int[], int, int, int, text[], text, jsonb, boolean, double precision, text) is
  'The scores of each list of dynrec.evaluation_lists (arguments as there), for several k at once. metric: precision_at_k, recall_at_k, ndcg_at_k, '
  'average_precision_at_k, reciprocal_rank, hit_rate_at_k as the functions of these names define them; serendipity_at_k: the share of k that is '
  'relevant and not among the k items with the most interactions at from; graded_ndcg_at_k: nDCG with the gains of dynrec.evaluation_lists; '
  'popularity_bias_at_k: the mean number of interactions of the items shown at from, divided by that of the catalogue; novelty_at_k: the mean of -log2(share of all interactions at from, at '
  'least one), in bits (Vargas & Castells, RecSys 2011); intra_list_diversity_at_k: the mean cosine distance of pairs of the vectors that the model'
  ' had at from. slice: all; new users or known users (whether anything was known of them); cold items (relevant items that nobody had met at '
  'from); and, with category (a categorical column), a slice for each of its values, relevant items of it. A user without relevant items counts in '
  'no score that needs them.';

create or replace function dynrec.evaluate(
  recommender text, "from" timestamptz, "to" timestamptz, k int[] default '{10}', by_model int default null, users int default null,
  seed int default 0, user_ids text[] default null, filter text default null, filter_args jsonb default '{}', exclude_seen boolean default null,
  diversity double precision default 0, category text default null)
returns table (metric text, at_k int, slice text, value double precision, standard_error double precision, low double precision, high double precision, n bigint)
language sql stable
set search_path from current
as $$
  select m.metric, m.at_k, m.slice, m.mean, m.error, m.mean - 1.959963984540054 * m.error, m.mean + 1.959963984540054 * m.error, m.n
  from (
    select e.metric, e.at_k, e.slice, avg(e.value) as mean, coalesce(max(e.error), stddev_samp(e.value) / sqrt(count(e.value))) as error, sum(e.n)::bigint as n
    from dynrec._evaluation(recommender, "from", "to", k, by_model, users, seed, user_ids, filter, filter_args, exclude_seen, diversity, category) e
    where e.value is not null
    group by e.metric, e.at_k, e.slice
  ) m
  order by m.slice <> 'all', m.slice, m.at_k, m.metric
$$;
comment on function dynrec.evaluate(
  text, timestamptz, timestamptz, int[], int, int, int, text[], text, jsonb, boolean, double precision, text) is
  'How good the recommendations of the moment from were, by what users did in [from, to): a global temporal split, by time travel '
  '(dynrec.evaluation_lists says what is asked and what counts, dynrec.evaluate_users what the metrics and slices are; arguments as there). One row'
  ' for each metric, k and slice: value, the mean over n users; its standard error (sample deviation / sqrt(n); null for one user; of what only '
  'all lists together have, catalogue_coverage_at_k, user_coverage_at_k, gini_of_exposure_at_k, shannon_of_exposure_at_k, the jackknife over ten parts of the users drawn by hash, null where a part is empty), and low to high, the 95'
  ' per cent interval by the normal approximation, which is rough below some thirty users.';
