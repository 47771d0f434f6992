-- The vectors of users at many moments. A moment's vector is the one of some moment before, decayed, and what came in between: each history
-- is cut into as many blocks as they are long, so that it is added up once for each block and not for each moment.

create or replace function dynrec._user_vectors_query(m dynrec_data.model_version) returns text
language sql stable
set search_path from current
as $body$
  select dynrec._render($query$
    block as materialized (
      -- of moments; within one nothing known is forgotten, and nothing comes to be known that lies before the latest known
      select row_number() over () as id, s.user_id, s.start, s.until, t.moments, t.moments[s.start] as begins_at, t.moments[s.until - 1] as ends_at
      from (
        select s.user_id, s.start, lead(s.start, 1, s.moments + 1) over (partition by s.user_id order by s.start) as until
        from (
          select t.user_id, cardinality(t.moments) as moments, generate_series(1, cardinality(t.moments), greatest(16, sqrt(cardinality(t.moments))::int)) as start
          from timeline t
          union
          select e.user_id, e.moments, e.gone from event e where e.gone <= e.moments
          union
          select e.user_id, e.moments, e.seen
          from (
            select e.user_id, e.moments, e.seen, e.occurred_at < max(e.occurred_at) over (
              partition by e.user_id order by e.seen range between unbounded preceding and 1 preceding) as is_late
            from event e
          ) e where e.is_late
        ) s
      ) s join timeline t using (user_id)
      where $3 or t.moments[s.until - 1] >= (select min(v.created_at) from vector_version v)
    ), block_event as materialized (
      select b.id as block, e.item_id, e.kind, e.value, e.occurred_at, e.times, greatest(e.seen, b.start) as number, e.seen > b.start as is_new,
        dense_rank() over (partition by b.id order by e.occurred_at) as turn
      from block b join event e on e.user_id = b.user_id and e.seen < b.until and e.gone > b.start
    ), clock as materialized (
      -- what a moment of a block knows of time: the latest interaction, its turn, and how many there were
      select b.id as block, b.user_id, k.number, b.moments[k.number] as moment,
        max(e.latest) over so_far as latest, max(e.turn) over so_far as turn, sum(e.times) over so_far as events
      from block b cross join lateral generate_series(b.start, b.until - 1) as k (number)
      left join (
        select e.block, e.number, max(e.occurred_at) as latest, max(e.turn) as turn, sum(e.times) as times from block_event e group by e.block, e.number
      ) e on e.block = b.id and e.number = k.number
      window so_far as (partition by b.id order by k.number)
    ), part as materialized (
      -- what items weigh: all that a block begins with as at its first moment, what is new in it as when it is new
      select e.block, e.number, e.item_id, s.slot, e.latest as occurred_at, e.last_turn as turn, e.is_new,
        sum(s.weight * {fade}) as weight, sum(abs(s.weight) * {fade}) as mass
      from (
        select e.*, max(e.occurred_at) over together as latest, max(e.turn) over together as last_turn
        from block_event e window together as (partition by e.block, case when e.is_new then e.turn end)
      ) e, lateral {slots} s
      group by e.block, e.number, e.item_id, s.slot, e.latest, e.last_turn, e.is_new
    ), place as materialized (
      -- an item moves in a block if it is met again in it, or gets another version; the others are added up once
      select p.block, p.item_id, p.first_version, p.is_met or p.first_version <> p.last_version or coalesce(v.replaced_at <= b.ends_at and v.replaced_at > b.begins_at, false) as moves
      from (
        select p.block, p.item_id, bool_or(p.is_new) as is_met, {first_number} as first_version, {last_number} as last_version
        from part p join block b on b.id = p.block join shelf s on s.item_id = p.item_id
        group by p.block, p.item_id, b.begins_at, b.ends_at, s.begins
      ) p join block b on b.id = p.block left join vector_version v on v.item_id = p.item_id and v.number = p.first_version
      where p.last_version > 0
    ), still as materialized (
      select p.block, p.slot, p.occurred_at, p.turn, dynrec._flush(sum(dynrec._scale({vector}, p.weight))) as total, sum(p.mass) as mass
      from part p join place i on i.block = p.block and i.item_id = p.item_id and not i.moves
      join block b on b.id = p.block
      join vector_version v on v.item_id = i.item_id and v.number = i.first_version and {known_at_start}
      group by p.block, p.slot, p.occurred_at, p.turn
    ), moving as (
      select p.block, p.number, p.item_id, p.slot, p.moment, sum(p.weight) as weight, sum(p.mass) as mass, {number} as version
      from (
        select p.block, c.number, p.item_id, p.slot, c.moment, p.weight * {fade_on} as weight, p.mass * {fade_on} as mass
        from part p join place i on i.block = p.block and i.item_id = p.item_id and i.moves
        join clock c on c.block = p.block and c.number >= p.number
      ) p join shelf s on s.item_id = p.item_id
      group by p.block, p.number, p.item_id, p.slot, p.moment, s.begins
    ), head as (
      select h.block, h.number, h.slot, sum(h.total) as total, sum(h.mass) as mass
      from (
        select c.block, c.number, p.slot, dynrec._scale(p.total, {fade_on}) as total, p.mass * {fade_on} as mass
        from still p join clock c on c.block = p.block
        union all
        select p.block, p.number, p.slot, sum(dynrec._scale({vector}, p.weight)), sum(p.mass)
        from moving p join vector_version v on v.item_id = p.item_id and v.number = p.version and {known}
        group by p.block, p.number, p.slot
      ) h group by h.block, h.number, h.slot
    ), user_vector as (
      select c.user_id, c.moment, {query} as query
      from head h join clock c on c.block = h.block and c.number = h.number
      group by c.user_id, c.moment, c.latest, c.events
    )$query$, jsonb_build_object(
      'first_number', dynrec._number_then('s', 'b.begins_at'), 'last_number', dynrec._number_then('s', 'b.ends_at'), 'number', dynrec._number_then('s', 'p.moment'),
      'known_at_start', dynrec._known_then('v', 'b.begins_at'), 'known', dynrec._known_then('v', 'p.moment'))
    || case m.kind when 'content' then jsonb_build_object(
      'slots', $$(select dynrec_data.kind_slot_{id}(e.kind) as slot, e.times * dynrec_data.kind_weight_{id}(e.kind, e.value) as weight)$$,
      'fade', $$dynrec._decay(dynrec._age(e.latest, e.occurred_at), ({half_lives})[s.slot])$$,
      'fade_on', $$dynrec._decay(dynrec._age(c.latest, p.occurred_at), ({half_lives})[p.slot])$$,
      'vector', 'v.embedding',
      'query', 'case when vector_norm(sum(h.total)) > 0 then l2_normalize(sum(h.total)) end')
    else jsonb_build_object(
      'slots', $$(select h.slot, e.times * dynrec_data.event_weight_m{model}(e.kind, e.value) as weight from generate_series(1, {heads}) as h (slot))$$,
      'fade', $$dynrec._power(({decays})[s.slot], e.last_turn - e.turn)$$,
      'fade_on', $$dynrec._power(({decays})[p.slot], c.turn - p.turn)$$,
      'vector', 'v.contexts[least(p.slot, {content_slot})]',
      'query', $$dynrec_data.asked_m{model}(array_agg(h.total order by h.slot), array_agg(h.mass order by h.slot),
        dynrec_data.context_m{model}(dynrec._age(c.moment, c.latest), c.events::bigint))$$) end)
$body$;
comment on function dynrec._user_vectors_query(dynrec_data.model_version) is
  'Internal. Template, part of the query of training examples: the vectors that a model version makes at their moments (timeline) of what users were known to have met (event), with the '
  'versions of items (vector_version, shelf) that were known then.';
