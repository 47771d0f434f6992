-- Generated user profile, U = f(U_prev, I, t): the decayed, weighted mean of item vectors, up to the last committed interaction.
-- It is evaluated at the user's latest interaction, so that it rests while the user does.

create or replace function dynrec._profile_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.sum_events_{id}(item_ids text[], kinds text[], event_values double precision[], times timestamptz[], reference timestamptz)
returns table (item_id text, weight double precision)
language sql stable
as $$
  select e.item_id, sum(dynrec_data.kind_weight_{id}(e.kind, e.value)
    * dynrec._decay(dynrec._age(reference, least(e.occurred_at, now())), half_life.seconds[dynrec_data.kind_slot_{id}(e.kind)]))
  from unnest(item_ids, kinds, event_values, times) as e (item_id, kind, value, occurred_at),
    (select {half_lives} as seconds) half_life
  group by e.item_id
$$;
create or replace function dynrec_data.profile_{id}(for_user text) returns vector
language plpgsql stable
set search_path from current
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
declare
  stored dynrec_data.user_vector_{model};
  event record;
  reference timestamptz;
  profile vector;
begin
  select u.* into stored from dynrec_data.user_vector_{model} u where u.user_id = for_user;
  select array_agg(c.item_id) as item_ids, array_agg(c.event_kind) as kinds, array_agg(c.value) as event_values,
    array_agg(c.occurred_at) as times, max(c.occurred_at) as latest, coalesce(bool_or(c.op <> 'insert'), false) as taken_back into event
  from dynrec_data.change c
  where c.entity = for_user and c.kind is not distinct from 'user' and c.recommender_id is not distinct from {id};
  if stored.user_id is null or event.taken_back
    or exists (select from dynrec_data.task t where t.recommender_id = {id} and t.action = 'scan_users')
  then
    -- nothing stored, or something was taken back: from the source rows
    stored := null;
    select array_agg(i.item_id) as item_ids, array_agg(i.kind) as kinds, array_agg(i.value) as event_values,
      array_agg(i.occurred_at) as times, max(i.occurred_at) as latest, true as taken_back into event
    from dynrec_data.interactions_{id}(array[for_user]) i;
  end if;
  if event.latest is null then
    -- at rest: the sums as they were stored
    select sum(s.total) into profile from unnest(stored.state) s (total);
    return case when vector_norm(profile) > 0 then l2_normalize(profile) end;
  end if;
  reference := greatest(stored.reference_time, least(event.latest, now()));
  select sum(p.part) into profile
  from (
    select dynrec._scale(s.total, dynrec._decay(dynrec._age(reference, stored.reference_time), s.half_life)) as part
    from unnest(stored.state, stored.half_lives) as s (total, half_life) where s.total is not null
    union all
    select dynrec._scale(v.embedding, e.weight)
    from dynrec_data.sum_events_{id}(event.item_ids, event.kinds, event.event_values, event.times, reference) e
    join dynrec_data.item_vector_{model} v on v.item_id = e.item_id
  ) p;
  return case when vector_norm(profile) > 0 then l2_normalize(profile) end;
end
$$;
create or replace function dynrec_data.interactions_known_{id}(for_user text, known_at timestamptz)
returns table (item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
set search_path from current
as $$
  -- the source of today, with what went since and less what came: pending changes and the closing events of later versions know
  with since as (
    select c.op, c.item_id, c.event_kind, c.value, c.occurred_at from dynrec_data.change c
    where c.recommender_id = {id} and c.kind = 'user' and c.entity = for_user and c.captured_at > known_at
    union all
    select c.op, c.item_id, c.event_kind, c.value, c.occurred_at
    from dynrec_data.user_vector_history h, jsonb_to_recordset(h.closing_events)
      as c (op text, item_id text, event_kind text, value double precision, occurred_at timestamptz, captured_at timestamptz)
    where h.model_id = {model} and h.user_id = for_user and h.replaced_at > known_at and c.captured_at > known_at
  )
  select i.item_id, i.kind, i.value, i.occurred_at from dynrec_data.interactions_{id}(array[for_user]) i
  union all select s.item_id, s.event_kind, s.value, s.occurred_at from since s where s.op = 'delete'
  except all select s.item_id, s.event_kind, s.value, s.occurred_at from since s where s.op = 'insert'
$$;
create or replace function dynrec_data.profile_known_{id}(for_user text, known_at timestamptz) returns vector
language plpgsql stable
set search_path from current
as $$
declare
  stored record;
  event record;
  reference timestamptz;
  profile vector;
begin
  select k.* into stored from (
    select u.state, u.half_lives, u.reference_time,
      (select jsonb_agg(to_jsonb(c)) from dynrec_data.change c
       where c.recommender_id = {id} and c.kind = 'user' and c.entity = for_user) as later
    from dynrec_data.user_vector_{model} u where u.user_id = for_user and u.created_at <= known_at
    union all
    select h.state, h.half_lives, nullif(h.reference_time, '-infinity'), h.closing_events
    from dynrec_data.user_vector_history h
    where h.model_id = {model} and h.user_id = for_user and h.created_at <= known_at and h.replaced_at > known_at
  ) k limit 1;
  if not found or exists (
    select from jsonb_to_recordset(stored.later) as c (op text, captured_at timestamptz) where c.op = 'delete' and c.captured_at <= known_at)
  then
    -- nothing stored, or something was taken back: from the source rows
    stored.state := null;
    stored.half_lives := null;
    stored.reference_time := null;
    select array_agg(i.item_id) as item_ids, array_agg(i.kind) as kinds, array_agg(i.value) as event_values,
      array_agg(i.occurred_at) as times, max(i.occurred_at) as latest into event
    from dynrec_data.interactions_known_{id}(for_user, known_at) i where i.occurred_at <= known_at;
  else
    select array_agg(c.item_id) as item_ids, array_agg(c.event_kind) as kinds, array_agg(c.value) as event_values,
      array_agg(c.occurred_at) as times, max(c.occurred_at) as latest into event
    from jsonb_to_recordset(stored.later)
      as c (op text, item_id text, event_kind text, value double precision, occurred_at timestamptz, captured_at timestamptz)
    where c.op = 'insert' and c.captured_at <= known_at;
  end if;
  -- least() passes over nulls: a user without pending interactions stays at the time of the last one
  reference := greatest(stored.reference_time, case when event.latest is not null then least(event.latest, now()) end);
  select sum(p.part) into profile
  from (
    select dynrec._scale(s.total, dynrec._decay(dynrec._age(reference, stored.reference_time), s.half_life)) as part
    from unnest(stored.state, stored.half_lives) as s (total, half_life) where s.total is not null
    union all
    select dynrec._scale(dynrec_data.vector_known_{id}(e.item_id, known_at), e.weight)
    from dynrec_data.sum_events_{id}(event.item_ids, event.kinds, event.event_values, event.times, reference) e
  ) p;
  return case when vector_norm(profile) > 0 then l2_normalize(profile) end;
end
$$;
$body$ $template$;
comment on function dynrec._profile_reader() is
  'Internal. Template: the unit vector of a user, now (stored sums plus pending interactions) or as known at a moment; null without any.';
