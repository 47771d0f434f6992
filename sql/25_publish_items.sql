-- Publishing what a worker made of item rows. One short statement; rows whose lease has gone to another worker are dropped as superseded.

create or replace function dynrec._item_publisher() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.publish_items_{id}(
  by_token uuid, item_ids text[], contents text[], content_hashes bytea[], all_features jsonb[], hashes bytea[], vectors vector[], derived_token uuid, lease interval)
returns table (item_id text, outcome text, derives boolean)
language sql
set search_path from current
set enable_seqscan = off
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
as $$
  -- membership in a list or a hashed set, not joins: the planner guesses wrong about tables that fill and empty all day
  with held as materialized (
    select l.entity as item_id, l.captured_at, l.change_ids, l.lane
    from dynrec_data.lease l
    where l.token = by_token and l.recommender_id = {id} and l.kind = 'item' and l.entity = any (item_ids)
    order by l.entity for update
  ), read as materialized (
    select h.*, r.content, r.features, r.content_hash
    from unnest(item_ids, contents, content_hashes, all_features) as r (item_id, content, content_hash, features) join held h using (item_id)
  ), encoded as materialized (
    select distinct on (e.content_hash) e.content_hash, dynrec._rounded(dynrec._flush(e.embedding), {in_half}) as embedding
    from unnest(hashes, vectors) as e (content_hash, embedding)
  ), judged as materialized (
    select r.*, known.embedding,
      c.content_hash as old_hash, c.features as old_features, c.valid_from as old_content_from, c.created_at as old_content_made,
      v.embedding as old_embedding, v.valid_from as old_from, v.created_at as old_made,
      -- a version begins after the one before it, also where transactions commit in another order than they captured
      coalesce(c.valid_from + interval '1 microsecond', last_content.valid_to) as content_after,
      coalesce(v.valid_from + interval '1 microsecond', last_vector.valid_to) as vector_after,
      case when r.content is null then 'removed' when known.embedding is null then 'requeued'
        when v.embedding = known.embedding then 'unchanged' else 'published' end as outcome,
      -- and is learnt after it, also where the clock was set back
      greatest(clock_timestamp(), c.created_at, v.created_at, last_content.replaced_at, last_vector.replaced_at) as made_at
    from read r
    -- how many leases and vectors there are, the statistics do not know: what comes in a batch is hashed, what is stored is looked up by key
    left join lateral (select x.* from dynrec_data.item_content x where x.recommender_id = {id} and x.item_id = r.item_id limit 1) c on true
    left join lateral (
      select x.item_id, dynrec._vector(x.embedding, x.half) as embedding, x.valid_from, x.created_at from dynrec_data.item_vector_{content_model} x where x.item_id = r.item_id limit 1
    ) v on true
    left join lateral (
      select h.valid_to, h.replaced_at from dynrec_data.item_content_history h
      where c.item_id is null and h.recommender_id = {id} and h.item_id = r.item_id order by h.valid_to desc limit 1
    ) last_content on true
    left join lateral (
      select h.valid_to, h.replaced_at from dynrec_data.item_vector_history h
      where v.item_id is null and h.model_id = {content_model} and h.item_id = r.item_id order by h.valid_to desc limit 1
    ) last_vector on true
    left join encoded e on e.content_hash = r.content_hash
    left join lateral (
      select coalesce(
        case when c.content_hash = r.content_hash then v.embedding end,
        e.embedding,
        (select twin.embedding from dynrec_data.item_content other
           cross join lateral (select dynrec._vector(x.embedding, x.half) as embedding from dynrec_data.item_vector_{content_model} x where x.item_id = other.item_id limit 1) twin
         where other.recommender_id = {id} and other.content_hash = r.content_hash limit 1)) as embedding
    ) known on r.content is not null
  ), content_closed as (
    insert into dynrec_data.item_content_history (recommender_id, item_id, content_hash, features, valid_from, valid_to, created_at, replaced_at)
    select {id}, j.item_id, j.old_hash, j.old_features, j.old_content_from,
      greatest(j.captured_at, j.content_after), j.old_content_made,
      case j.outcome when 'removed' then greatest(j.captured_at, j.old_content_made) else j.made_at end
    from judged j
    where j.old_hash is not null and (j.outcome = 'removed'
      or j.outcome <> 'requeued' and (j.old_hash, j.old_features) is distinct from (j.content_hash, j.features))
  ), content_gone as (
    delete from dynrec_data.item_content c
    where c.recommender_id = {id} and c.item_id = any (item_ids)
      and (c.item_id in (select j.item_id from judged j where j.outcome = 'removed')) is true
  ), content_new as (
    insert into dynrec_data.item_content as c (recommender_id, item_id, content_hash, document, features, valid_from, created_at)
    select {id}, j.item_id, j.content_hash, to_tsvector({text_search_config}, left(j.content, 100000)), j.features,
      greatest(j.captured_at, j.content_after), j.made_at
    from judged j
    where j.outcome in ('published', 'unchanged') and (j.old_hash, j.old_features) is distinct from (j.content_hash, j.features)
    on conflict (recommender_id, item_id) do update set content_hash = excluded.content_hash, document = excluded.document,
      features = excluded.features, valid_from = excluded.valid_from, created_at = excluded.created_at
  ), vector_closed as (
    insert into dynrec_data.item_vector_history (model_id, item_id, embedding, half, valid_from, valid_to, created_at, replaced_at)
    select {content_model}, j.item_id, case when not {in_half} then j.old_embedding end, case when {in_half} then j.old_embedding::halfvec end,
      j.old_from, greatest(j.captured_at, j.vector_after), j.old_made,
      case j.outcome when 'removed' then greatest(j.captured_at, j.old_made) else j.made_at end
    from judged j where j.old_embedding is not null and j.outcome in ('published', 'removed')
  ), vector_gone as (
    delete from dynrec_data.item_vector_{content_model} v
    where v.item_id = any (item_ids) and (v.item_id in (select j.item_id from judged j where j.outcome = 'removed')) is true
  ), vector_new as (
    insert into dynrec_data.item_vector_{content_model} as v (model_id, item_id, embedding, half, valid_from, created_at)
    select {content_model}, j.item_id, case when not {in_half} then j.embedding end, case when {in_half} then j.embedding::halfvec end, greatest(j.captured_at, j.vector_after), j.made_at
    from judged j where j.outcome = 'published' order by j.item_id
    on conflict (item_id, model_id) do update
      set embedding = excluded.embedding, half = excluded.half, valid_from = excluded.valid_from, created_at = excluded.created_at
  ), told as (
    insert into dynrec_data.outbox (model_id, kind, entity, recommender_id, valid_from)
    select {content_model}, 'item', j.item_id, {id}, greatest(j.captured_at, j.vector_after) from judged j
    where {publishes} and (j.outcome = 'published' or j.outcome = 'removed' and j.old_embedding is not null) order by j.item_id
    on conflict (model_id, kind, entity) do update set valid_from = excluded.valid_from, version = excluded.version, error = null
  ), audience as (
    -- a backfill is followed by a scan of the users; a live change moves the users who met the item
    insert into dynrec_data.task (recommender_id, action, entity)
    select {id}, 'audience', j.item_id from judged j
    where {has_interactions} and j.lane <> 1 and (j.outcome = 'published' or j.outcome = 'removed' and j.old_embedding is not null)
  ), derived as (
    -- the other live models make their vectors of what was published here
    insert into dynrec_data.change (recommender_id, kind, entity, op, lane, captured_at)
    select {id}, 'derived', j.item_id, 'refresh', case j.lane when 1 then 1 else 0 end, j.captured_at from judged j
    where {has_derived} and j.outcome <> 'requeued'
    returning entity, id, lane, captured_at
  ), derived_leased as (
    -- of live changes who published makes them at once: no claim, and nobody else looks for them
    insert into dynrec_data.lease (recommender_id, kind, entity, token, deadline, attempts, lane, change_ids, captured_at)
    select {id}, 'derived', d.entity, derived_token, clock_timestamp() + lease, coalesce(t.attempts, 0), 0, d.id || array(
        select c.id from dynrec_data.change c
        where c.entity = d.entity and c.kind is not distinct from 'derived' and c.recommender_id is not distinct from {id}),
      d.captured_at
    from derived d left join dynrec_data.retry t on t.entity = d.entity and t.kind is not distinct from 'derived' and t.recommender_id is not distinct from {id}
    where d.lane = 0 and derived_token is not null and dynrec._is_staying({id})
    order by d.entity
    on conflict do nothing
    returning entity
  ), used as (
    delete from dynrec_data.change c
    where c.entity = any (item_ids) and c.kind is not distinct from 'item' and c.recommender_id is not distinct from {id}
      and (c.id in (select unnest(j.change_ids) from judged j where j.outcome <> 'requeued')) is true
    returning 1
  ), unlocked as materialized (
    -- changes go before leases and retries: a claim locks changes first, too, and then looks for the lease
    select count(*) from used
  ), released as (
    delete from dynrec_data.lease l using unlocked
    where l.token = by_token and l.recommender_id = {id} and l.kind = 'item' and l.entity = any (item_ids)
  ), forgiven as (
    delete from dynrec_data.retry r using unlocked
    where r.recommender_id = {id} and r.kind = 'item' and r.entity = any (item_ids)
      and (r.entity in (select j.item_id from judged j where j.outcome <> 'requeued')) is true
  ), revived as (
    delete from dynrec_data.dead_letter d using unlocked
    where d.recommender_id = {id} and d.kind = 'item' and d.entity = any (item_ids)
      and (d.entity in (select j.item_id from judged j where j.outcome <> 'requeued')) is true
  )
  select given.item_id, coalesce(j.outcome, 'superseded'), (given.item_id in (select d.entity from derived_leased d)) is true
  from unnest(item_ids) as given (item_id) left join judged j using (item_id)
$$;
$body$ $template$;
comment on function dynrec._item_publisher() is
  'Internal. Template: closes the old versions of contents and vectors, makes the new ones current, deletes exactly the changes that were claimed.';

-- the same row makes the same text, whatever the session's settings are
create or replace function dynrec._read_items(token uuid)
returns table (item_id text, content text, features jsonb, needs_vector boolean)
language plpgsql security definer
set search_path from current
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
as $$
declare
  r dynrec_data.recommender;
  ids text[];
begin
  select array_agg(l.entity order by l.entity) into ids
  from dynrec_data.lease l where l.token = _read_items.token and l.kind = 'item';
  select rec.* into r from dynrec_data.recommender rec
  where rec.id = (select l.recommender_id from dynrec_data.lease l where l.token = _read_items.token limit 1);
  if ids is null or r.id is null then
    return;
  end if;
  perform dynrec._hold_items(r);
  return query execute format($query$
    select k.item_id, s.content, s.features,
      s.content is not null and not exists (
        select from dynrec_data.item_content c join dynrec_data.item_vector_%2$s v on v.item_id = c.item_id
        where c.recommender_id = %1$s and c.content_hash = sha256(convert_to(s.content, 'UTF8')))
    from unnest($1) k (item_id) left join dynrec_data.source_items_%1$s($1) s using (item_id)
    $query$, r.id, r.content_model_id) using ids;
end
$$;
comment on function dynrec._read_items(uuid) is
  'Internal. The source rows of a lease as they are now: text to encode (null: the row is gone), features, and whether no vector of the same text exists.';

create or replace function dynrec._content_hashes(contents text[]) returns bytea[]
language sql immutable
set search_path from current
as $$
  select array_agg(sha256(convert_to(c.content, 'UTF8')) order by c.position) from unnest(contents) with ordinality as c (content, position)
$$;
comment on function dynrec._content_hashes(text[]) is 'Internal. sha256 of each text, null for null, in the same order.';

create or replace function dynrec._publish_items(
  token uuid, item_ids text[], contents text[], features jsonb[], hashes bytea[], vectors vector[],
  derived_token uuid default null, lease interval default null)
returns table (item_id text, outcome text, derives boolean)
language plpgsql security definer
set search_path from current
as $$
declare
  recommender_id int;
begin
  select l.recommender_id into recommender_id from dynrec_data.lease l where l.token = _publish_items.token limit 1;
  if not found then
    return query select i, 'superseded', false from unnest(item_ids) i;
    return;
  end if;
  return query execute format('select * from dynrec_data.publish_items_%s($1, $2, $3, $4, $5, $6, $7, $8, $9)', recommender_id)
    using token, item_ids, contents, dynrec._content_hashes(contents), features, hashes, vectors, derived_token, lease;
end
$$;
comment on function dynrec._publish_items(uuid, text[], text[], jsonb[], bytea[], vector[], uuid, interval) is
  'Internal. Stores the vectors of a lease. hashes and vectors: sha256 of each distinct text that was encoded, and its vector. '
  'Outcome per item: published, unchanged, removed, superseded, requeued (its vector could not be found: it is claimed again). derives: the item is leased under '
  'derived_token for the models that are made of it; of live changes alone, and none without that token.';

-- the same row makes the same text, whatever the session's settings are
create or replace function dynrec._publish_adopted(token uuid, derived_token uuid default null, lease interval default null)
returns table (published bigint, derives bigint)
language plpgsql security definer
set search_path from current
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
as $$
declare
  r dynrec_data.recommender;
begin
  select rec.* into r from dynrec_data.recommender rec
  where rec.id = (select l.recommender_id from dynrec_data.lease l where l.token = _publish_adopted.token limit 1);
  if r.id is null then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  perform dynrec._hold_items(r);
  -- the hash covers the adopted vector, so that it differs when only the vector moved
  return query execute format($query$
    with leased as (
      select array_agg(l.entity) as ids from dynrec_data.lease l where l.token = $1 and l.kind = 'item'
    ), read as (
      select k.item_id, s.content, s.features,
        case when s.item_id is not null then sha256(convert_to(s.content || e'\n' || coalesce(s.embedding::text, ''), 'UTF8')) end as hash,
        coalesce(l2_normalize(s.embedding), dynrec._zero(%2$s)) as embedding
      from leased cross join unnest(leased.ids) k (item_id)
      left join dynrec_data.source_items_%1$s((select ids from leased)) s using (item_id)
    ), grouped as (
      select array_agg(item_id) as ids, array_agg(content) as contents, array_agg(hash) as content_hashes, array_agg(features) as features,
        array_agg(hash) filter (where hash is not null) as hashes, array_agg(embedding) filter (where hash is not null) as vectors
      from read
    )
    select count(*) filter (where p.outcome in ('published', 'unchanged', 'removed')), count(*) filter (where p.derives)
    from grouped g, dynrec_data.publish_items_%1$s($1, g.ids, g.contents, g.content_hashes, g.features, g.hashes, g.vectors, $2, $3) p
    $query$, r.id, (select m.dimension from dynrec_data.model_version m where m.id = r.content_model_id))
  using token, derived_token, lease;
end
$$;
comment on function dynrec._publish_adopted(uuid, uuid, interval) is
  'Internal. Publishes a lease of a recommender that adopts the vectors of its source, normalised to unit length; a null vector becomes the zero vector. '
  'derived_token and derives: as of _publish_items.';
