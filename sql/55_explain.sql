-- Why an item is recommended: the interactions that speak for it.

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
  anchor := dynrec._anchor(r, item_id, as_of);
  personal := anchor is not null and r.interactions is not null and dynrec._is_key(user_id, r.user_key_type)
    and dynrec._profile(r, user_id, as_of) is not null;
  if not personal then
    return query select null::text, null::text, null::timestamptz, null::double precision, null::double precision, p.score,
        case when p.score > 0 then format('trending: a decayed weight of %s from all users', round(p.score::numeric, 2))
          else 'fallback: nothing is known of this user, and nobody has met the item' end
      from (select coalesce(max(c.score), 0) as score
            from dynrec._popular(r, 1, '{}', format('item.%I = %L', r.item_key, item_id), '{}', null) c) p;
    return;
  end if;
  return query execute dynrec._render($query$
    with event as (
      select i.item_id, i.kind, i.occurred_at, {id_weight}(i.kind, i.value)
          * dynrec._decay(dynrec._age(least(max(i.occurred_at) over (), now()), i.occurred_at), ({half_lives})[{id_slot}(i.kind)]) as weight,
        {embedding} as embedding
      from {known} i
    ), scaled as (
      select vector_norm(sum(dynrec._scale(e.embedding, e.weight))) as length from event e
    ), met as (
      select e.item_id, (array_agg(e.kind order by e.occurred_at desc))[1] as kind, max(e.occurred_at) as occurred_at, sum(e.weight) as weight,
        max(-(e.embedding <#> $2)) as similarity
      from event e where e.embedding is not null group by e.item_id
    )
    select m.item_id, m.kind, m.occurred_at, m.weight, m.similarity, m.weight * m.similarity / nullif(scaled.length, 0),
      format('because of %s%s, last on %s: %s alike', coalesce(m.kind || ' of ', ''),
        coalesce((select quote_literal(left(nullif(s.content, ''), 60)) from dynrec_data.source_items_{id}(array[m.item_id]) s), m.item_id),
        to_char(m.occurred_at at time zone 'UTC', 'YYYY-MM-DD'), round(m.similarity::numeric, 2))
    from met m, scaled
    order by 6 desc nulls last, m.item_id limit $4
    $query$, dynrec._names(r) || jsonb_build_object(
      'id_weight', format('dynrec_data.kind_weight_%s', r.id), 'id_slot', format('dynrec_data.kind_slot_%s', r.id),
      'known', format(case when as_of is null then 'dynrec_data.interactions_%s(array[$1])' else 'dynrec_data.interactions_known_%s($1, $3)' end, r.id),
      'embedding', case when as_of is null
        then format('(select v.embedding from dynrec_data.item_vector_%s v where v.item_id = i.item_id)', r.active_model_id)
        else format('dynrec_data.vector_known_%s(i.item_id, $3)', r.id) end))
    using dynrec._as_key(user_id, r.user_key_type), anchor, as_of, k;
end
$$;
comment on function dynrec.explain(text, text, text, int, timestamptz) is
  'The k items in a user''s history that speak most for an item. weight: kind and value, decayed and summed over the user''s interactions with that item; '
  'similarity: cosine; contribution: their share of the personal score, whose sum over the whole history is that score; reason: a sentence. '
  'For a user of whom nothing is known, one row that says whether the item trends.';
