-- The life of a model version: stage, train, backfill, shadow, promote, roll back, retire.

create or replace function dynrec.stage_model(
  recommender text, encoder text default null, options jsonb default '{}', continue_active boolean default false) returns int
language plpgsql
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  parent int;
  staged int;
begin
  if jsonb_typeof(coalesce(options, '{}')) <> 'object' then
    perform dynrec._reject('options: not a JSON object', options::text, 'Give for example {"seed": 1}.');
  end if;
  if encoder is not null then
    return dynrec._stage_encoder(r, encoder);
  end if;
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions has nothing to learn from', recommender, 'Declare interactions, or stage another encoder.');
  end if;
  if continue_active then
    select m.id into parent from dynrec_data.model_version m where m.id = r.active_model_id and m.kind = 'learned';
    if not found then
      perform dynrec._reject(format('continue_active: the active model version %s is not a learned one', r.active_model_id), 'true', 'Train a model and promote it first.');
    end if;
  end if;
  insert into dynrec_data.model_version (recommender_id, kind, dimension, state, encoder, base_model_id, parent_model_id, data_until, options)
  select r.id, 'learned', 0, 'staged', b.encoder, b.id, parent, dynrec._now(), coalesce(stage_model.options, '{}')
  from dynrec_data.model_version b
  where b.id = coalesce((select p.base_model_id from dynrec_data.model_version p where p.id = parent), r.content_model_id)
  returning id into staged;
  return staged;
end
$$;
comment on function dynrec.stage_model(text, text, jsonb, boolean) is
  'Begins a model version and returns its number: a learned one, to be trained by `dynrec train` on the interactions up to now, or, with encoder, another content space, whose '
  'backfill begins at once. continue_active: training goes on from the active model. options: hyper-parameters of training, features (how missing values are made up and numbers scaled), promote (true: as soon as it is complete, unless it loses). The recommender goes on answering as before until dynrec.promote_model.';

create or replace function dynrec._stage_encoder(r dynrec_data.recommender, encoder text) returns int
language plpgsql
set search_path from current
as $$
declare
  staged int;
begin
  if cardinality(r.text_columns) + cardinality(r.categorical_columns) = 0 then
    perform dynrec._reject('the recommender has no columns to encode', r.name, 'Add text_columns with dynrec.alter_recommender first.');
  end if;
  select m.id into staged from dynrec_data.model_version m
  where m.recommender_id = r.id and m.kind = 'content' and m.encoder = _stage_encoder.encoder and dynrec._is_live(m);
  if found then
    perform dynrec._reject(format('model version %s has that encoder already', staged), encoder, format('select dynrec.promote_model(%L, %s)', r.name, staged));
  end if;
  staged := dynrec._create_content_model(r.id, encoder, dynrec._encoder_dimension(encoder), 'backfilling');
  perform dynrec._begin_backfill(r, staged);
  return staged;
end
$$;
comment on function dynrec._stage_encoder(dynrec_data.recommender, text) is 'Internal. A content model with another encoder, and its backfill.';

create or replace function dynrec._begin_backfill(r dynrec_data.recommender, model int) returns void
language plpgsql
set search_path from current
as $$
begin
  perform dynrec._generate(r.id);
  insert into dynrec_data.task (recommender_id, action)
  select r.id, a.action from (values (1, 'scan_derived'), (2, 'popularity'), (3, 'fill_users')) a (position, action)
  where a.action = 'scan_derived' or r.interactions is not null
  order by a.position;
  perform dynrec._notify_wake();
end
$$;
comment on function dynrec._begin_backfill(dynrec_data.recommender, int) is
  'Internal. From now on the model''s vectors are kept up to date; those of all items and users are queued behind live changes.';

create or replace function dynrec._training_begins(model int)
returns table (recommender text, recommender_id int, base_model_id int, parent_model_id int, data_until timestamptz, options jsonb, exclude_seen boolean)
language plpgsql
set search_path from current
as $$
#variable_conflict use_column
declare
  m dynrec_data.model_version;
begin
  update dynrec_data.model_version v set state = 'training', error = null
  where v.id = model and v.kind = 'learned' and v.state in ('staged', 'training', 'failed') returning v.* into m;
  if not found then
    perform dynrec._reject('not a model version that waits for its training', model::text, 'Stage one with dynrec.stage_model.');
  end if;
  return query
    select r.name, r.id, m.base_model_id, m.parent_model_id, m.data_until, m.options, (r.options ->> 'exclude_seen')::boolean
    from dynrec_data.recommender r where r.id = m.recommender_id;
end
$$;
comment on function dynrec._training_begins(int) is 'Internal. A worker begins to train a staged model (again, if it was killed before); what it has to know.';

create or replace function dynrec._training_failed(model int, error text) returns void
language sql
set search_path from current
as $$
  update dynrec_data.model_version m set state = 'failed', error = _training_failed.error where m.id = model and m.state in ('staged', 'training')
$$;
comment on function dynrec._training_failed(int, text) is 'Internal. Training gave up; dynrec train can try the model again.';

create or replace function dynrec._staged_models() returns table (model_id int)
language sql stable
set search_path from current
as $$
  select m.id from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
  where m.kind = 'learned' and m.state in ('staged', 'training') and not r.paused
    -- towers read the content vectors of all items
    and not exists (select from dynrec_data.task t where t.recommender_id = r.id and t.action = 'scan_items')
    and not exists (select from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'item' and c.lane = 1)
    -- whoever trains one holds its lock
    and not exists (select from pg_locks l where l.locktype = 'advisory' and l.objsubid = 2
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.classid::bigint = (hashtext('dynrec.train')::bigint & 4294967295) and l.objid::bigint = m.id)
  order by m.id
$$;
comment on function dynrec._staged_models() is 'Internal. The models that nobody trains: staged, or left by a worker that was killed.';

create or replace function dynrec._training_interactions(model int)
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language plpgsql stable
set search_path from current
as $$
declare
  m dynrec_data.model_version;
begin
  select v.* into strict m from dynrec_data.model_version v where v.id = model;
  return query execute format('select i.* from dynrec_data.interactions_all_%s() i where i.occurred_at >= $1 and i.occurred_at < $2 order by i.occurred_at', m.recommender_id)
    using coalesce(m.data_from, '-infinity'), m.data_until;
end
$$;
comment on function dynrec._training_interactions(int) is 'Internal. The interactions that a model learns from, in the order of time.';

create or replace function dynrec._training_items(model int) returns table (item_id text, embedding vector)
language plpgsql stable
set search_path from current
as $$
begin
  return query select v.item_id, v.embedding from dynrec_data.item_vector v
    where v.model_id = (select m.base_model_id from dynrec_data.model_version m where m.id = model) order by v.item_id;
end
$$;
comment on function dynrec._training_items(int) is 'Internal. The items of the catalogue with their content vectors, which a model''s towers read.';

create or replace function dynrec._training_kinds(model int) returns table (kind text, weight double precision)
language sql stable
set search_path from current
as $$
  select k.kind, k.weight from dynrec_data.interaction_kind k join dynrec_data.model_version m on m.recommender_id = k.recommender_id
  where m.id = model order by k.kind
$$;
comment on function dynrec._training_kinds(int) is 'Internal. The declared kinds of interactions with their weights; "*" is every other kind.';

create or replace function dynrec._model_artefacts(model int) returns table (name text, content bytea)
language sql stable
set search_path from current
as $$ select a.name, a.content from dynrec_data.model_artefact a where a.model_id = model order by a.name $$;
comment on function dynrec._model_artefacts(int) is 'Internal. The files of a trained model: safetensors, skops, JSON.';

create or replace function dynrec._check_config(config jsonb, dimension int) returns void
language plpgsql immutable
set search_path from current
as $$
declare
  fault text;
begin
  select f.what into fault from (values
    ('dimension', (config ->> 'learned')::int + (config ->> 'content')::int + 1 = dimension and dimension between 3 and 2000),
    ('heads', jsonb_array_length(config -> 'heads') between 2 and 10
      and not exists (select from jsonb_array_elements(config -> 'heads') h where not (h ->> 'decay')::double precision between 0.001 and 1)),
    ('gates', jsonb_array_length(config -> 'gates') = jsonb_array_length(config -> 'heads')
      and not exists (select from jsonb_array_elements(config -> 'gates') g where jsonb_array_length(g) <> 25)),
    ('mixture', jsonb_array_length(config -> 'mixture') = 5 and not exists (select from jsonb_array_elements(config -> 'mixture') x where jsonb_array_length(x) <> 25)),
    ('bias_weight, popularity_weight, cold, repeat_base', not exists (
      select from unnest(array['bias_weight', 'popularity_weight', 'cold', 'repeat_base']) k where jsonb_array_length(config -> k) is distinct from 25)),
    ('kind_weights', config -> 'kind_weights' ? '*'),
    ('value', (config #>> '{value,scale}')::double precision > 0 and config #>> '{value,mean}' is not null and config #>> '{value,slope}' is not null),
    ('gap_edges, count_edges', jsonb_array_length(config -> 'gap_edges') = 4 and jsonb_array_length(config -> 'count_edges') = 4),
    ('candidates', (config ->> 'candidates')::int between 1 and 1000),
    ('exploration', (config ->> 'exploration')::double precision between 0 and 1)) f (what, holds)
  where f.holds is not true limit 1;
  if found then
    perform dynrec._reject('config of a learned model: unusable ' || fault, left(config ->> split_part(fault, ',', 1), 200), 'It is what workers.learning makes; train again.');
  end if;
end
$$;
comment on function dynrec._check_config(jsonb, int) is 'Internal. Whether a config is one that the templates of learned models can be rendered with.';

create or replace function dynrec._store_model(
  model int, dimension int, config jsonb, metrics jsonb, report jsonb, artefact_names text[], artefacts bytea[]) returns void
language plpgsql
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender;
begin
  perform dynrec._check_config(config, dimension);
  update dynrec_data.model_version m
  set state = 'backfilling', dimension = _store_model.dimension, config = _store_model.config, metrics = _store_model.metrics, report = _store_model.report,
    stored_at = clock_timestamp(), refreshed_at = clock_timestamp()
  where m.id = model and m.state = 'training';
  if not found then
    perform dynrec._reject('not a model version in training', model::text, 'Another worker has stored or dropped it.');
  end if;
  insert into dynrec_data.model_artefact (model_id, name, content) select model, a.name, a.content from unnest(artefact_names, artefacts) as a (name, content);
  perform dynrec._create_partitions(model, dimension);
  select x.* into r from dynrec_data.recommender x join dynrec_data.model_version m on m.recommender_id = x.id where m.id = model;
  perform dynrec._begin_backfill(r, model);
end
$$;
comment on function dynrec._store_model(int, int, jsonb, jsonb, jsonb, text[], bytea[]) is
  'Internal. Stores a trained model with its artefacts and begins its backfill.';

create or replace function dynrec._finish_backfills() returns bigint
language plpgsql
set search_path from current
as $$
declare
  finished bigint;
begin
  update dynrec_data.model_version m set state = 'shadow'
  where m.state = 'backfilling'
    and not exists (select from dynrec_data.task t where t.recommender_id = m.recommender_id and t.action in ('scan_derived', 'fill_users', 'popularity'))
    and not exists (select from dynrec_data.change c where c.recommender_id = m.recommender_id and c.kind in ('derived', 'user') and c.lane = 1)
    and not exists (select from dynrec_data.lease l where l.recommender_id = m.recommender_id and l.kind in ('derived', 'user') and l.lane = 1)
    and (dynrec._has_vector_index(m.id) or not exists (select from dynrec_data.item_vector v where v.model_id = m.id));
  get diagnostics finished = row_count;
  perform dynrec.promote_model(r.name, m.id)
  from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
  where m.state = 'shadow' and m.options -> 'promote' = 'true' and m.id > r.active_model_id and not dynrec._loses(m);
  return finished;
end
$$;
comment on function dynrec._finish_backfills() is
  'Internal. Model versions whose items and users are all there, with their index, answer in the shadow from now on; those that were to be promoted are, unless they lost.';

create or replace function dynrec._has_vector_index(model int) returns boolean
language sql stable
set search_path from current
as $$
  select exists (select from pg_class c join pg_index i on i.indexrelid = c.oid
    where c.relname = format('item_vector_%s_hnsw', model) and c.relnamespace = 'dynrec_data'::regnamespace and i.indisvalid)
$$;
comment on function dynrec._has_vector_index(int) is 'Internal. Whether the HNSW index of a model version stands.';

create or replace function dynrec._loses(m dynrec_data.model_version) returns boolean
language sql immutable
set search_path from current
as $$
  select coalesce((m.metrics #>> '{active,ndcg_at_10}')::double precision > (m.metrics ->> 'ndcg_at_10')::double precision, false)
$$;
comment on function dynrec._loses(dynrec_data.model_version) is
  'Internal. Whether a model foresaw the newest period worse than the model that was active when it was trained.';

create or replace function dynrec.promote_model(recommender text, model_version int default null, force boolean default false) returns int
language plpgsql
set search_path from current
set lock_timeout = '10s'
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  m dynrec_data.model_version;
begin
  select x.* into r from dynrec_data.recommender x where x.id = r.id for update;
  select x.* into m from dynrec_data.model_version x
  where x.recommender_id = r.id and case when model_version is null then x.state = 'shadow' else x.id = model_version end
  order by x.id desc limit 1;
  if m.id is null then
    perform dynrec._reject('no model version to promote', model_version::text, format(
      'Stage and train one: dynrec train %s. There are: %s.', quote_literal(recommender),
      (select string_agg(format('%s (%s)', x.id, x.state), ', ' order by x.id) from dynrec_data.model_version x where x.recommender_id = r.id)));
  elsif m.state = 'active' then
    return m.id;
  elsif m.state not in ('shadow', 'standby') then
    perform dynrec._reject(format('model version %s cannot answer yet or any more: it is %s', m.id, m.state), m.id::text,
      case m.state when 'backfilling' then 'Wait for its backfill: see dynrec.model_versions.' else 'Train another one: dynrec train.' end);
  elsif not force and dynrec._loses(m) then
    perform dynrec._reject(format('model version %s loses against the active one on the newest period: nDCG@10 %s against %s',
      m.id, m.metrics ->> 'ndcg_at_10', m.metrics #>> '{active,ndcg_at_10}'), m.id::text, 'Train with more data, or promote it all the same with force => true.');
  end if;
  perform dynrec._activate(r, m);
  return m.id;
end
$$;
comment on function dynrec.promote_model(text, int, boolean) is
  'Lets a model version answer (default: the newest in the shadow): items and users switch with the commit, nobody sees two spaces mixed. The one before stays up to date on standby. '
  'Returns the number. Raises invalid_parameter_value if its backfill is not done, or if it lost against the active one in training and force is not given.';

create or replace function dynrec._activate(r dynrec_data.recommender, m dynrec_data.model_version) returns void
language plpgsql
set search_path from current
as $$
begin
  update dynrec_data.model_version x set state = 'standby' where x.id = r.active_model_id;
  update dynrec_data.model_version x set state = 'active' where x.id = m.id;
  update dynrec_data.recommender x
  set active_model_id = m.id, content_model_id = case m.kind when 'content' then m.id else x.content_model_id end where x.id = r.id;
  insert into dynrec_data.model_activation (recommender_id, activated_at, model_id) values (r.id, clock_timestamp(), m.id);
  if m.kind = 'content' and m.id <> r.content_model_id then
    -- changes of items are encoded by it first from now on; what was encoded for the other is given up, and claimed again
    delete from dynrec_data.lease l where l.recommender_id = r.id and l.kind in ('item', 'derived');
    perform dynrec._generate(r.id);
  end if;
  -- of the models before, the last can be rolled back to; content spaces may be bases of others
  insert into dynrec_data.task (recommender_id, action, entity)
  select r.id, 'retire', x.id::text from dynrec_data.model_version x
  where x.recommender_id = r.id and x.kind = 'learned' and x.state = 'standby' and x.id <> r.active_model_id;
end
$$;
comment on function dynrec._activate(dynrec_data.recommender, dynrec_data.model_version) is 'Internal. Switches a recommender to a model version.';

create or replace function dynrec.rollback_model(recommender text) returns int
language plpgsql
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  m dynrec_data.model_version;
begin
  select x.* into r from dynrec_data.recommender x where x.id = r.id for update;
  select x.* into m from dynrec_data.model_activation a join dynrec_data.model_version x on x.id = a.model_id
  where a.recommender_id = r.id and x.state = 'standby' order by a.activated_at desc limit 1;
  if m.id is null then
    perform dynrec._reject('no model version to go back to', recommender, 'Only one that answered before and is on standby can: see dynrec.model_versions.');
  end if;
  perform dynrec._activate(r, m);
  return m.id;
end
$$;
comment on function dynrec.rollback_model(text) is
  'Goes back to the model version that answered before, at once: it has been kept up to date. Returns its number.';

create or replace function dynrec.retire_model(recommender text, model_version int) returns void
language plpgsql
set search_path from current
set lock_timeout = '10s'
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  m dynrec_data.model_version;
  needed_by int;
begin
  select x.* into m from dynrec_data.model_version x where x.recommender_id = r.id and x.id = model_version for update;
  if m.id is null then
    perform dynrec._reject('no such model version', model_version::text, format('There are: %s.',
      (select string_agg(x.id::text, ', ' order by x.id) from dynrec_data.model_version x where x.recommender_id = r.id)));
  elsif m.state = 'active' or m.id = r.content_model_id then
    perform dynrec._reject('the model version is in use', model_version::text, 'Promote another one first; the content space of a recommender stays.');
  end if;
  select x.id into needed_by from dynrec_data.model_version x where x.base_model_id = m.id and (dynrec._is_live(x) or x.state in ('staged', 'training')) limit 1;
  if found then
    perform dynrec._reject(format('model version %s is made of its vectors', needed_by), model_version::text, format('Retire %s first.', needed_by));
  end if;
  perform dynrec._retire(m);
end
$$;
comment on function dynrec.retire_model(text, int) is
  'Gives up a model version: its partitions, history and artefacts go, its row stays. Reads as of a moment at which it answered are no longer possible.';

create or replace function dynrec._retire(m dynrec_data.model_version) returns void
language plpgsql
set search_path from current
as $$
begin
  update dynrec_data.model_version x set state = 'retired' where x.id = m.id;
  delete from dynrec_data.model_artefact a where a.model_id = m.id;
  if dynrec._is_live(m) then
    perform dynrec._generate(m.recommender_id);
    perform dynrec._drop_model_functions(m.id);
    execute format('drop table dynrec_data.item_vector_%1$s, dynrec_data.user_vector_%1$s', m.id);
    delete from dynrec_data.item_vector_history h where h.model_id = m.id;
    delete from dynrec_data.user_vector_history h where h.model_id = m.id;
  end if;
end
$$;
comment on function dynrec._retire(dynrec_data.model_version) is 'Internal. Drops what a model version has and keeps its row.';

create or replace function dynrec._drop_model_functions(model int) returns void
language plpgsql
set search_path from current
as $$
declare
  generated regprocedure;
begin
  for generated in
    select p.oid::regprocedure from pg_proc p where p.pronamespace = 'dynrec_data'::regnamespace and p.proname ~ format('_m%s$', model)
  loop
    execute format('drop function %s', generated);
  end loop;
end
$$;
comment on function dynrec._drop_model_functions(int) is 'Internal. Drops the generated functions of a model version.';

create or replace function dynrec._answering(r dynrec_data.recommender, as_of timestamptz, model_version int) returns dynrec_data.recommender
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  m dynrec_data.model_version;
begin
  if model_version is null and as_of is null then
    return r;
  end if;
  select x.* into m from dynrec_data.model_version x
  where x.recommender_id = r.id and x.id = coalesce(model_version, (
    select a.model_id from dynrec_data.model_activation a where a.recommender_id = r.id and a.activated_at <= as_of order by a.activated_at desc limit 1), r.active_model_id);
  if m.id is null then
    perform dynrec._reject('no such model version', model_version::text, format('There are: %s.',
      (select string_agg(x.id::text, ', ' order by x.id) from dynrec_data.model_version x where x.recommender_id = r.id)));
  elsif m.state not in ('shadow', 'active', 'standby') then
    perform dynrec._reject(format('model version %s has no vectors to answer with: it is %s', m.id, m.state), m.id::text,
      'Choose one that is active, on standby or in the shadow: see dynrec.model_versions.');
  end if;
  r.active_model_id := m.id;
  return r;
end
$$;
comment on function dynrec._answering(dynrec_data.recommender, timestamptz, int) is
  'Internal. The recommender as it answers by a model version: the one given, the one that answered at as_of, or the active one.';
