-- The outbox: which vectors others are to be told of. The publishes of recommenders that ask for it write it, dynrec publish empties it.

create or replace function dynrec._switch_outbox(before dynrec_data.recommender, r dynrec_data.recommender) returns void
language plpgsql
set search_path from current
as $$
begin
  if r.options ->> 'publish' is null then
    -- what a publish adds that runs now, maintenance removes
    delete from dynrec_data.task t where t.recommender_id = r.id and t.action in ('begin_outbox', 'fill_outbox');
    delete from dynrec_data.outbox o where o.recommender_id = r.id;
  elsif before.options -> 'publish' is distinct from r.options -> 'publish' then
    insert into dynrec_data.task (recommender_id, action) values (r.id, 'begin_outbox');
  end if;
end
$$;
comment on function dynrec._switch_outbox(dynrec_data.recommender, dynrec_data.recommender) is
  'Internal. As the option publish says: empties the outbox, or has all vectors that there are put into it.';

create or replace function dynrec._begin_outbox(recommender_id int) returns bigint
language plpgsql
set search_path from current
as $$
begin
  -- publishes that began before the option was set tell nobody: they have ended when we have this lock
  lock table dynrec_data.lease in exclusive mode;
  insert into dynrec_data.task (recommender_id, action) values (_begin_outbox.recommender_id, 'fill_outbox');
  return 1;
end
$$;
comment on function dynrec._begin_outbox(int) is 'Internal. Has the outbox filled once every publish writes it.';

create or replace function dynrec._fill_outbox(recommender_id int) returns bigint
language sql
set search_path from current
as $$
  with filled as (
    insert into dynrec_data.outbox (model_id, kind, entity, recommender_id, valid_from)
    select e.model_id, e.kind, e.entity, _fill_outbox.recommender_id, e.valid_from
    from dynrec_data.model_version m cross join lateral (
      select v.model_id, 'item' as kind, v.item_id as entity, v.valid_from from dynrec_data.item_vector v where v.model_id = m.id
      union all
      select u.model_id, 'user', u.user_id, u.valid_from from dynrec_data.user_vector u where u.model_id = m.id
    ) e
    where m.recommender_id = _fill_outbox.recommender_id and dynrec._is_live(m)
    -- in key order, so that nobody who publishes waits for us in a circle
    order by e.model_id, e.kind, e.entity
    on conflict (model_id, kind, entity) do nothing
    returning 1
  )
  select count(*) from filled
$$;
comment on function dynrec._fill_outbox(int) is 'Internal. Puts all vectors of a recommender into the outbox that are not in it.';

create or replace function dynrec._outbox_lanes() returns table (recommender text, kind text)
language sql stable security definer
set search_path from current
set enable_seqscan = off
as $$
  select r.name, k.kind from dynrec_data.recommender r cross join (values ('item'), ('user')) k (kind)
  where r.options ->> 'publish' is not null
    and exists (select from dynrec_data.outbox o where o.recommender_id = r.id and o.kind = k.kind and o.error is null)
  order by r.name, k.kind
$$;
comment on function dynrec._outbox_lanes() is 'Internal. What there is to tell of: recommenders, and items or users.';

create or replace function dynrec._outbox_vectors(kind text, model_id int) returns text
language sql immutable
set search_path from current
as $$
  select format(case kind
    when 'item' then 'select v.item_id as entity, v.valid_from, v.created_at, dynrec._vector(v.embedding, v.half) as vector
      from dynrec_data.item_vector_%1$s v where v.item_id = any ($1)'
    else 'select u.user_id as entity, u.valid_from, u.created_at, case when $2 then (dynrec_data.query_m%1$s(u.user_id)).query end as vector
      from dynrec_data.user_vector_%1$s u where u.user_id = any ($1)' end, model_id)
$$;
comment on function dynrec._outbox_vectors(text, int) is
  'Internal. The query for the current vectors of entities ($1): of users, only if they are wanted ($2), as they are made of sums.';

-- one snapshot for the outbox and the vectors: what is told is the vector that the row was written for
create or replace function dynrec._outbox_read(recommender text, kind text, most int) returns table (id bigint, version uuid, key text, event text)
language plpgsql stable security definer
set search_path from current
set enable_seqscan = off
set timezone = 'UTC'
set extra_float_digits = 1
as $$
declare
  r dynrec_data.recommender;
  head record;
begin
  select x.* into r from dynrec_data.recommender x where x.name = _outbox_read.recommender;
  for head in
    select h.model_id, array_agg(h.id) as ids, array_agg(h.version) as versions, array_agg(h.entity) as entities, array_agg(h.valid_from) as moments
    from (
      select o.* from dynrec_data.outbox o where o.recommender_id = r.id and o.kind = _outbox_read.kind and o.error is null order by o.id limit most
    ) h group by h.model_id
  loop
    return query execute format($query$
      select t.id, t.version, json_build_array($3, $4, t.entity, $5)::text, json_strip_nulls(json_build_object(
        'op', case when v.entity is null then 'removed' else 'published' end, 'recommender', $3, 'kind', $4, 'entity', t.entity, 'model_version', $5,
        'valid_from', coalesce(v.valid_from, t.moment), 'created_at', v.created_at, 'vector', case when $2 then v.vector::text::json end))::text
      from unnest($6, $7, $1, $8) as t (id, version, entity, moment) left join (%s) v using (entity)
      $query$, dynrec._outbox_vectors(_outbox_read.kind, head.model_id))
    using head.entities, r.options ->> 'publish' = 'vectors', r.name, _outbox_read.kind, head.model_id, head.ids, head.versions, head.moments;
  end loop;
end
$$;
comment on function dynrec._outbox_read(text, text, int) is
  'Internal. What others are to be told of, at most so many of those that have waited longest: what _outbox_settle wants to know, the key of the message, the event as JSON.';

create or replace function dynrec._outbox_settle(recommender text, kind text, ids bigint[], versions uuid[], errors text[]) returns void
language sql security definer
set search_path from current
set enable_seqscan = off
as $$
  with told as materialized (
    -- a row that is locked is being replaced by another vector: it stays where it is and is told again
    select o.model_id, o.entity, o.version = t.version as is_same, t.error
    from unnest(ids, versions, errors) as t (id, version, error)
    join dynrec_data.outbox o on o.id = t.id and o.kind = _outbox_settle.kind and o.error is null
      and o.recommender_id = (select r.id from dynrec_data.recommender r where r.name = _outbox_settle.recommender)
    for update of o skip locked
  ), gone as (
    delete from dynrec_data.outbox o using told t
    where o.model_id = t.model_id and o.kind = _outbox_settle.kind and o.entity = t.entity and t.is_same and t.error is null
  )
  -- what has changed since it was read goes to the end of the line
  update dynrec_data.outbox o set id = default, written_at = clock_timestamp(), error = case when t.is_same then t.error end from told t
  where o.model_id = t.model_id and o.kind = _outbox_settle.kind and o.entity = t.entity and (not t.is_same or t.error is not null)
$$;
comment on function dynrec._outbox_settle(text, text, bigint[], uuid[], text[]) is
  'Internal. Removes what others have been told of (error null) and sets aside what they cannot be told of, unless another vector has come since.';
