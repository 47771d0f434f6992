-- Declaring a recommender over the application's tables.

create or replace function dynrec.register_encoder(name text, family text, model text, dimension int) returns void
language plpgsql security definer
set search_path from current
as $$
begin
  if coalesce(btrim(name), '') = '' then
    perform dynrec._reject('encoder name is empty', name, 'Give a name for create_recommender(encoder => …).');
  end if;
  perform dynrec._check_length('encoder name', name);
  if family is null or family not in ('sentence-transformers', 'sentence-transformers-int8', 'hashing') then
    perform dynrec._reject('unknown encoder family', family, 'Families are: sentence-transformers, sentence-transformers-int8, hashing.');
  end if;
  if dimension is null or dimension not between 1 and 2000 then
    perform dynrec._reject('encoder dimension is out of range', dimension::text, 'pgvector indexes 1 to 2000 dimensions.');
  end if;
  insert into dynrec_data.encoder as e (name, family, model, dimension)
  values (register_encoder.name, register_encoder.family, coalesce(register_encoder.model, ''), register_encoder.dimension)
  on conflict on constraint encoder_pkey do nothing;
  if not exists (select from dynrec_data.encoder e where (e.name, e.family, e.model, e.dimension)
      = (register_encoder.name, register_encoder.family, coalesce(register_encoder.model, ''), register_encoder.dimension)) then
    perform dynrec._reject('another encoder has that name', name, 'Encoders never change, as vectors made by them exist: choose a new name.');
  end if;
end
$$;
comment on function dynrec.register_encoder(text, text, text, int) is
  'Makes an encoder known under a name: family sentence-transformers (model: a name or path), sentence-transformers-int8 (the same in 8 bits, on CPUs: faster, with vectors of its own) '
  'or hashing (scikit-learn, no weights); dimension 1 to 2000. '
  '`dynrec encoder add` loads the model, finds its dimension and calls this. Repeating it is a no-op; another definition under the same name is an error.';

create or replace function dynrec._encoder_dimension(encoder text) returns int
language plpgsql stable
set search_path from current
as $$
declare
  dimension int;
begin
  select e.dimension into dimension from dynrec_data.encoder e where e.name = encoder;
  if not found then
    perform dynrec._reject('unknown encoder', encoder,
      'Known are: ' || (select string_agg(quote_literal(e.name), ', ' order by e.name) from dynrec_data.encoder e)
      || '; add others with `dynrec encoder add NAME MODEL`.');
  end if;
  return dimension;
end
$$;
comment on function dynrec._encoder_dimension(text) is 'Internal. The dimension of an encoder; an error that lists the known ones.';

create or replace function dynrec._adopted_dimension(relation regclass, vector_column text) returns int
language plpgsql stable
set search_path from current
as $$
declare
  type text := dynrec._column_type('vector_column', relation, vector_column);
  dimension int;
begin
  if type not in ('vector', 'halfvec', 'real[]', 'double precision[]') and type !~ '\.?(vector|halfvec)$' then
    perform dynrec._reject(format('vector_column: %s.%s does not hold vectors but', relation, vector_column), type,
      'Adoptable types are vector, halfvec, real[] and double precision[].');
  end if;
  execute format('select vector_dims(%1$I::vector) from %2$s where %1$I is not null limit 1', vector_column, dynrec._qualified(relation)) into dimension;
  select coalesce(dimension, nullif(a.atttypmod, -1)) into dimension from pg_attribute a where a.attrelid = relation and a.attname = vector_column;
  if dimension is null then
    perform dynrec._reject(format('vector_column: the dimension of an empty column of %s is unknown', relation), vector_column,
      'Declare it, for example vector(384), or fill the column first.');
  elsif dimension > 2000 then
    perform dynrec._reject(format('vector_column: %s.%s has too many dimensions', relation, vector_column), dimension::text,
      'pgvector indexes 1 to 2000 dimensions.');
  end if;
  return dimension;
end
$$;
comment on function dynrec._adopted_dimension(regclass, text) is 'Internal. The dimension of the vectors that a source holds already.';

create or replace function dynrec._create_partitions(model_id int, dimension int) returns void
language plpgsql
set search_path from current
as $$
declare
  part text;
begin
  foreach part in array array['item_vector', 'user_vector'] loop
    -- create and attach: "partition of" would lock the parent, and with it every reader
    execute format('create table dynrec_data.%1$s_%2$s (like dynrec_data.%1$s including defaults including constraints including storage)', part, model_id);
    execute format('alter table dynrec_data.%1$s_%2$s add primary key (%3$s, model_id)', part, model_id, replace(part, 'vector', 'id'));
    execute format('alter table dynrec_data.%1$s_%2$s add constraint %1$s_%2$s_model check (model_id = %2$s)', part, model_id);
    execute format('alter table dynrec_data.%1$s attach partition dynrec_data.%1$s_%2$s for values in (%2$s)', part, model_id);
  end loop;
  -- as in partitions of before the second column, which nobody reads through to check them again
  execute format('alter table dynrec_data.item_vector_%1$s add constraint item_vector_%1$s_dimension check (num_nonnulls(embedding, half) = 1 and coalesce(vector_dims(embedding), vector_dims(half)) = %2$s) not valid', model_id, dimension);
  -- an HNSW index wants to be rebuilt before its table is vacuumed: dynrec._index_statements does both
  execute format('alter table dynrec_data.item_vector_%s set (autovacuum_enabled = false)', model_id);
  update dynrec_data.model_version m set vector_index = dynrec._wanted_index(r, m), vector_storage = r.options ->> 'vector_storage'
  from dynrec_data.recommender r where r.id = m.recommender_id and m.id = model_id;
  perform dynrec._secure_partitions(model_id);
  perform dynrec._grant_tables();
end
$$;
comment on function dynrec._create_partitions(int, int) is 'Internal. The partitions of a model version; the HNSW index is built after the backfill.';

create or replace function dynrec._create_content_model(recommender_id int, encoder text, dimension int, state text) returns int
language plpgsql
set search_path from current
as $$
declare
  model_id int;
begin
  insert into dynrec_data.model_version (recommender_id, encoder, dimension, state, stored_at)
  values (_create_content_model.recommender_id, _create_content_model.encoder, _create_content_model.dimension, _create_content_model.state, now())
  returning id into model_id;
  perform dynrec._create_partitions(model_id, dimension);
  return model_id;
end
$$;
comment on function dynrec._create_content_model(int, text, int, text) is 'Internal. A model version whose vectors are the encoder''s, with its partitions.';

create or replace function dynrec._estimate(relation regclass) returns bigint
language plpgsql stable
set search_path from current
as $$
declare
  estimate bigint;
begin
  select sum(greatest(c.reltuples, 0))::bigint into estimate from pg_class c
  where c.oid = relation or c.oid in (select p.relid from pg_partition_tree(relation) p where p.isleaf);
  if estimate = 0 then
    execute format('select count(*) from %s', dynrec._qualified(relation)) into estimate;
  end if;
  return estimate;
end
$$;
comment on function dynrec._estimate(regclass) is 'Internal. About how many rows a table has: its statistics, or a count where there are none.';

create or replace function dynrec._declare_items(
  r dynrec_data.recommender, items text, item_key text, text_columns text[], numeric_columns text[], categorical_columns text[], vector_column text)
returns dynrec_data.recommender
language plpgsql
set search_path from current
as $$
begin
  r.items := dynrec._source_relation('items', items);
  perform dynrec._hold_source(r.items);
  r.item_key := dynrec._item_key(r.items, item_key);
  r.item_key_type := dynrec._key_type('item_key', r.items, r.item_key);
  r.text_columns := dynrec._watched_columns('text_columns', r.items, text_columns);
  r.numeric_columns := dynrec._numeric_columns(r.items, numeric_columns);
  r.categorical_columns := dynrec._watched_columns('categorical_columns', r.items, categorical_columns);
  r.vector_column := vector_column;
  if vector_column is null and cardinality(text_columns) + cardinality(categorical_columns) = 0 then
    perform dynrec._reject('neither text_columns, categorical_columns nor a vector_column', '{}', 'Name at least one column that describes an item.');
  end if;
  return r;
end
$$;
comment on function dynrec._declare_items(dynrec_data.recommender, text, text, text[], text[], text[], text) is
  'Internal. The declaration with its item source, validated.';

create or replace function dynrec._declare_interactions(
  r dynrec_data.recommender, interactions text, user_column text, item_column text, time_column text, kind_column text, value_column text)
returns dynrec_data.recommender
language plpgsql
set search_path from current
as $$
begin
  r.interactions := dynrec._source_relation('interactions', interactions);
  perform dynrec._hold_source(r.interactions);
  r.user_column := user_column;
  r.user_key_type := dynrec._key_type('user_column', r.interactions, user_column);
  r.item_column := item_column;
  r.item_ref_type := dynrec._key_type('item_column', r.interactions, item_column);
  r.time_column := time_column;
  if dynrec._time_expression(r.interactions, time_column, 'e') is null then
    perform dynrec._reject(format('time_column: %s.%s is not a time but', r.interactions, time_column),
      dynrec._column_type('time_column', r.interactions, time_column), 'Use a timestamptz, timestamp (taken as UTC) or date column.');
  end if;
  r.kind_column := kind_column;
  if kind_column is not null then
    perform dynrec._column_type('kind_column', r.interactions, kind_column);
  end if;
  r.value_column := value_column;
  if value_column is not null and dynrec._value_expression(r.interactions, value_column, 'e') is null then
    perform dynrec._reject(format('value_column: %s.%s is not a number but', r.interactions, value_column),
      dynrec._column_type('value_column', r.interactions, value_column), 'Use an integer, numeric, real, double precision or boolean column.');
  end if;
  return r;
end
$$;
comment on function dynrec._declare_interactions(dynrec_data.recommender, text, text, text, text, text, text) is
  'Internal. The declaration with its interaction source, validated.';

create or replace function dynrec._store_declaration(r dynrec_data.recommender, kinds jsonb, encoder text, dimension int)
returns dynrec_data.recommender
language plpgsql
set search_path from current
as $$
begin
  select array_agg(distinct k.half_life order by k.half_life) into r.half_lives
  from dynrec._kinds(kinds, r.kind_column, (r.options ->> 'half_life')::interval) k;
  insert into dynrec_data.recommender (name, items, item_key, item_key_type, text_columns, numeric_columns, categorical_columns, vector_column,
    interactions, user_column, user_key_type, item_column, item_ref_type, time_column, kind_column, value_column, half_lives, options)
  values (r.name, r.items, r.item_key, r.item_key_type, r.text_columns, r.numeric_columns, r.categorical_columns, r.vector_column,
    r.interactions, r.user_column, r.user_key_type, r.item_column, r.item_ref_type, r.time_column, r.kind_column, r.value_column, r.half_lives, r.options)
  returning id into r.id;
  insert into dynrec_data.interaction_kind (recommender_id, kind, weight, half_life)
  select r.id, k.kind, k.weight, k.half_life from dynrec._kinds(kinds, r.kind_column, (r.options ->> 'half_life')::interval) k;
  r.active_model_id := dynrec._create_content_model(r.id, encoder, dimension, 'active');
  update dynrec_data.recommender x set active_model_id = r.active_model_id, content_model_id = r.active_model_id where x.id = r.id returning x.* into r;
  insert into dynrec_data.model_activation (recommender_id, activated_at, model_id) values (r.id, clock_timestamp(), r.active_model_id);
  return r;
end
$$;
comment on function dynrec._store_declaration(dynrec_data.recommender, jsonb, text, int) is
  'Internal. Stores a validated declaration with its kinds and its first model version.';

create or replace function dynrec._queue_backfill(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$
  insert into dynrec_data.task (recommender_id, action)
  select r.id, a.action from (values (1, 'scan_items'), (2, 'popularity'), (3, 'scan_users')) a (position, action)
  where a.action = 'scan_items' or r.interactions is not null
  order by a.position
$$;
comment on function dynrec._queue_backfill(dynrec_data.recommender) is 'Internal. Queues everything: all items, then popularity and all users.';

create or replace function dynrec.create_recommender(
  name text, items text, item_key text default null, text_columns text[] default '{}', numeric_columns text[] default '{}',
  categorical_columns text[] default '{}', interactions text default null, user_column text default 'user_id',
  item_column text default 'item_id', time_column text default 'occurred_at', kind_column text default null,
  value_column text default null, kinds jsonb default '{}', encoder text default 'all-MiniLM-L6-v2', vector_column text default null,
  options jsonb default '{}')
returns table (recommender text, model_version int, item_rows bigint, interaction_rows bigint)
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender;
  dimension int;
begin
  if name is null or name !~ '^\S(.{0,61}\S)?$' then
    perform dynrec._reject('name of a recommender', name, 'Give 1 to 63 characters without leading or trailing blanks.');
  end if;
  if exists (select from dynrec_data.recommender x where x.name = create_recommender.name) then
    perform dynrec._reject('a recommender of that name exists', name, 'Change it with dynrec.alter_recommender, or drop it first.');
  end if;
  r.name := name;
  r.options := dynrec._options(options);
  r := dynrec._declare_items(r, items, item_key, text_columns, numeric_columns, categorical_columns, vector_column);
  dimension := case when vector_column is null then dynrec._encoder_dimension(encoder) else dynrec._adopted_dimension(r.items, vector_column) end;
  if interactions is not null then
    r := dynrec._declare_interactions(r, interactions, user_column, item_column, time_column, kind_column, value_column);
  elsif coalesce(kinds, '{}') <> '{}' then
    perform dynrec._reject('kinds: given without interactions', kinds::text, 'Name the interaction table with interactions.');
  end if;
  r := dynrec._store_declaration(r, kinds, case when vector_column is null then encoder end, dimension);
  perform dynrec._check_stream(r);
  perform dynrec._begin_batches(r);
  perform dynrec._generate(r.id);
  perform dynrec._install_triggers(r);
  perform dynrec._ensure_history_partitions();
  perform dynrec._queue_backfill(r);
  perform dynrec._advise_indexes(r) where r.interactions is not null;
  perform dynrec._notify_wake();
  return query select r.name, r.active_model_id, dynrec._estimate(r.items),
    case when r.interactions is null then 0 else dynrec._estimate(r.interactions) end;
end
$$;
comment on function dynrec.create_recommender(text, text, text, text[], text[], text[], text, text, text, text, text, text, jsonb, text, text, jsonb) is
  'Declares a recommender over an item table and, optionally, an interaction table; installs capture and queues the backfill. '
  'items, interactions: schema.table. item_key: a unique, not-null column (default: the primary key) of type smallint, integer, bigint, uuid, text or varchar. '
  'text_columns and categorical_columns, in order, make the text that the encoder sees; numeric_columns and categorical_columns are kept as features. '
  'value_column multiplies an interaction''s weight. kinds: {"purchase": {"weight": 1, "half_life": "30 days"}, "*": {"weight": 0}}. '
  'encoder: a name known to dynrec.register_encoder; vector_column adopts vectors that the item table holds already instead. '
  'options: half_life, exclude_seen, trending_half_life, retention, item_refresh, train_every, measure_every, popularity_epsilon, popularity_bound, text_search_config, max_attempts, capture, batch_every, stream_max_lag_bytes, publish, vector_index, vector_storage, vector_probe. '
  'Returns the name, the model version and about how many rows will be read. Raises invalid_parameter_value naming the bad argument and what would do.';

create or replace function dynrec._advise_indexes(r dynrec_data.recommender) returns void
language plpgsql
set search_path from current
as $$
declare
  column_name text;
begin
  foreach column_name in array array[r.user_column, r.item_column] loop
    if not dynrec._has_index(r.interactions, column_name) then
      raise notice 'no index on % begins with %: reading a user or an item scans the table', r.interactions, column_name
        using hint = format('create index on %s (%I)', dynrec._qualified(r.interactions), column_name);
    end if;
  end loop;
end
$$;
comment on function dynrec._advise_indexes(dynrec_data.recommender) is 'Internal. A notice for each index that the interaction table should have and has not.';

create or replace function dynrec._has_index(relation regclass, column_name text) returns boolean
language sql stable
set search_path from current
as $$
  select exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = relation and a.attname = column_name and i.indisvalid and i.indpred is null)
$$;
comment on function dynrec._has_index(regclass, text) is 'Internal. Whether a complete index begins with that column.';
