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
as $$ select i.{key}::text from {items} i $$;
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
  where e.{user} = any ($1::{user_type}[]) and e.{item} is not null and isfinite({occurred_at})
$$;
create or replace function dynrec_data.interactions_with_{id}(item_ids text[])
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
as $$
  select e.{user}::text, e.{item}::text, {kind}, {value}, {occurred_at}
  from {interactions} e
  where e.{item} = any ($1::{item_type}[]) and e.{user} is not null and isfinite({occurred_at})
$$;
create or replace function dynrec_data.interactions_all_{id}()
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language sql stable
as $$
  select e.{user}::text, e.{item}::text, {kind}, {value}, {occurred_at}
  from {interactions} e
  where e.{user} is not null and e.{item} is not null and isfinite({occurred_at})
$$;
$body$ $template$;
comment on function dynrec._interaction_reader() is
  'Internal. Template: weight and slot of an interaction by kind; interactions by user, by item, and all. Rows without user, item or finite time are left out.';
