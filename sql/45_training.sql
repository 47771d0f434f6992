-- Training examples: a point-in-time join of interactions with what was known of item and user at their moments, never later.

create or replace function dynrec._training_query(r dynrec_data.recommender) returns text
language sql stable
set search_path from current
as $body$
  select dynrec._render($query$
    with example as materialized (
      select i.* from dynrec_data.interactions_all_{id}() i where i.occurred_at >= $1 and i.occurred_at < $2
    ), item_moment as materialized (
      select distinct e.item_id, e.occurred_at from example e
    ), user_moment as materialized (
      select k.user_id, k.occurred_at, row_number() over (partition by k.user_id order by k.occurred_at)::int as number
      from (select distinct e.user_id, e.occurred_at from example e) k
    ), {known_interactions},
    -- items
    version as materialized (
      select v.item_id, v.features, v.created_at, v.replaced_at, v.given, {means} as means,
        (row_number() over one)::int as number
      from (
        select v.*, {given} as given
        from (
          select s.item_id, s.features, s.created_at, null::timestamptz as replaced_at from dynrec_data.item_content s where s.recommender_id = {id}
          union all
          select s.item_id, s.features, s.created_at, s.replaced_at from dynrec_data.item_content_history s where s.recommender_id = {id}
        ) v where v.item_id in (select k.item_id from item_moment k)
      ) v window one as (partition by v.item_id order by v.created_at)
    ), description as (
      select k.item_id, k.occurred_at, {described_number} as number
      from item_moment k join (select v.item_id, array_agg(v.created_at order by v.number) as begins from version v group by v.item_id) s using (item_id)
    ), popularity as (
      select p.item_id, c.moment as occurred_at, c.age, c.rates
      from (
        select s.item_id, array_agg(s.at order by s.at, s.occurred_at) as at, array_agg(s.occurred_at order by s.at, s.occurred_at) as times,
          array_agg(s.place order by s.at, s.occurred_at) as places, array_agg(s.met order by s.at, s.occurred_at) as met,
          array_agg(s.wanted order by s.at, s.occurred_at) as wanted
        from (
          select i.item_id, x.at, i.occurred_at, dense_rank() over (partition by i.item_id order by i.occurred_at) as place,
            sum(x.times) as met, coalesce(sum(x.times) filter (where dynrec_data.kind_weight_{id}(i.kind, 1) > 0), 0) as wanted
          from interaction i, lateral (values (greatest(i.known_from, i.occurred_at + interval '1 microsecond'), i.times), (i.known_until, -i.times)) x (at, times)
          where i.item_id in (select k.item_id from item_moment k) and x.at < $2
          group by i.item_id, x.at, i.occurred_at
          union all
          select k.item_id, k.occurred_at, null, null, null, null from item_moment k
        ) s group by s.item_id
      ) p, lateral dynrec._popularity_course(p.at, p.times, p.places, p.met, p.wanted) c
    ), item_feature as (
      select k.item_id, k.occurred_at, c.created_at, {numbers} as numbers, {labels} as labels
      from description k join version c on c.item_id = k.item_id and c.number = k.number and {described}
      cross join lateral (select case when c.created_at <= k.occurred_at then c.means end as means) m
      left join popularity p on p.item_id = k.item_id and p.occurred_at = k.occurred_at
    ), vector_version as materialized (
      select v.*, (row_number() over (partition by v.item_id order by v.created_at))::int as number
      from (
        select c.item_id, dynrec._vector(c.embedding, c.half) as embedding, c.contexts, c.created_at, null::timestamptz as replaced_at from dynrec_data.item_vector_{model} c
        union all
        select h.item_id, dynrec._vector(h.embedding, h.half), h.contexts, h.created_at, h.replaced_at from dynrec_data.item_vector_history h where h.model_id = {model}
      ) v where $3 or v.created_at < $2 and (v.replaced_at is null or v.replaced_at > $1)
    ), shelf as materialized (
      select v.item_id, array_agg(v.created_at order by v.number) as begins from vector_version v group by v.item_id
    ), item_vector as (
      select k.item_id, k.occurred_at, v.embedding
      from (select k.*, {placed_number} as number from item_moment k join shelf s using (item_id)) k
      join vector_version v on v.item_id = k.item_id and v.number = k.number and {placed}
    ),
    -- users
    timeline as materialized (
      select k.user_id, array_agg(k.occurred_at order by k.number) as moments from user_moment k group by k.user_id
    ), event as materialized (
      -- in numbers of the user's moments: the first that knows it, and the first that does not any more
      select e.* from (
        select i.user_id, i.item_id, i.kind, i.value, i.occurred_at, i.times, cardinality(t.moments) as moments,
          1 + width_bucket(greatest(i.known_from - interval '1 microsecond', i.occurred_at), t.moments) as seen,
          1 + width_bucket(i.known_until - interval '1 microsecond', t.moments) as gone
        from interaction i join timeline t using (user_id)
      ) e where e.seen <= e.moments and e.seen < e.gone
    ), memory as (
      -- between the moments from which on something is not known any more, knowledge only grows
      select s.user_id, s.start, lead(s.start, 1, 2147483647) over (partition by s.user_id order by s.start) as until
      from (select t.user_id, 1 as start from timeline t union select e.user_id, e.gone from event e where e.gone <= e.moments) s
    ), user_feature as (
      select e.user_id, e.occurred_at, e.numbers
      from (
        select e.user_id, e.moment as occurred_at, {user_numbers} as numbers
        from (
          select e.user_id, m.start, greatest(e.seen, m.start) as number, e.item_id, e.kind, e.value, e.occurred_at, null::timestamptz as moment,
            row_number() over (partition by e.user_id, m.start, e.item_id order by e.seen) = 1 as is_first
          from event e cross join lateral generate_series(1, e.times::int) join memory m on m.user_id = e.user_id and e.seen < m.until and e.gone > m.start
          union all
          select k.user_id, m.start, k.number, null, null, null, null, k.occurred_at, null
          from user_moment k join memory m on m.user_id = k.user_id and k.number >= m.start and k.number < m.until
        ) e
        window so_far as (partition by e.user_id, e.start order by e.number)
      ) e where e.occurred_at is not null
    ), {user_vectors}
    select e.user_id, e.item_id, e.kind, e.value, e.occurred_at,
      dynrec._as_features({number_names}, i.numbers, {label_names}, i.labels), dynrec._as_features({user_names}, u.numbers, '{}', '{}'),
      v.embedding, q.query, i.created_at
    from example e
    left join item_feature i on i.item_id = e.item_id and i.occurred_at = e.occurred_at
    left join item_vector v on v.item_id = e.item_id and v.occurred_at = e.occurred_at
    left join user_feature u on u.user_id = e.user_id and u.occurred_at = e.occurred_at
    left join user_vector q on q.user_id = e.user_id and q.moment = e.occurred_at
    order by e.occurred_at, e.user_id, e.item_id
    $query$, x.names || jsonb_build_object('known_interactions', dynrec._render(dynrec._known_interactions(), x.names),
      'user_vectors', dynrec._render(dynrec._user_vectors_query(m), x.names)))
  from dynrec_data.model_version m, lateral (
    select dynrec._model_names(r, m) || dynrec._feature_sql(r, 'over one') || dynrec._user_feature_sql(r, 'e.moment', 'over so_far') || jsonb_build_object(
      'described_number', dynrec._number_then('s', 'k.occurred_at'), 'described', dynrec._known_then('c', 'k.occurred_at'),
      'placed_number', dynrec._number_then('s', 'k.occurred_at'), 'placed', dynrec._known_then('v', 'k.occurred_at')) as names) x
  where m.id = r.active_model_id
$body$;
comment on function dynrec._training_query(dynrec_data.recommender) is
  'Internal. The query of training examples between $1 and $2, backdated ($3) or not, with the vectors of the active model version.';

create or replace function dynrec.training_examples(recommender text, "from" timestamptz, "to" timestamptz, backdated boolean default false)
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz, item_features jsonb, user_features jsonb,
  item_vector vector, user_vector vector, item_known_since timestamptz)
language plpgsql stable
set search_path from current
-- what is made on the way has no statistics, and is taken for much or little
set enable_nestloop = off
set enable_mergejoin = off
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  if "from" is null or "to" is null then
    perform dynrec._reject(case when "from" is null then '"from"' else '"to"' end || ' is missing', null, 'Give the moments between which examples are wanted.');
  elsif "from" >= "to" then
    perform dynrec._reject('"from" is not before "to"', format('%s, %s', "from", "to"), 'Give the earlier moment first; "to" itself is left out.');
  elsif r.interactions is null then
    perform dynrec._reject('a recommender without interactions has no examples', recommender, 'Declare interactions when it is created.');
  end if;
  return query execute dynrec._training_query(r) using "from", "to", coalesce(backdated, false);
end
$$;
comment on function dynrec.training_examples(text, timestamptz, timestamptz, boolean) is
  'One row for each interaction of [from, to), in the order of time, with what was known at its moment and never later: the features of item and user (dynrec.features) and '
  'their vectors by the active model version, from versions that were stored by then and interactions strictly before. Null where nothing was known, as in a history '
  'that was imported; backdated => true lets the oldest version of an item stand in before it was known (item_known_since is later than occurred_at then), and takes '
  'interactions as known when they occurred. Without it an interaction that was told of late counts from when it was captured on, and one that was taken back up to then; '
  'at moments before the recommender was declared, counts are those of the rows that the table has now.';
