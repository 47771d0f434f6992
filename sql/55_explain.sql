-- Why an item is recommended: the interactions that speak for it.

create or replace function dynrec._content_reasons() returns text
language sql immutable
as $template$ select $query$
    with event as (
      select i.item_id, i.kind, i.occurred_at, dynrec_data.kind_weight_{id}(i.kind, i.value)
          * dynrec._decay(dynrec._age(least(max(i.occurred_at) over (), dynrec._now()), i.occurred_at), ({half_lives})[dynrec_data.kind_slot_{id}(i.kind)]) as weight,
        {embedding} as embedding
      from {known} i
    ), scaled as (
      select vector_norm(sum(dynrec._scale(e.embedding, e.weight))) as length from event e
    ), met as (
      select e.item_id, (array_agg(e.kind order by e.occurred_at desc))[1] as kind, max(e.occurred_at) as occurred_at, sum(e.weight) as weight,
        max(-(e.embedding <#> $2)) as similarity
      from event e where e.embedding is not null group by e.item_id
    )
    select m.item_id, m.kind, m.occurred_at, m.weight, m.similarity, m.weight * m.similarity / nullif(scaled.length, 0), {sentence}
    from met m, scaled
    order by 6 desc nulls last, m.item_id limit $4
$query$ $template$;
comment on function dynrec._content_reasons() is 'Internal. Template: the shares of the items that a user met in a personal score of a content space.';

create or replace function dynrec._learned_reasons() returns text
language sql immutable
as $template$ select $query$
    with event as materialized (
      select i.item_id, i.kind, i.occurred_at, dynrec_data.event_weight_m{model}(i.kind, i.value) as weight,
        dense_rank() over (order by i.occurred_at desc) - 1 as later, {contexts} as contexts
      from {known} i
    ), asked as materialized (
      select dynrec_data.context_m{model}(dynrec._age(coalesce($3, dynrec._now()), max(e.occurred_at)), count(*)) as context from event e
    ), total as materialized (
      select h.slot, sum(abs(e.weight) * dynrec._power(h.decay, e.later)) as mass, vector_norm(sum(dynrec._scale(e.contexts[least(h.slot, {content_slot})], e.weight * dynrec._power(h.decay, e.later)))) as length
      from event e, unnest({decays}) with ordinality as h (decay, slot) where e.contexts is not null group by h.slot
    ), share as (
      select e.item_id, e.kind, e.occurred_at, e.weight, h.slot,
        e.weight * dynrec._power(h.decay, e.later) * ({gates})[h.slot][a.context]
          / nullif(case when h.slot >= {content_slot} then t.length else sqrt(t.mass) end, 0) as factor,
        -(e.contexts[least(h.slot, {content_slot})] <#> case when h.slot >= {content_slot} then subvector($2, {learned_dimension} + 1, ({sizes})[{heads}]) else subvector($2, 1, {learned_dimension}) end) as product
      from event e cross join asked a cross join unnest({decays}) with ordinality as h (decay, slot) join total t using (slot) where e.contexts is not null
    ), $query$ || dynrec._paced_events() || $query$, step as (
      -- what its transitions to the item add
      select p.item_id, p.weight / nullif(sqrt(sum(p.mass) over (partition by p.pace)), 0) * ({transition_weights})[p.pace][a.context] * (
          select n.weight from dynrec_data.item_transition t, unnest(t.next_item_ids, t.weights) as n (item_id, weight)
          where t.model_id = {model} and t.item_id = p.item_id and t.pace = p.pace and n.item_id = $5) as contribution
      from paced p cross join asked a
    ), met as (
      select s.item_id, (array_agg(s.kind order by s.occurred_at desc))[1] as kind, max(s.occurred_at) as occurred_at,
        sum(s.weight) filter (where s.slot = 1) as weight, max(s.product) filter (where s.slot = {content_slot}) as similarity,
        sum(s.factor * s.product) + coalesce((select sum(step.contribution) from step where step.item_id = s.item_id), 0) as contribution
      from share s group by s.item_id
    )
    select m.item_id, m.kind, m.occurred_at, m.weight, m.similarity, m.contribution, {sentence}
    from met m
    order by 6 desc nulls last, m.item_id limit $4
$query$ $template$;
comment on function dynrec._learned_reasons() is 'Internal. Template: the shares of the items that a user met in the personal part of a score of a learned model.';

create or replace function dynrec._reason_names(r dynrec_data.recommender, as_of timestamptz) returns jsonb
language sql stable
set search_path from current
as $$
  select dynrec._model_names(r, m) || jsonb_build_object(
    'known', format(case when as_of is null then 'dynrec_data.interactions_%s(array[$1])' else 'dynrec_data.interactions_known_m%2$s($1, $3)' end, r.id, m.id),
    'embedding', format(case when as_of is null then '(select dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector_%s v where v.item_id = i.item_id)'
      else 'dynrec_data.vector_known_m%s(i.item_id, $3)' end, m.id),
    'contexts', format(case when as_of is null then '(select v.contexts from dynrec_data.item_vector_%s v where v.item_id = i.item_id)'
      else 'dynrec_data.contexts_known_m%s(i.item_id, $3)' end, m.id),
    'sentence', format($sentence$format('because of %%s%%s, last on %%s: %%s alike', coalesce(m.kind || ' of ', ''),
        coalesce((select quote_literal(left(nullif(s.content, ''), 60)) from dynrec_data.source_items_%s(array[m.item_id]) s), m.item_id),
        to_char(m.occurred_at at time zone 'UTC', 'YYYY-MM-DD'), round(m.similarity::numeric, 2))$sentence$, r.id))
  from dynrec_data.model_version m where m.id = r.active_model_id
$$;
comment on function dynrec._reason_names(dynrec_data.recommender, timestamptz) is 'Internal. What the templates of dynrec.explain name.';

create or replace function dynrec.explain(
  recommender text, user_id text, item_id text, k int default 3, as_of timestamptz default null)
returns table (because_item_id text, kind text, occurred_at timestamptz, weight double precision, similarity double precision,
  contribution double precision, reason text)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  anchor vector;
  personal boolean;
begin
  perform dynrec._check_read(r, k, null, null, 0, as_of);
  if user_id is null then
    perform dynrec._reject('user_id is missing', user_id, 'Give the user''s key as text.');
  end if;
  r := dynrec._answering(r, as_of, null);
  anchor := dynrec._anchor(r, item_id, as_of);
  personal := anchor is not null and r.interactions is not null and dynrec._is_key(user_id, r.user_key_type)
    and (dynrec._asked(r, user_id, as_of)).query is not null;
  if not personal then
    return query select null::text, null::text, null::timestamptz, null::double precision, null::double precision, p.score,
        case when p.score > 0 then format('trending: a decayed weight of %s from all users', round(p.score::numeric, 2))
          else 'fallback: nothing is known of this user, and nobody has met the item' end
      from (select coalesce(max(c.score), 0) as score
            from dynrec._popular(r, 1, '{}', format('item.%I = %L', r.item_key, item_id), '{}', null) c) p;
    return;
  end if;
  return query execute dynrec._render(case when (select m.kind from dynrec_data.model_version m where m.id = r.active_model_id) = 'content'
      then dynrec._content_reasons() else dynrec._learned_reasons() end, dynrec._reason_names(r, as_of))
    using dynrec._as_key(user_id, r.user_key_type), anchor, as_of, k, dynrec._as_key(item_id, r.item_key_type);
end
$$;
comment on function dynrec.explain(text, text, text, int, timestamptz) is
  'The k items in a user''s history that speak most for an item. weight: kind and value, decayed and summed over the user''s interactions with that item; '
  'similarity: cosine of the content; contribution: their share of the personal score (of a learned model: of its inner product, less the bias, and of its transitions), whose sum over the whole '
  'history is that score; reason: a sentence. '
  'For a user of whom nothing is known, one row that says whether the item trends.';
