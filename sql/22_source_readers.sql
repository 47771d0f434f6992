-- Generated readers of the application's tables. Plain SQL without a set clause, so that Postgres inlines them and uses the tables' indexes.

create or replace function dynrec._item_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.source_items_{id}(item_ids text[])
returns table (item_id text, content text, features jsonb, embedding vector)
language sql stable
as $$
  select i.{key}::text, {content}, {features}, {vector}
  from {items} i where i.{key} = any ($1::{key_type}[])
$$;
create or replace function dynrec_data.source_keys_{id}() returns setof text
language sql stable
as $$ select i.{key}::text from {items} i where {fitting_key} $$;
$body$ $template$;
comment on function dynrec._item_reader() is
  'Internal. Template: the rows of the item source by key, as the text to encode, the features and an adopted vector; and all keys.';

create or replace function dynrec._interaction_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.kind_weight_{id}(kind text, value double precision) returns double precision
language sql immutable
as $$ select ({weight}) * coalesce($2, 1) $$;
create or replace function dynrec_data.kind_slot_{id}(kind text) returns int
language sql immutable
as $$ select {slot} $$;
create or replace function dynrec_data.interactions_{id}(user_ids text[])
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
as $$
  select e.{user}::text, e.{item}::text, {kind}, {value}, {occurred_at}
  from {interactions} e
  where e.{user} = any ($1::{user_type}[]) and e.{item} is not null and isfinite({occurred_at}) and {known_user}
$$;
create or replace function dynrec_data.interactions_with_{id}(item_ids text[])
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
as $$
  select e.{user}::text, e.{item}::text, {kind}, {value}, {occurred_at}
  from {interactions} e
  where e.{item} = any ($1::{item_type}[]) and e.{user} is not null and isfinite({occurred_at}) and {known_user}
$$;
create or replace function dynrec_data.interactions_all_{id}()
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
as $$
  select e.{user}::text, e.{item}::text, {kind}, {value}, {occurred_at}
  from {interactions} e
  where e.{user} is not null and e.{item} is not null and isfinite({occurred_at}) and {known_user}
$$;
create or replace function dynrec_data.interactions_unusable_{id}(cutoff timestamptz)
returns table (incomplete bigint, impossible_times bigint, not_finite bigint)
language sql stable
as $$
  select count(*) filter (where not u.complete), count(*) filter (where u.complete and u.timely is not true),
    count(*) filter (where u.complete and u.timely and u.value_lost)
  from (
    select e.{user} is not null and e.{item} is not null as complete, isfinite({occurred_at}) and {occurred_at} < cutoff as timely,
      {value_given} and {value} is null as value_lost
    from {interactions} e where ({known_user}) is not false
  ) u
$$;
$body$ $template$;
comment on function dynrec._interaction_reader() is
  'Internal. Template: weight and slot of an interaction by kind; interactions by user, by item, and all; how many rows of what comes before a cut-off are of no use, or lose their value. Rows without user, item or finite time, and those of users who were forgotten, are left out.';

create or replace function dynrec._past_reader() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.interactions_known_m{model}(for_user text, known_at timestamptz)
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
  -- where what came is not known one by one, its own time says when it was known
  where known_at >= {events_since} or i.occurred_at <= known_at
  union all select s.item_id, s.event_kind, s.value, s.occurred_at from since s where s.op in ('delete', 'went')
  except all select s.item_id, s.event_kind, s.value, s.occurred_at from since s where s.op in ('insert', 'came')
$$;
$body$ $template$;
comment on function dynrec._past_reader() is
  'Internal. Template: the interactions of a user that were known at a moment, from the versions of a model that was kept up to date then.';
