-- Capture without triggers: what the stream read from a replication slot is appended to dynrec_data.change.
-- A row came or went in the source before the stream tells of it, so that a vector may have it already: ops came and went
-- are never folded into stored sums, users are made of the source afresh.

create or replace function dynrec._streamed_item_capture() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.capture_streamed_items_{id}(rows jsonb) returns bigint
language sql
set search_path from current
as $$
  with queued as (
    insert into dynrec_data.change (recommender_id, kind, entity, op, captured_at)
    select {id}, 'item', k.entity, 'refresh', max(r.at)
    from jsonb_to_recordset(rows) as r (at timestamptz, old jsonb, new jsonb),
      lateral (values (r.old ->> {key_name}), (r.new ->> {key_name})) as k (entity)
    where k.entity is not null and {fitting_entity}
      -- without replica identity full the old row is not known; what is generated is never told
      and ({watched_generated} or r.old is null or r.new is null or exists (select from unnest({watched_names}) w where r.old -> w is distinct from r.new -> w))
    group by k.entity
    returning 1
  )
  select count(*) from queued
$$
$body$ $template$;
comment on function dynrec._streamed_item_capture() is
  'Internal. Template: queues the keys of item rows that the stream saw come, go, move or change in a watched column.';

create or replace function dynrec._streamed_interaction_capture() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.capture_streamed_interactions_{id}(rows jsonb) returns bigint
language sql
set search_path from current
as $$
  with side as (
    select s.op, s.at, s.counted, e.{user}::text as entity, e.{item}::text as item_id, {kind} as kind, {value} as value, {occurred_at} as occurred_at
    from (
      select s.op, r.at, r.counted, s.tuple
      from jsonb_to_recordset(rows) as r (at timestamptz, counted boolean, old jsonb, new jsonb),
        lateral (values ('went', r.old), ('came', r.new)) as s (op, tuple)
      where s.tuple is not null
        and (r.old is null or r.new is null or exists (select from unnest({event_names}) w where r.old -> w is distinct from r.new -> w))
    ) s, lateral jsonb_populate_record(null::{interactions}, s.tuple) e
  ), queued as (
    insert into dynrec_data.change (recommender_id, kind, entity, op, captured_at, item_id, event_kind, value, occurred_at)
    -- popularity has counted it: only the vector is to be made
    select {id}, 'user', d.entity, case when d.counted then 'refresh' else d.op end, d.at, t.item_id, t.kind, t.value, t.occurred_at
    from side d left join lateral (select d.item_id, d.kind, d.value, d.occurred_at where not d.counted) t on true
    where d.entity is not null and d.item_id is not null and isfinite(d.occurred_at) and {known_entity}
    returning 1
  )
  select count(*) from queued
$$
$body$ $template$;
comment on function dynrec._streamed_interaction_capture() is
  'Internal. Template: queues each interaction that the stream saw come or go; rows that are counted in popularity already, as a refresh of the user.';
