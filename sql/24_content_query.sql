-- Generated query of a user in a content space, U = f(U_prev, I, t): the decayed, weighted mean of item vectors, up to the last committed
-- interaction. It is evaluated at the user's latest interaction, so that it rests while the user does.

create or replace function dynrec._content_query_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.sum_events_m{model}(item_ids text[], kinds text[], event_values double precision[], times timestamptz[], reference timestamptz)
returns table (item_id text, weight double precision)
language sql stable
as $$
  select e.item_id, sum(dynrec_data.kind_weight_{id}(e.kind, e.value)
    * dynrec._decay(dynrec._age(reference, least(e.occurred_at, dynrec._now())), half_life.seconds[dynrec_data.kind_slot_{id}(e.kind)]))
  from unnest(item_ids, kinds, event_values, times) as e (item_id, kind, value, occurred_at),
    (select {half_lives} as seconds) half_life
  group by e.item_id
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
  reference timestamptz;
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
    select sum(s.total) into query from unnest(stored.state) s (total);
    query := case when vector_norm(query) > 0 then l2_normalize(query) end;
    return;
  end if;
  reference := greatest(stored.reference_time, least(event.latest, dynrec._now()));
  select sum(p.part) into query
  from (
    select dynrec._scale(s.total, dynrec._decay(dynrec._age(reference, stored.reference_time), s.half_life)) as part
    from unnest(stored.state, stored.half_lives) as s (total, half_life) where s.total is not null
    union all
    select dynrec._scale(dynrec._vector(v.embedding, v.half), e.weight)
    from dynrec_data.sum_events_m{model}(event.item_ids, event.kinds, event.event_values, event.times, reference) e
    join dynrec_data.item_vector_{model} v on v.item_id = e.item_id
  ) p;
  query := case when vector_norm(query) > 0 then l2_normalize(query) end;
end
$$;
create or replace function dynrec_data.query_known_m{model}(for_user text, known_at timestamptz, out query vector, out context int)
language plpgsql stable
set search_path from current
as $$
declare
  stored record;
  event record;
  reference timestamptz;
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
    select from jsonb_to_recordset(stored.later) as c (op text, captured_at timestamptz) where c.op in ('delete', 'came', 'went') and c.captured_at <= known_at)
  then
    -- nothing stored, or something was taken back: from the source rows
    stored.state := null;
    stored.half_lives := null;
    stored.reference_time := null;
    select array_agg(i.item_id) as item_ids, array_agg(i.kind) as kinds, array_agg(i.value) as event_values,
      array_agg(i.occurred_at) as times, max(i.occurred_at) as latest into event
    from dynrec_data.interactions_known_m{model}(for_user, known_at) i where i.occurred_at <= known_at;
  else
    select array_agg(c.item_id) as item_ids, array_agg(c.event_kind) as kinds, array_agg(c.value) as event_values,
      array_agg(c.occurred_at) as times, max(c.occurred_at) as latest into event
    from jsonb_to_recordset(stored.later)
      as c (op text, item_id text, event_kind text, value double precision, occurred_at timestamptz, captured_at timestamptz)
    where c.op = 'insert' and c.captured_at <= known_at;
  end if;
  -- least() passes over nulls: a user without pending interactions stays at the time of the last one
  reference := greatest(stored.reference_time, case when event.latest is not null then least(event.latest, dynrec._now()) end);
  select sum(p.part) into query
  from (
    select dynrec._scale(s.total, dynrec._decay(dynrec._age(reference, stored.reference_time), s.half_life)) as part
    from unnest(stored.state, stored.half_lives) as s (total, half_life) where s.total is not null
    union all
    select dynrec._scale(dynrec_data.vector_known_m{model}(e.item_id, known_at), e.weight)
    from dynrec_data.sum_events_m{model}(event.item_ids, event.kinds, event.event_values, event.times, reference) e
  ) p;
  query := case when vector_norm(query) > 0 then l2_normalize(query) end;
end
$$;
$body$ $template$;
comment on function dynrec._content_query_reader() is
  'Internal. Template: the unit vector of a user, now (stored sums plus pending interactions) or as known at a moment; null where nothing is known. '
  'A content space has no context.';

create or replace function dynrec._content_session_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.session_m{model}(item_ids text[], known_at timestamptz, out query vector, out context int)
language sql stable
set search_path from current
as $$
  select case when vector_norm(t.total) > 0 then l2_normalize(t.total) end, null::int
  from (
    select sum(case when known_at is null
      then (select dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector_{model} v where v.item_id = i)
      else dynrec_data.vector_known_m{model}(i, known_at) end) as total
    from unnest(item_ids) i
  ) t
$$;
create or replace function dynrec_data.context_m{model}(gap double precision, events bigint) returns int
language sql immutable
as $$ select null::int $$;
$body$ $template$;
comment on function dynrec._content_session_reader() is
  'Internal. Template: the unit vector of a session, the mean of its items, now or as known at a moment; null where nothing is known.';
