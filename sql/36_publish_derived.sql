-- Vectors of the other live models, made of what was published for an item: by a learned model''s towers, or by another encoder.

create or replace function dynrec._derived_publisher() returns text
language sql immutable
as $template$ select $body$
create or replace function dynrec_data.publish_derived_m{model}(by_token uuid, item_ids text[], embeddings vector[], all_contexts vector[])
returns table (item_id text, outcome text)
language sql
set search_path from current
set enable_seqscan = off
set enable_nestloop = off
set plan_cache_mode = force_generic_plan
as $$
  with held as materialized (
    select l.entity as item_id, l.captured_at, l.lane from dynrec_data.lease l
    where l.token = by_token and l.recommender_id = {id} and l.kind = 'derived' and l.entity = any (item_ids)
    order by l.entity for update
  ), given as materialized (
    select h.*, dynrec._rounded(dynrec._flush(g.embedding), {in_half}) as embedding, case when cardinality(all_contexts) > 0 then array(
      select dynrec._flush(all_contexts[(g.position - 1) * (cardinality(all_contexts) / cardinality(item_ids)) + s])
      from generate_series(1, cardinality(all_contexts) / cardinality(item_ids)) s) end as contexts
    from unnest(item_ids, embeddings) with ordinality as g (item_id, embedding, position) join held h using (item_id)
  ), judged as materialized (
    select g.*, v.embedding as old_embedding, v.contexts as old_contexts, v.valid_from as old_from, v.created_at as old_made,
      coalesce(v.valid_from + interval '1 microsecond', last.valid_to) as vector_after,
      case when g.embedding is null then 'removed'
        when e.same and c.same then 'unchanged' else 'published' end as outcome, c.same as same_contexts,
      -- learnt after the one before it, also where the clock was set back
      greatest(clock_timestamp(), v.created_at, last.replaced_at) as made_at
    from given g
    -- how many leases and vectors there are, the statistics do not know: what comes in a batch is hashed, what is stored is looked up by key
    left join lateral (
      select x.item_id, dynrec._vector(x.embedding, x.half) as embedding, x.contexts, x.valid_from, x.created_at from dynrec_data.item_vector_{model} x where x.item_id = g.item_id limit 1
    ) v on true
    left join lateral (
      select h.valid_to, h.replaced_at from dynrec_data.item_vector_history h
      where v.item_id is null and h.model_id = {model} and h.item_id = g.item_id order by h.valid_to desc limit 1
    ) last on true
    -- the same rows give the same vectors up to rounding, whatever else is in the batch
    cross join lateral (select coalesce(dynrec._equal_sums(array[v.embedding], array[g.embedding]), false) as same) e
    cross join lateral (select case when g.contexts is null then e.same else coalesce(dynrec._equal_sums(v.contexts, g.contexts), false) end as same) c
  ), vector_closed as (
    insert into dynrec_data.item_vector_history (model_id, item_id, embedding, half, contexts, valid_from, valid_to, created_at, replaced_at)
    select {model}, j.item_id, case when not {in_half} then j.old_embedding end, case when {in_half} then j.old_embedding::halfvec end, j.old_contexts, j.old_from, greatest(j.captured_at, j.vector_after), j.old_made,
      case j.outcome when 'removed' then greatest(j.captured_at, j.old_made) else j.made_at end
    from judged j where j.old_embedding is not null and j.outcome <> 'unchanged'
  ), vector_gone as (
    delete from dynrec_data.item_vector_{model} v
    where v.item_id = any (item_ids) and (v.item_id in (select j.item_id from judged j where j.outcome = 'removed')) is true
  ), vector_new as (
    insert into dynrec_data.item_vector_{model} as v (model_id, item_id, embedding, half, contexts, valid_from, created_at)
    select {model}, j.item_id, case when not {in_half} then j.embedding end, case when {in_half} then j.embedding::halfvec end, j.contexts, greatest(j.captured_at, j.vector_after), j.made_at
    from judged j where j.outcome = 'published' order by j.item_id
    on conflict (item_id, model_id) do update
      set embedding = excluded.embedding, half = excluded.half, contexts = excluded.contexts, valid_from = excluded.valid_from, created_at = excluded.created_at
  ), told as (
    insert into dynrec_data.outbox (model_id, kind, entity, recommender_id, valid_from)
    select {model}, 'item', j.item_id, {id}, greatest(j.captured_at, j.vector_after) from judged j
    where {publishes} and (j.outcome = 'published' or j.outcome = 'removed' and j.old_embedding is not null) order by j.item_id
    on conflict (model_id, kind, entity) do update set valid_from = excluded.valid_from, version = excluded.version, error = null
  ), audience as (
    -- a backfill is followed by a scan of the users; later, what an item adds to its users moves them
    insert into dynrec_data.task (recommender_id, action, entity)
    select {id}, 'audience', j.item_id from judged j
    where {has_interactions} and (j.lane <> 1 or j.old_embedding is not null)
      and not j.same_contexts and coalesce(j.old_embedding, j.embedding) is not null
  )
  select given.item_id, coalesce(j.outcome, 'superseded')
  from unnest(item_ids) as given (item_id) left join judged j using (item_id)
$$;
$body$ $template$;
comment on function dynrec._derived_publisher() is
  'Internal. Template: closes the old versions of a model''s vectors and makes the new ones current; the lease stays, for the next model.';

create or replace function dynrec._derived_models(recommender text)
returns table (model_id int, kind text, encoder text, family text, model text, dimension int)
language sql stable security definer
set search_path from current
as $$
  select m.id, m.kind, e.name, e.family, e.model, m.dimension
  from dynrec._recommender(recommender) r
  join dynrec_data.model_version m on m.recommender_id = r.id and dynrec._is_live(m) and m.id <> r.content_model_id
  left join dynrec_data.encoder e on e.name = m.encoder
  order by m.base_model_id is distinct from r.content_model_id, m.kind, m.id
$$;
comment on function dynrec._derived_models(text) is
  'Internal. The live models whose vectors are derived, in the order in which they are: those made of the space in use first, so that they do not wait for another encoder, nor '
  'miss an item that it fails at; then the other encoders, then what is made of theirs.';

create or replace function dynrec._read_derived(token uuid, model int)
returns table (item_id text, content text, embedding vector, numbers double precision[], labels text[], names text[])
language plpgsql security definer
set search_path from current
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
as $$
declare
  ids text[];
  m dynrec_data.model_version;
begin
  select array_agg(l.entity order by l.entity) into ids from dynrec_data.lease l where l.token = _read_derived.token and l.kind = 'derived';
  select x.* into m from dynrec_data.model_version x where x.id = _read_derived.model;
  if ids is null then
    return;
  end if;
  perform dynrec._hold_sources(r) from dynrec_data.recommender r where r.id = m.recommender_id;
  if m.kind = 'content' and m.encoder is null then
    -- a vector of another length fails here, where it is told which item is at fault
    return query execute format($query$
      select k.item_id, s.content, case when s.item_id is not null then coalesce(l2_normalize(s.embedding), dynrec._zero(%2$s))::vector(%2$s) end,
        null::double precision[], null::text[], null::text[]
      from unnest($1) k (item_id) left join dynrec_data.source_items_%1$s($1) s using (item_id)
      $query$, m.recommender_id, m.dimension) using ids;
  elsif m.kind = 'content' then
    return query execute format($query$
      select k.item_id, s.content, null::vector, null::double precision[], null::text[], null::text[]
      from unnest($1) k (item_id) left join dynrec_data.source_items_%s($1) s using (item_id)
      $query$, m.recommender_id) using ids;
  else
    -- The names come from the code that reads the rows: an alteration between two statements cannot mix them. One that commits after this queues every item
    -- whose stored features it changes, and those are derived again once they are published; where the order alone changes, nothing else does.
    return query execute format($query$
      select k.item_id, null::text, dynrec._vector(v.embedding, v.half), f.numbers, f.labels, max(f.names) over ()
      from unnest($1) k (item_id)
      left join dynrec_data.item_vector_%s v on v.item_id = k.item_id
      left join dynrec_data.item_features_%s($1, null, true) f on f.item_id = k.item_id
      $query$, m.base_model_id, m.recommender_id) using ids;
  end if;
end
$$;
comment on function dynrec._read_derived(uuid, int) is
  'Internal. What a model makes the vectors of a lease of: the text for an encoder; the vector itself for one that adopts those of the source; the content vector and the features, with '
  'their names (numbers, then labels), for the towers of a learned model. Neither text nor vector: the item is gone.';

create or replace function dynrec._release_derived(token uuid) returns bigint
language sql security definer
set search_path from current
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
  with held as materialized (
    select l.recommender_id, l.entity, l.change_ids from dynrec_data.lease l
    where l.token = _release_derived.token and l.kind = 'derived' order by l.entity for update
  ), used as (
    delete from dynrec_data.change c using (select h.recommender_id, h.entity, unnest(h.change_ids) as id from held h) u
    where c.entity = u.entity and c.kind is not distinct from 'derived' and c.recommender_id is not distinct from u.recommender_id and c.id = u.id
    returning 1
  ), unlocked as materialized (
    -- changes go before leases and retries: a claim locks changes first, too, and then looks for the lease
    select count(*) from used
  ), released as (
    delete from dynrec_data.lease l using unlocked where l.token = _release_derived.token and l.kind = 'derived'
  ), forgiven as (
    delete from dynrec_data.retry r using unlocked, held h where r.recommender_id = h.recommender_id and r.kind = 'derived' and r.entity = h.entity
  ), revived as (
    delete from dynrec_data.dead_letter d using unlocked, held h where d.recommender_id = h.recommender_id and d.kind = 'derived' and d.entity = h.entity
  )
  select count(*) from held
$$;
comment on function dynrec._release_derived(uuid) is
  'Internal. Ends the lease of items whose vectors every model has published, and deletes exactly the changes that were claimed; how many.';

create or replace function dynrec._publish_derived(token uuid, model int, item_ids text[], embeddings vector[], contexts vector[], releases boolean default false)
returns table (item_id text, outcome text)
language plpgsql security definer
set search_path from current
as $$
begin
  if not exists (select from dynrec_data.model_version m where m.id = model and dynrec._is_live(m)) then
    -- retired since the claim
    return query select i, 'superseded' from unnest(item_ids) i;
  else
    -- where the lease is ended by another transaction, a worker may make that one after a crash has taken back what was not yet on disk
    perform set_config('synchronous_commit', 'on', true) where not releases;
    return query execute format('select * from dynrec_data.publish_derived_m%s($1, $2, $3, $4)', model) using token, item_ids, embeddings, contexts;
  end if;
  perform dynrec._release_derived(token) where releases;
end
$$;
comment on function dynrec._publish_derived(uuid, int, text[], vector[], vector[], boolean) is
  'Internal. Stores the vectors that a model made of a lease''s items; a null embedding removes the item. contexts: those of the first item, one for each head, '
  'then those of the second, and so on; empty for a content model. Outcome per item: published, unchanged, removed, superseded. releases: the whole lease is ended with it; '
  'otherwise the commit waits for the disk, as the release is a transaction of its own.';
