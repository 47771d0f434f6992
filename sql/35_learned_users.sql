-- Publishing users of a learned model: the recurrence goes on from the stored sums; late or withdrawn interactions start it afresh.

create or replace function dynrec._learned_user_publisher() returns text
language sql immutable
as $template$ select $body$
  old_{model} as materialized (
    select h.user_id, u.state, u.half_lives, u.weights, u.reference_time, u.event_count,
      coalesce(u.valid_from, gone.valid_to, '-infinity') as valid_from, coalesce(u.created_at, gone.replaced_at, '-infinity') as created_at,
      greatest(h.captured_at, coalesce(u.valid_from, gone.valid_to) + interval '1 microsecond') as starts_at,
      u.user_id is null
        or exists (select from used c where c.user_id = h.user_id and (c.op <> 'insert' or c.occurred_at < u.reference_time)) as afresh
    from held h left join dynrec_data.user_vector_{model} u on u.user_id = h.user_id
    left join lateral (
      select p.valid_to, p.replaced_at from dynrec_data.user_vector_history p where p.model_id = {model} and p.user_id = h.user_id
      order by p.valid_to desc limit 1
    ) gone on u.user_id is null
  ), event_{model} as materialized (
    select e.*, dense_rank() over (partition by e.user_id order by e.occurred_at desc) - 1 as later
    from (
      select c.user_id, c.item_id, c.event_kind as kind, c.value, c.occurred_at, old.reference_time as old_reference
      from used c join old_{model} old using (user_id) where not old.afresh
      union all
      select i.user_id, i.item_id, i.kind, i.value, i.occurred_at, null
      from dynrec_data.interactions_{id}(array(select old.user_id from old_{model} old where old.afresh)) i
    ) e
  ), clock_{model} as materialized (
    select o.*, coalesce(e.turns, 0) as turns, coalesce(e.events, 0) + case when o.afresh then 0 else o.event_count end as new_count,
      case when o.afresh then e.latest else greatest(o.reference_time, e.latest) end as new_reference
    from old_{model} o left join (
      select e.user_id, count(*) as events, max(e.occurred_at) as latest,
        count(distinct e.occurred_at) filter (where e.occurred_at > e.old_reference) as turns
      from event_{model} e group by e.user_id
    ) e using (user_id)
  ), met_{model} as materialized (
    select e.user_id, h.slot, e.item_id, sum(w.weight * dynrec._power(h.decay, e.later)) as weight, sum(abs(w.weight) * dynrec._power(h.decay, e.later)) as mass
    from event_{model} e, lateral (select dynrec_data.event_weight_m{model}(e.kind, e.value) as weight) w,
      unnest({decays}) with ordinality as h (decay, slot)
    group by e.user_id, h.slot, e.item_id
  ), moved_{model} as materialized (
    select m.user_id, m.slot, sum(dynrec._scale(v.contexts[least(m.slot, {content_slot})], m.weight)) as total, sum(m.mass) as mass
    from met_{model} m join dynrec_data.item_vector_{model} v on v.item_id = m.item_id
    group by m.user_id, m.slot
  ), made_{model} as materialized (
    select c.*, greatest(clock_timestamp(), c.created_at) as made_at, '{}'::double precision[] as new_half_lives, array(
      select coalesce(m.total, dynrec._zero(h.size)) + case when c.afresh then dynrec._zero(h.size)
        else dynrec._flush(dynrec._scale(c.state[h.slot], dynrec._power(h.decay, c.turns))) end
      from unnest({decays}, {sizes}) with ordinality as h (decay, size, slot) left join moved_{model} m on m.user_id = c.user_id and m.slot = h.slot
      order by h.slot
    ) as new_state, array(
      select coalesce(m.mass, 0) + case when c.afresh then 0 else c.weights[h.slot] * dynrec._power(h.decay, c.turns) end
      from unnest({decays}) with ordinality as h (decay, slot) left join moved_{model} m on m.user_id = c.user_id and m.slot = h.slot
      order by h.slot
    ) as new_weights
    from clock_{model} c
  ),
$body$ $template$;
comment on function dynrec._learned_user_publisher() is
  'Internal. Template, part of the publisher of users: U = f(U_prev, I, t) in a learned space, the sums of each head and the weights behind them.';
