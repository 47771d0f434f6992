-- Changing and dropping a recommender.

create or replace function dynrec._queue(recommender_id int, kind text, entities text[], lane smallint) returns bigint
language sql
set search_path from current
as $$
  with queued as (
    insert into dynrec_data.change (recommender_id, kind, entity, op, lane)
    select _queue.recommender_id, _queue.kind, e, 'refresh', _queue.lane from unnest(entities) e returning 1
  )
  select count(*) from queued
$$;
comment on function dynrec._queue(int, text, text[], smallint) is 'Internal. Queues entities to be recomputed from their source, in a lane (0 live, 1 backfill).';

create or replace function dynrec._content_stands(r dynrec_data.recommender) returns text
language sql stable
set search_path from current
as $$
  select case when r.vector_column is null then h.of_text
    else format('(c.content_hash = sha256(convert_to(s.content || e''\n'' || coalesce(s.embedding::text, ''''), ''UTF8'')) or %s and %s)', h.of_text, coalesce(a.vector_stands, 'true')) end
  from (values ('c.content_hash = sha256(convert_to(s.content, ''UTF8''))')) h (of_text)
  left join lateral (
    select format($query$exists (
      select from dynrec_data.item_vector_%s v where v.item_id = c.item_id and dynrec._equal_sums(array[dynrec._vector(v.embedding, v.half)],
        array[dynrec._rounded(dynrec._flush(coalesce(l2_normalize(s.embedding), dynrec._zero(%s))), v.half is not null)]))$query$, m.id, m.dimension) as vector_stands
    from dynrec_data.model_version m where m.recommender_id = r.id and m.kind = 'content' and m.encoder is null and dynrec._is_live(m)
  ) a on true
$$;
comment on function dynrec._content_stands(dynrec_data.recommender) is
  'Internal. The condition that the text of a source row s, and its vector if vectors are adopted, are those that are stored (c). The hash of what was published while vectors were '
  'adopted covers both, that of what was published for an encoder the text alone: then the vector itself is compared, while it is kept up to date.';

-- the same row makes the same text, whatever the session's settings are
create or replace function dynrec._outdated_items(r dynrec_data.recommender) returns text[]
language plpgsql stable
set search_path from current
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
as $$
declare
  ids text[];
begin
  execute dynrec._render($query$
    select array_agg(s.item_id)
    from (select i.{key}::text as item_id, {content} as content, {features} as features, {vector} as embedding from {items} i) s
    join dynrec_data.item_content c on c.recommender_id = {id} and c.item_id = s.item_id
    where not {content_stands} or c.features <> s.features
    $query$, dynrec._names(r) || jsonb_build_object('content_stands', dynrec._content_stands(r))) into ids;
  return coalesce(ids, '{}');
end
$$;
comment on function dynrec._outdated_items(dynrec_data.recommender) is
  'Internal. The items whose stored content or features differ from what this declaration makes of their source rows.';

-- the same row makes the same text, whatever the session's settings are
create or replace function dynrec._rebuild_documents(r dynrec_data.recommender) returns void
language plpgsql
set search_path from current
set datestyle = 'ISO, YMD'
set timezone = 'UTC'
set intervalstyle = 'postgres'
set extra_float_digits = 1
set bytea_output = 'hex'
as $$
begin
  execute dynrec._render($query$
    update dynrec_data.item_content c set document = to_tsvector({text_search_config}, left(s.content, 100000))
    from (select i.{key}::text as item_id, {content} as content from {items} i) s
    where c.recommender_id = {id} and c.item_id = s.item_id
    $query$, dynrec._names(r));
end
$$;
comment on function dynrec._rebuild_documents(dynrec_data.recommender) is 'Internal. Makes the full-text documents of all items afresh, for another text search configuration.';

create or replace function dynrec.alter_recommender(
  name text, text_columns text[] default null, numeric_columns text[] default null, categorical_columns text[] default null,
  kinds jsonb default null, options jsonb default null, dry_run boolean default false)
returns table (items_to_recompute bigint, users_to_recompute bigint)
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(name);
  before dynrec_data.recommender := r;
  merged jsonb := dynrec._options(options, r.options);
  outdated text[];
  users bigint := 0;
  kinds_before jsonb;
  kinds_now jsonb;
begin
  perform dynrec._hold_source(s.relation) from (values (r.items), (r.interactions)) s (relation) where s.relation is not null;
  r.text_columns := dynrec._watched_columns('text_columns', r.items, coalesce(text_columns, r.text_columns));
  r.numeric_columns := dynrec._numeric_columns(r.items, coalesce(numeric_columns, r.numeric_columns));
  r.categorical_columns := dynrec._watched_columns('categorical_columns', r.items, coalesce(categorical_columns, r.categorical_columns));
  if r.vector_column is null and cardinality(r.text_columns) + cardinality(r.categorical_columns) = 0 then
    perform dynrec._reject('neither text_columns nor categorical_columns would be left', '{}', 'Name at least one column that describes an item.');
  end if;
  r.options := merged;
  r.item_key_type := dynrec._key_type('item_key', r.items, r.item_key);
  if r.interactions is not null then
    r.user_key_type := dynrec._key_type('user_column', r.interactions, r.user_column);
    r.item_ref_type := dynrec._key_type('item_column', r.interactions, r.item_column);
  end if;
  select jsonb_object_agg(k.kind, jsonb_build_array(k.weight, k.half_life)) into kinds_before
  from dynrec_data.interaction_kind k where k.recommender_id = r.id;
  select jsonb_object_agg(k.kind, jsonb_build_array(k.weight, k.half_life)), array_agg(distinct k.half_life order by k.half_life)
  into kinds_now, r.half_lives
  from dynrec._kinds(coalesce(kinds, dynrec._declared_kinds(before)), r.kind_column, (merged ->> 'half_life')::interval) k;
  perform dynrec._check_stream(r);
  outdated := dynrec._outdated_items(r);
  if r.interactions is not null and kinds_now <> kinds_before then
    perform dynrec._hold_interactions(r);
    execute format('select count(distinct i.user_id) from dynrec_data.interactions_all_%s() i', r.id) into users;
  end if;
  if not dry_run then
    perform dynrec._apply_alteration(before, r, kinds_now, outdated, users > 0);
  end if;
  return query select cardinality(outdated)::bigint, users;
end
$$;
comment on function dynrec.alter_recommender(text, text[], text[], text[], jsonb, jsonb, boolean) is
  'Changes columns, kinds or options of a recommender (null: as it is; options are merged), follows renamed tables and changed key types, '
  're-installs missing triggers and looks for what they missed, and queues only what differs. '
  'Returns how many items and users will be recomputed; with dry_run nothing is changed.';

create or replace function dynrec._declared_kinds(r dynrec_data.recommender) returns jsonb
language sql stable
set search_path from current
as $$
  select coalesce(jsonb_object_agg(k.kind, jsonb_build_object('weight', k.weight) || case
      when k.half_life = dynrec._seconds((r.options ->> 'half_life')::interval) then '{}'
      else jsonb_build_object('half_life', k.half_life || ' seconds') end), '{}')
  from dynrec_data.interaction_kind k where k.recommender_id = r.id
$$;
comment on function dynrec._declared_kinds(dynrec_data.recommender) is 'Internal. The kinds as they would be declared, without half-lives that are the default.';

create or replace function dynrec._apply_alteration(
  before dynrec_data.recommender, r dynrec_data.recommender, kinds jsonb, outdated text[], users_differ boolean) returns void
language plpgsql
set search_path from current
as $$
declare
  -- the sources of which something was not captured, or what is theirs no more was
  amiss text[] := array(
    select split_part(t.trigger_name, '_', 3)
    from (select m.trigger_name from dynrec._missing_triggers(r) m union all select s.trigger_name from dynrec._stray_triggers(r) s) t
    where dynrec._uses_triggers(before) and dynrec._uses_triggers(r));
begin
  update dynrec_data.recommender x
  set text_columns = r.text_columns, numeric_columns = r.numeric_columns, categorical_columns = r.categorical_columns,
    half_lives = r.half_lives, options = r.options,
    item_key_type = r.item_key_type, user_key_type = r.user_key_type, item_ref_type = r.item_ref_type
  where x.id = r.id;
  delete from dynrec_data.interaction_kind k where k.recommender_id = r.id;
  insert into dynrec_data.interaction_kind (recommender_id, kind, weight, half_life)
  select r.id, k.key, (k.value ->> 0)::double precision, (k.value ->> 1)::double precision from jsonb_each(kinds) k;
  perform dynrec._switch_capture(before, r);
  perform dynrec._generate(r.id);
  perform dynrec._switch_outbox(before, r);
  perform dynrec._queue(r.id, 'item', outdated, 1::smallint);
  -- items that a worker has read by the old declaration; the lock keeps others from being claimed until the new one is there
  lock table dynrec_data.lease in share row exclusive mode;
  perform dynrec._queue(r.id, 'item', array(
    select l.entity from dynrec_data.lease l where l.recommender_id = r.id and l.kind = 'item' and l.entity <> all (outdated)), 1::smallint);
  if 'items' = any (amiss) or (before.text_columns, before.numeric_columns, before.categorical_columns)
    is distinct from (r.text_columns, r.numeric_columns, r.categorical_columns) then
    insert into dynrec_data.task (recommender_id, action) values (r.id, 'await_writers');
  end if;
  users_differ := users_differ or 'interactions' = any (amiss);
  if users_differ or cardinality(outdated) > 0 and r.interactions is not null then
    insert into dynrec_data.task (recommender_id, action) values (r.id, 'scan_users');
  end if;
  if dynrec._is_private(before) <> dynrec._is_private(r) then
    perform dynrec._forget_popularity(r);
  end if;
  if users_differ or (before.options -> 'trending_half_life', before.options -> 'popularity_epsilon') is distinct from (r.options -> 'trending_half_life', r.options -> 'popularity_epsilon') then
    insert into dynrec_data.task (recommender_id, action) select r.id, 'popularity' where r.interactions is not null;
  end if;
  if before.options ->> 'text_search_config' <> r.options ->> 'text_search_config' then
    perform dynrec._rebuild_documents(r);
  end if;
  perform dynrec._notify_wake();
end
$$;
comment on function dynrec._apply_alteration(dynrec_data.recommender, dynrec_data.recommender, jsonb, text[], boolean) is
  'Internal. Stores an altered declaration, regenerates its code and queues what it made outdated.';

create or replace function dynrec.drop_recommender(name text) returns void
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(name);
  model int;
  from_table text;
begin
  -- from here on nothing is claimed and no task begins; deleting the leases first waits for those who publish
  perform pg_advisory_xact_lock(hashtext('dynrec.drop'), r.id);
  delete from dynrec_data.lease l where l.recommender_id = r.id;
  perform dynrec._remove_triggers(r.id);
  perform dynrec._degenerate(r.id);
  -- of retired ones as well, whose history waits for maintenance
  delete from dynrec_data.item_vector_history h using dynrec_data.model_version m where m.recommender_id = r.id and h.model_id = m.id;
  delete from dynrec_data.user_vector_history h using dynrec_data.model_version m where m.recommender_id = r.id and h.model_id = m.id;
  for model in select m.id from dynrec_data.model_version m where m.recommender_id = r.id and dynrec._is_live(m) loop
    execute format('drop table dynrec_data.item_vector_%1$s, dynrec_data.user_vector_%1$s', model);
  end loop;
  foreach from_table in array array['change', 'retry', 'dead_letter', 'task', 'item_content', 'item_content_history', 'item_popularity', 'item_popularity_history', 'impression', 'measurement', 'counter',
    'stream_span', 'user_fingerprint', 'outbox'] loop
    execute format('delete from dynrec_data.%I where recommender_id = $1', from_table) using r.id;
  end loop;
  delete from dynrec_data.recommender x where x.id = r.id;
  perform dynrec._generate_sees_item();
end
$$;
comment on function dynrec.drop_recommender(text) is
  'Removes a recommender with its triggers, vectors, history and queue. The application''s own tables are left as they are.';

create or replace function dynrec._drop_all_recommenders() returns void
language plpgsql
set search_path from current
as $$
declare
  declared text;
begin
  for declared in select r.name from dynrec_data.recommender r loop
    perform dynrec.drop_recommender(declared);
  end loop;
end
$$;
comment on function dynrec._drop_all_recommenders() is 'Internal. Run before a downgrade to nothing, so that no trigger is left behind.';
