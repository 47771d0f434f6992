-- Training examples: a point-in-time join of interactions with what was known of item and user at their moments, never later.

create or replace function dynrec._popularity_before(recommender_id int, since timestamptz, until timestamptz)
returns table (item_id text, occurred_at timestamptz, age double precision, rates double precision[])
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  event record;
  first_at timestamptz;
  last_at timestamptz;
begin
  -- one pass in the order of time: each moment's sums are those of the one before, decayed, whatever the half-lives are
  for event in execute format($query$
    select i.item_id, i.occurred_at, count(*) filter (where dynrec_data.kind_weight_%1$s(i.kind, 1) > 0) as wanted
    from dynrec_data.interactions_all_%1$s() i
    where i.occurred_at < $2 and i.item_id in (
      select e.item_id from dynrec_data.interactions_all_%1$s() e where e.occurred_at >= $1 and e.occurred_at < $2)
    group by i.item_id, i.occurred_at order by i.item_id, i.occurred_at
    $query$, recommender_id) using since, until
  loop
    if event.item_id is distinct from item_id then
      item_id := event.item_id;
      first_at := event.occurred_at;
      age := null;
      rates := '{0, 0, 0, 0, 0}';
    else
      age := dynrec._age(event.occurred_at, first_at);
      rates := dynrec._forgotten(rates, dynrec._age(event.occurred_at, last_at));
    end if;
    last_at := event.occurred_at;
    occurred_at := event.occurred_at;
    if occurred_at >= since then
      return next;
    end if;
    rates := array[rates[1] + event.wanted, rates[2] + event.wanted, rates[3] + event.wanted, rates[4] + event.wanted, rates[5] + event.wanted];
  end loop;
end
$$;
comment on function dynrec._popularity_before(int, timestamptz, timestamptz) is
  'Internal. For each moment of [since, until) at which an item was met: its age in seconds (null: never met before) and its decayed counts, both of the interactions before.';

create or replace function dynrec._forgotten(rates double precision[], gap double precision) returns double precision[]
language sql immutable parallel safe
as $$
  select array[
    case when rates[1] > 1e-100 then rates[1] * dynrec._decay(gap, (dynrec._rate_half_lives())[1]) else 0 end,
    case when rates[2] > 1e-100 then rates[2] * dynrec._decay(gap, (dynrec._rate_half_lives())[2]) else 0 end,
    case when rates[3] > 1e-100 then rates[3] * dynrec._decay(gap, (dynrec._rate_half_lives())[3]) else 0 end,
    case when rates[4] > 1e-100 then rates[4] * dynrec._decay(gap, (dynrec._rate_half_lives())[4]) else 0 end,
    case when rates[5] > 1e-100 then rates[5] * dynrec._decay(gap, (dynrec._rate_half_lives())[5]) else 0 end]
$$;
comment on function dynrec._forgotten(double precision[], double precision) is 'Internal. Decayed counts, gap seconds later; what is next to nothing becomes 0, before it underflows.';

create or replace function dynrec._known_then(version text, moment text) returns text
language sql immutable
set search_path from current
as $$
  select format('case when %1$s.created_at <= %2$s then %1$s.replaced_at is null or %1$s.replaced_at > %2$s else $3 and %1$s.is_first end', version, moment)
$$;
comment on function dynrec._known_then(text, text) is
  'Internal. The condition that a version was known at a moment; before the first one, the first stands in if $3 (backdated) is true.';

create or replace function dynrec._user_vectors_query(m dynrec_data.model_version) returns text
language sql stable
set search_path from current
as $$
  select case m.kind when 'content' then $query$
    weight as (
      select e.user_id, e.moment, e.item_id, sum(e.times * dynrec_data.kind_weight_{id}(e.kind, e.value)
        * dynrec._decay(dynrec._age(e.latest, e.occurred_at), ({half_lives})[dynrec_data.kind_slot_{id}(e.kind)])) as weight
      from event e group by e.user_id, e.moment, e.item_id
    ), user_total as (
      select w.user_id, w.moment, sum(dynrec._scale(v.embedding, w.weight)) as total
      from weight w join vector_version v on v.item_id = w.item_id and {weighed}
      group by w.user_id, w.moment
    ), user_vector as (
      select t.user_id, t.moment, case when vector_norm(t.total) > 0 then l2_normalize(t.total) end as query from user_total t
    )$query$
  else $query$
    weight as (
      select e.user_id, e.moment, e.item_id, e.latest, e.events, h.slot,
        sum(e.times * e.weight * dynrec._power(h.decay, e.later)) as weight, sum(e.times * abs(e.weight) * dynrec._power(h.decay, e.later)) as mass
      from (select e.*, dynrec_data.event_weight_m{model}(e.kind, e.value) as weight from event e) e, unnest({decays}) with ordinality as h (decay, slot)
      group by e.user_id, e.moment, e.item_id, e.latest, e.events, h.slot
    ), head as (
      select w.user_id, w.moment, w.latest, w.events, w.slot, sum(dynrec._scale(v.contexts[w.slot], w.weight)) as total, sum(w.mass) as mass
      from weight w join vector_version v on v.item_id = w.item_id and {weighed}
      group by w.user_id, w.moment, w.latest, w.events, w.slot
    ), user_vector as (
      select h.user_id, h.moment, dynrec_data.asked_m{model}(array_agg(h.total order by h.slot), array_agg(h.mass order by h.slot),
        dynrec_data.context_m{model}(dynrec._age(h.moment, h.latest), h.events::bigint)) as query
      from head h group by h.user_id, h.moment, h.latest, h.events
    )$query$ end
$$;
comment on function dynrec._user_vectors_query(dynrec_data.model_version) is
  'Internal. Part of the query of training examples: the vectors that a model version makes of the users'' known interactions (event) with the versions of items (vector_version).';

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
      select distinct e.user_id, e.occurred_at from example e
    ),
    -- items
    version as materialized (
      select v.*, {given} as given, row_number() over (partition by v.item_id order by v.created_at) = 1 as is_first
      from (
        select s.item_id, s.features, s.created_at, null::timestamptz as replaced_at from dynrec_data.item_content s where s.recommender_id = {id}
        union all
        select s.item_id, s.features, s.created_at, s.replaced_at from dynrec_data.item_content_history s where s.recommender_id = {id}
      ) v where v.item_id in (select k.item_id from item_moment k)
    ), mean as (
      select k.item_id, k.occurred_at, {means} as means
      from item_moment k join version v on v.item_id = k.item_id and v.created_at <= k.occurred_at group by k.item_id, k.occurred_at
    ), item_feature as (
      select k.item_id, k.occurred_at, c.created_at, {numbers} as numbers, {labels} as labels
      from item_moment k join version c on c.item_id = k.item_id and {described}
      left join mean m on m.item_id = k.item_id and m.occurred_at = k.occurred_at
      left join dynrec._popularity_before({id}, $1, $2) p on p.item_id = k.item_id and p.occurred_at = k.occurred_at
    ), vector_version as materialized (
      select v.*, row_number() over (partition by v.item_id order by v.created_at) = 1 as is_first
      from (
        select c.item_id, c.embedding, c.contexts, c.created_at, null::timestamptz as replaced_at from dynrec_data.item_vector_{model} c
        union all
        select h.item_id, h.embedding, h.contexts, h.created_at, h.replaced_at from dynrec_data.item_vector_history h where h.model_id = {model}
      ) v
    ), item_vector as (
      select k.item_id, k.occurred_at, v.embedding from item_moment k join vector_version v on v.item_id = k.item_id and {placed}
    ),
    -- users
    user_feature as (
      select distinct on (e.user_id, e.occurred_at) e.user_id, e.occurred_at, {user_numbers} as numbers
      from (
        select i.*, row_number() over (partition by i.user_id, i.item_id order by i.occurred_at) = 1 as is_first
        from dynrec_data.interactions_all_{id}() i where i.occurred_at < $2 and i.user_id in (select k.user_id from user_moment k)
      ) e
      window before as (partition by e.user_id order by e.occurred_at range between unbounded preceding and interval '1 microsecond' preceding)
    ), fact as (
      -- the interactions of today; those that were not there yet are taken off again, those that went since are added
      select i.user_id, i.item_id, i.kind, i.value, i.occurred_at, 1 as sign, null::timestamptz as captured_at
      from dynrec_data.interactions_all_{id}() i where i.occurred_at < $2
      union all
      select c.entity, c.item_id, c.event_kind, c.value, c.occurred_at, case when c.op in ('delete', 'went') then 1 else -1 end, c.captured_at
      from dynrec_data.change c where c.recommender_id = {id} and c.kind = 'user' and not $3
      union all
      select h.user_id, c.item_id, c.event_kind, c.value, c.occurred_at, case when c.op in ('delete', 'went') then 1 else -1 end, c.captured_at
      from dynrec_data.user_vector_history h, jsonb_to_recordset(h.closing_events)
        as c (op text, item_id text, event_kind text, value double precision, occurred_at timestamptz, captured_at timestamptz)
      where h.model_id = {model} and not $3
    ), known_event as (
      select k.user_id, k.occurred_at as moment, f.item_id, f.kind, f.value, f.occurred_at, sum(f.sign) as times
      from user_moment k join fact f on f.user_id = k.user_id and f.occurred_at < k.occurred_at and (f.captured_at is null or f.captured_at > k.occurred_at)
      where $3 or k.occurred_at >= (select min(v.created_at) from vector_version v)
      group by k.user_id, k.occurred_at, f.item_id, f.kind, f.value, f.occurred_at having sum(f.sign) > 0
    ), event as (
      select e.*, max(e.occurred_at) over one as latest, sum(e.times) over one as events, dense_rank() over (one order by e.occurred_at desc) - 1 as later
      from known_event e window one as (partition by e.user_id, e.moment)
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
    $query$, x.names || jsonb_build_object('user_vectors', dynrec._render(dynrec._user_vectors_query(m), x.names)))
  from dynrec_data.model_version m, lateral (
    select dynrec._model_names(r, m) || dynrec._feature_sql(r) || dynrec._user_feature_sql(r, 'e.occurred_at', 'over before') || jsonb_build_object(
      'described', dynrec._known_then('c', 'k.occurred_at'),
      'placed', dynrec._known_then('v', 'k.occurred_at'),
      'weighed', dynrec._known_then('v', 'w.moment')) as names) x
  where m.id = r.active_model_id
$body$;
comment on function dynrec._training_query(dynrec_data.recommender) is
  'Internal. The query of training examples between $1 and $2, backdated ($3) or not, with the vectors of the active model version.';

create or replace function dynrec.training_examples(recommender text, "from" timestamptz, "to" timestamptz, backdated boolean default false)
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz, item_features jsonb, user_features jsonb,
  item_vector vector, user_vector vector, item_known_since timestamptz)
language plpgsql stable
set search_path from current
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
  'interactions as known when they occurred. Counts (popularity, age, features of users) are those of the rows that the table has now and that occurred before; vectors of '
  'users also know what has been inserted late or deleted since.';
