-- Generated transitions of a learned model: what tends to come right after the items that a user met last, and what goes with them whenever.
-- Each is a sparse vector over the catalogue, added up as the heads add up contexts; no vector of a few hundred dimensions holds every pair.

create or replace function dynrec._paced_events() returns text
language sql immutable
as $template$ select $query$paced as (
    -- every event at the paces that count turns; at those that count items each item once, as it was met last
    select e.item_id, p.pace, true as is_next, e.weight * dynrec._power(p.decay, e.later) as weight, abs(e.weight) * dynrec._power(p.decay, e.later) as mass
    from event e join unnest({paces}, {reaches}, {by_item}) with ordinality as p (decay, reach, by_item, pace) on p.by_item = 0 and e.later < p.reach
    union all
    select m.item_id, p.pace, false, m.weight * dynrec._power(p.decay, m.later), abs(m.weight) * dynrec._power(p.decay, m.later)
    from (
      select l.item_id, l.weight, row_number() over (order by l.later, l.item_id) - 1 as later
      from (select distinct on (e.item_id) e.item_id, e.weight, e.later from event e order by e.item_id, e.later, e.weight desc) l
    ) m join unnest({paces}, {reaches}, {by_item}) with ordinality as p (decay, reach, by_item, pace) on p.by_item = 1 and m.later < p.reach
  )$query$ $template$;
comment on function dynrec._paced_events() is
  'Internal. Part of templates: from the events of a user (item_id, weight, later: turns since) what of them counts at each pace of the transitions of a learned model, and how much.';

create or replace function dynrec._learned_transitions() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.following_m{model}(for_user text, session text[], context int, known_at timestamptz)
returns table (item_id text, strength double precision, is_candidate boolean)
language plpgsql stable rows 500
set search_path from current
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  return query with event as (
    select i.item_id, dynrec_data.event_weight_m{model}(i.kind, i.value) as weight, dense_rank() over (order by i.occurred_at desc) - 1 as later
    from dynrec_data.interactions_{id}(array[for_user]) i where known_at is null
    union all
    select i.item_id, dynrec_data.event_weight_m{model}(i.kind, i.value), dense_rank() over (order by i.occurred_at desc) - 1
    from dynrec_data.interactions_known_m{model}(for_user, known_at) i where known_at is not null and i.occurred_at <= known_at
    union all
    select s.item_id, dynrec_data.event_weight_m{model}(null, null), cardinality(session) - s.place
    from unnest(session) with ordinality as s (item_id, place)
  ), $body$ || dynrec._paced_events() || $body$, recent as materialized (
    select p.item_id, p.pace, p.is_next, sum(p.weight) as weight, sum(p.mass) as mass from paced p group by p.item_id, p.pace, p.is_next
  ), added as (
    select n.item_id, coalesce(sum(r.weight * n.weight) filter (where r.is_next), 0) as plain, sum(r.weight * n.weight * ({transition_weights})[r.pace][context]) as strength
    from (
      select r.item_id, r.pace, r.is_next, r.weight / nullif(sqrt(sum(r.mass) over (partition by r.pace)), 0) as weight from recent r
    ) r
    join dynrec_data.item_transition t on t.model_id = {model} and t.item_id = r.item_id and t.pace = r.pace,
      unnest(t.next_item_ids, t.weights) as n (item_id, weight)
    where r.weight is not null
    group by n.item_id
  )
  select a.item_id, a.strength, a.plain > 0 and row_number() over (order by a.plain desc, a.item_id) <= 50 from added a;
end
$$;
$body$ $template$;
comment on function dynrec._learned_transitions() is
  'Internal. Template: the items that come after what a user (or a session, oldest first) met last, with what that adds to their scores: '
  'sum over paces of weight[context] * sum(w * decay^turns * transition) / sqrt(sum(|w| * decay^turns)); the 50 highest sums at paces that count turns are candidates.';
