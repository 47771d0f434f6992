-- Generated query of a user in a learned space, U = f(U_prev, I, t): a linear recurrence with several heads.
-- Each head sums what the items add to it (their contexts), and forgets a part with every later moment at which the user did something.

create or replace function dynrec._numbers(list jsonb) returns text
language sql immutable
set search_path from current
as $$ select quote_literal(translate(list::text, '[]', '{}')) || '::double precision[]' $$;
comment on function dynrec._numbers(jsonb) is 'Internal. A JSON array of numbers, or of arrays of them, as the literal of an array.';

create or replace function dynrec._learned_names(m dynrec_data.model_version) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'learned_dimension', c ->> 'learned',
    'heads', jsonb_array_length(c -> 'heads'),
    'decays', dynrec._numbers((select jsonb_agg(h -> 'decay' order by n) from jsonb_array_elements(c -> 'heads') with ordinality as x (h, n))),
    -- where the heads of content begin, which share what an item adds to them
    'content_slot', h.learned + 1,
    'sizes', (select quote_literal(array_agg(case when n <= h.learned then c ->> 'learned' else c ->> 'content' end order by n)) || '::int[]'
      from generate_series(1, jsonb_array_length(c -> 'heads')) n),
    'gates', dynrec._numbers(c -> 'gates'),
    'bias_weight', dynrec._numbers(c -> 'bias_weight'),
    'gap_edges', dynrec._numbers(c -> 'gap_edges'),
    'count_edges', dynrec._numbers(c -> 'count_edges'),
    'kind_case', (select coalesce('case $1 ' || string_agg(format('when %L then %s', k, v), ' ' order by k) filter (where k <> '*') || format(' else %s end', max(v) filter (where k = '*')),
        max(v) filter (where k = '*')) from jsonb_each_text(c -> 'kind_weights') as w (k, v)),
    'value_mean', c #>> '{value,mean}', 'value_scale', c #>> '{value,scale}', 'value_slope', c #>> '{value,slope}',
    'popularity_weight', dynrec._numbers(c -> 'popularity_weight'),
    'mixture', dynrec._numbers(c -> 'mixture'),
    'power', dynrec._numbers(coalesce(c -> 'power', to_jsonb(array_fill(0, array[5, 25])))),  -- models of before have none
    'cold', dynrec._numbers(c -> 'cold'),
    'repeat_base', dynrec._numbers(c -> 'repeat_base'),
    'repeat_count', c ->> 'repeat_count',
    'repeat_recency', c ->> 'repeat_recency',
    'exploration', c ->> 'exploration',
    'exploration_gap', coalesce(c ->> 'exploration_gap', quote_literal('infinity') || '::double precision'),
    'paces', dynrec._numbers(coalesce((select jsonb_agg(t -> 'decay' order by n) from jsonb_array_elements(c -> 'transitions') with ordinality as x (t, n)), '[]')),
    'reaches', dynrec._numbers(coalesce((select jsonb_agg(t -> 'reach' order by n) from jsonb_array_elements(c -> 'transitions') with ordinality as x (t, n)), '[]')),
    -- models of before count turns
    'by_item', dynrec._numbers(coalesce((select jsonb_agg(coalesce((t ->> 'by_item')::boolean, false)::int order by n) from jsonb_array_elements(c -> 'transitions') with ordinality as x (t, n)), '[]')),
    'transition_weights', dynrec._numbers(coalesce((select jsonb_agg(t -> 'weights' order by n) from jsonb_array_elements(c -> 'transitions') with ordinality as x (t, n)), '[]')),
    'candidates', c ->> 'candidates')
  from (select m.config) x (c),
    -- models of before have one head of content
    lateral (select jsonb_array_length(c -> 'heads') - coalesce((c ->> 'content_heads')::int, 1) as learned) h
$$;
comment on function dynrec._learned_names(dynrec_data.model_version) is
  'Internal. What the templates of a learned model name beside the names of its recommender: the numbers of its config, as literals.';

create or replace function dynrec._learned_query_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.event_weight_m{model}(kind text, value double precision) returns double precision
language sql immutable
as $$
  select ({kind_case}) * case when $2 is null then 1
    else greatest(0.05, 1 + {value_slope} * least(greatest(($2 - {value_mean}) / {value_scale}, -2), 2)) end
$$;
create or replace function dynrec_data.context_m{model}(gap double precision, events bigint) returns int
language sql immutable
as $$ select 1 + 5 * coalesce(width_bucket(gap, {gap_edges}), 4) + width_bucket(events::double precision, {count_edges}) $$;
create or replace function dynrec_data.contexts_known_m{model}(item text, known_at timestamptz) returns vector[]
language sql stable
as $$
  select coalesce(
    (select v.contexts from dynrec_data.item_vector_{model} v where v.item_id = item and v.created_at <= known_at),
    (select h.contexts from dynrec_data.item_vector_history h
     where h.model_id = {model} and h.item_id = item and h.created_at <= known_at and h.replaced_at > known_at limit 1))
$$;
create or replace function dynrec_data.fold_m{model}(
  item_ids text[], kinds text[], event_values double precision[], times timestamptz[], known_at timestamptz,
  out sums vector[], out weights double precision[])
language sql stable
set search_path from current
as $$
  with event as (
    select e.item_id, dynrec_data.event_weight_m{model}(e.kind, e.value) as weight, dense_rank() over (order by e.occurred_at desc) - 1 as later
    from unnest(item_ids, kinds, event_values, times) as e (item_id, kind, value, occurred_at)
  ), item as materialized (
    select i.item_id, case when known_at is null
      then (select v.contexts from dynrec_data.item_vector_{model} v where v.item_id = i.item_id)
      else dynrec_data.contexts_known_m{model}(i.item_id, known_at) end as contexts
    from (select distinct e.item_id from event e) i
  ), head as (
    select h.slot, sum(dynrec._scale(w.contexts[least(h.slot, {content_slot})], w.weights[h.slot])) as total, sum(w.masses[h.slot]) as mass
    from (
      select i.contexts, array_agg(w.weight order by w.slot) as weights, array_agg(w.mass order by w.slot) as masses
      from item i join (
        select e.item_id, h.slot, sum(e.weight * dynrec._power(h.decay, e.later)) as weight, sum(abs(e.weight) * dynrec._power(h.decay, e.later)) as mass
        from event e, unnest({decays}) with ordinality as h (decay, slot) group by e.item_id, h.slot
      ) w using (item_id)
      where i.contexts is not null group by i.item_id, i.contexts
    ) w, generate_series(1, {heads}) as h (slot)
    group by h.slot
  )
  select array_agg(coalesce(h.total, dynrec._zero(s.size)) order by s.slot), array_agg(coalesce(h.mass, 0) order by s.slot)
  from unnest({sizes}) with ordinality as s (size, slot) left join head h using (slot)
$$;
create or replace function dynrec_data.asked_m{model}(sums vector[], weights double precision[], context int) returns vector
language sql immutable
set search_path from current
as $$
  select coalesce((
      select sum(dynrec._scale(sums[h], gate.by_head[h][context] / sqrt(weights[h]))) from generate_series(1, {content_slot} - 1) h where weights[h] > 1e-12
    ), dynrec._zero({learned_dimension}))
    || coalesce((
      select sum(dynrec._scale(sums[h], gate.by_head[h][context] / vector_norm(sums[h]))) from generate_series({content_slot}, {heads}) h where vector_norm(sums[h]) > 0
    ), dynrec._zero(({sizes})[{heads}]))
    || array[({bias_weight})[context]]::vector
  from (select {gates} as by_head) gate
$$;
create or replace function dynrec_data.query_m{model}(for_user text, out query vector, out context int)
language plpgsql stable
set search_path from current
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
declare
  stored dynrec_data.user_vector_{model};
  event record;
  folded record;  -- sums, weights
  events bigint;
  turns bigint;
  latest timestamptz;
begin
  select u.* into stored from dynrec_data.user_vector_{model} u where u.user_id = for_user;
  select array_agg(c.item_id) as item_ids, array_agg(c.event_kind) as kinds, array_agg(c.value) as event_values,
    array_agg(c.occurred_at) as times, max(c.occurred_at) as latest, min(c.occurred_at) as earliest, count(*) as events,
    coalesce(bool_or(c.op <> 'insert'), false) as taken_back into event
  from dynrec_data.change c
  where c.entity = for_user and c.kind is not distinct from 'user' and c.recommender_id is not distinct from {id};
  if stored.user_id is null or event.taken_back or event.earliest < stored.reference_time
    or exists (select from dynrec_data.task t where t.recommender_id = {id} and t.action = 'scan_users')
  then
    -- nothing stored, something was taken back, or came late: from the source rows
    stored := null;
    select array_agg(i.item_id) as item_ids, array_agg(i.kind) as kinds, array_agg(i.value) as event_values,
      array_agg(i.occurred_at) as times, max(i.occurred_at) as latest, null::timestamptz as earliest, count(*) as events,
      true as taken_back into event
    from dynrec_data.interactions_{id}(array[for_user]) i;
  end if;
  latest := greatest(stored.reference_time, event.latest);
  events := coalesce(stored.event_count, 0) + event.events;
  context := dynrec_data.context_m{model}(case when latest is not null then dynrec._age(dynrec._now(), latest) end, events);
  if event.events > 0 then
    select f.* into folded from dynrec_data.fold_m{model}(event.item_ids, event.kinds, event.event_values, event.times, null) f;
    if stored.user_id is not null then
      select count(distinct t) into turns from unnest(event.times) t where t > stored.reference_time;
      select array_agg(h.more + dynrec._scale(h.total, dynrec._power(h.decay, turns)) order by h.slot) as sums,
        array_agg(h.more_mass + h.mass * dynrec._power(h.decay, turns) order by h.slot) as weights into folded
      from unnest(folded.sums, folded.weights, stored.state, stored.weights, {decays}) with ordinality
        as h (more, more_mass, total, mass, decay, slot);
    end if;
    query := dynrec_data.asked_m{model}(folded.sums, folded.weights, context);
  elsif stored.user_id is not null then
    query := dynrec_data.asked_m{model}(stored.state, stored.weights, context);
  end if;
end
$$;
create or replace function dynrec_data.query_known_m{model}(for_user text, known_at timestamptz, out query vector, out context int)
language plpgsql stable
set search_path from current
as $$
declare
  event record;
  folded record;
begin
  select array_agg(i.item_id) as item_ids, array_agg(i.kind) as kinds, array_agg(i.value) as event_values,
    array_agg(i.occurred_at) as times, max(i.occurred_at) as latest, count(*) as events into event
  from dynrec_data.interactions_known_m{model}(for_user, known_at) i where i.occurred_at <= known_at;
  context := dynrec_data.context_m{model}(case when event.latest is not null then dynrec._age(known_at, event.latest) end, event.events);
  if event.events > 0 then
    select f.* into folded from dynrec_data.fold_m{model}(event.item_ids, event.kinds, event.event_values, event.times, known_at) f;
    query := dynrec_data.asked_m{model}(folded.sums, folded.weights, context);
  end if;
end
$$;
create or replace function dynrec_data.session_m{model}(item_ids text[], known_at timestamptz, out query vector, out context int)
language sql stable
set search_path from current
as $$
  -- the items of the session in the order given, each at a moment of its own, the last just now
  select dynrec_data.asked_m{model}(f.sums, f.weights, x.context), x.context
  from (select dynrec_data.context_m{model}(0, cardinality(item_ids)) as context) x,
    dynrec_data.fold_m{model}(item_ids, array_fill(null::text, array[cardinality(item_ids)]), array_fill(null::double precision, array[cardinality(item_ids)]),
      (select array_agg('epoch'::timestamptz + n * interval '1 second' order by n) from generate_series(1, cardinality(item_ids)) n), known_at) f
  where exists (select from unnest(f.weights) w where w > 0)
$$;
$body$ $template$;
comment on function dynrec._learned_query_reader() is
  'Internal. Template: what a learned model asks for on behalf of a user now or as known at a moment, or of a session: the query vector and the context '
  '(1 to 25: how long ago the last interaction was, and how many there were). query is null for a user without interactions.';

create or replace function dynrec._power(decay double precision, later bigint) returns double precision
language sql immutable parallel safe
as $$ select case when later = 0 then 1 else pg_catalog.exp(greatest(later * pg_catalog.ln(decay), -300)) end $$;
comment on function dynrec._power(double precision, bigint) is 'Internal. decay^later for 0 < decay <= 1, without underflow.';
