-- Training a model version: what a worker reads for it, and storing what came of it.

create or replace function dynrec._training_begins(model int)
returns table (recommender text, recommender_id int, base_model_id int, parent_model_id int, data_until timestamptz, options jsonb, exclude_seen boolean, attempts int)
language plpgsql security definer
set search_path from current
as $$
#variable_conflict use_column
declare
  m dynrec_data.model_version;
begin
  update dynrec_data.model_version v
  set state = 'training', error = null, training_attempts = case v.state when 'training' then v.training_attempts + 1 else 1 end
  where v.id = model and v.kind = 'learned' and v.state in ('staged', 'training', 'failed') returning v.* into m;
  if not found then
    perform dynrec._reject('not a model version that waits for its training', model::text, 'Stage one with dynrec.stage_model.');
  end if;
  return query
    select r.name, r.id, m.base_model_id, m.parent_model_id, m.data_until, m.options, (r.options ->> 'exclude_seen')::boolean, m.training_attempts::int
    from dynrec_data.recommender r where r.id = m.recommender_id;
end
$$;
comment on function dynrec._training_begins(int) is 'Internal. A worker begins to train a staged model (again, if it was killed before); what it has to know. attempts: the trainings in a row that began and did not end, with this one.';

create or replace function dynrec._training_failed(model int, error text) returns void
language sql security definer
set search_path from current
as $$
  update dynrec_data.model_version m set state = 'failed', error = _training_failed.error where m.id = model and m.state in ('staged', 'training')
$$;
comment on function dynrec._training_failed(int, text) is 'Internal. Training gave up.';

create or replace function dynrec._training_interrupted(model int) returns void
language sql security definer
set search_path from current
as $$
  update dynrec_data.model_version m set training_attempts = greatest(m.training_attempts - 1, 0) where m.id = model and m.state = 'training'
$$;
comment on function dynrec._training_interrupted(int) is 'Internal. A training lost its connection: that it did not end does not count against the model.';

create or replace function dynrec._staged_models() returns table (model_id int)
language sql stable security definer
set search_path from current
as $$
  select m.id from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
  where m.kind = 'learned' and m.state in ('staged', 'training') and not r.paused
    -- towers read the content vectors of all items
    and not exists (select from dynrec_data.task t where t.recommender_id = r.id and t.action = 'scan_items')
    and not exists (select from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'item' and c.lane = 1)
    and (m.base_model_id = r.content_model_id or not exists (
      select from dynrec_data.task t where t.recommender_id = r.id and t.action = 'scan_derived'
      union all select from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'derived' and c.lane = 1))
    -- whoever trains one holds its lock
    and not exists (select from pg_locks l where l.locktype = 'advisory' and l.objsubid = 2
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.classid::bigint = (hashtext('dynrec.train')::bigint & 4294967295) and l.objid::bigint = m.id)
  order by m.id
$$;
comment on function dynrec._staged_models() is 'Internal. The models that nobody trains: staged, or left by a worker that was killed.';

create or replace function dynrec._training_interactions(model int)
returns table (user_id text, item_id text, kind text, value double precision, occurred_at timestamptz)
language plpgsql security definer
set search_path from current
as $$
declare
  m dynrec_data.model_version;
begin
  select v.* into strict m from dynrec_data.model_version v where v.id = model;
  perform dynrec._hold_interactions(r) from dynrec_data.recommender r where r.id = m.recommender_id;
  return query execute format('select i.* from dynrec_data.interactions_all_%s() i where i.occurred_at >= $1 and i.occurred_at < $2
      order by i.occurred_at, i.user_id collate "C", i.item_id collate "C", i.kind collate "C", i.value', m.recommender_id)
    using coalesce(m.data_from, '-infinity'), m.data_until;
end
$$;
comment on function dynrec._training_interactions(int) is 'Internal. The interactions that a model learns from, in the order of time; of ties, in one that the table''s own order has no part in, so that training is repeatable.';

create or replace function dynrec._training_unusable(model int) returns table (incomplete bigint, impossible_times bigint, not_finite bigint)
language plpgsql security definer
set search_path from current
as $$
declare
  m dynrec_data.model_version;
begin
  select v.* into strict m from dynrec_data.model_version v where v.id = model;
  perform dynrec._hold_interactions(r) from dynrec_data.recommender r where r.id = m.recommender_id;
  return query execute format('select u.* from dynrec_data.interactions_unusable_%s($1) u', m.recommender_id) using m.data_until;
end
$$;
comment on function dynrec._training_unusable(int) is
  'Internal. How many rows of the interactions _training_interactions does not give: without user or item; with no time, an infinite one, or one after the cut-off. And how many it gives without their value, which is NaN.';

create or replace function dynrec._training_items(model int) returns table (item_id text, embedding vector)
language plpgsql stable security definer
set search_path from current
as $$
begin
  return query select v.item_id, dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector v
    where v.model_id = (select m.base_model_id from dynrec_data.model_version m where m.id = model) order by v.item_id;
end
$$;
comment on function dynrec._training_items(int) is 'Internal. The items of the catalogue with their content vectors, which a model''s towers read.';

create or replace function dynrec._training_items_then(model int, moment timestamptz) returns table (item_id text, embedding vector)
language sql stable security definer
set search_path from current
as $$
  -- the version of that moment is the first of those that were replaced later; before the first one, the first
  select distinct on (h.item_id) h.item_id, dynrec._vector(h.embedding, h.half)
  from dynrec_data.model_version m
  join dynrec_data.item_vector_history h on h.model_id = m.base_model_id and h.replaced_at > moment
  join dynrec_data.item_vector v on v.model_id = h.model_id and v.item_id = h.item_id
  where m.id = model
  order by h.item_id, h.created_at
$$;
comment on function dynrec._training_items_then(int, timestamptz) is
  'Internal. The items of the catalogue whose content vector, which a model''s towers read, was another one at that moment than it is, with that one; before the first that is known, with the first.';

create or replace function dynrec._training_kinds(model int) returns table (kind text, weight double precision)
language sql stable security definer
set search_path from current
as $$
  select k.kind, k.weight from dynrec_data.interaction_kind k join dynrec_data.model_version m on m.recommender_id = k.recommender_id
  where m.id = model order by k.kind
$$;
comment on function dynrec._training_kinds(int) is 'Internal. The declared kinds of interactions with their weights; "*" is every other kind.';

create or replace function dynrec._model_artefacts(model int) returns table (name text, content bytea)
language sql stable security definer
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
    ('content_heads', coalesce((config ->> 'content_heads')::int, 1) between 1 and jsonb_array_length(config -> 'heads') - 1),
    ('gates', jsonb_array_length(config -> 'gates') = jsonb_array_length(config -> 'heads')
      and not exists (select from jsonb_array_elements(config -> 'gates') g where jsonb_array_length(g) <> 25)),
    ('mixture', jsonb_array_length(config -> 'mixture') = 5 and not exists (select from jsonb_array_elements(config -> 'mixture') x where jsonb_array_length(x) <> 25)),
    ('power', jsonb_array_length(config -> 'power') = 5 and not exists (select from jsonb_array_elements(config -> 'power') x where jsonb_array_length(x) <> 25)),
    ('bias_weight, popularity_weight, cold, repeat_base', not exists (
      select from unnest(array['bias_weight', 'popularity_weight', 'cold', 'repeat_base']) k where jsonb_array_length(config -> k) is distinct from 25)),
    ('numbers', not exists (
      select from unnest(array['gates', 'bias_weight', 'popularity_weight', 'mixture', 'power', 'cold', 'repeat_base', 'gap_edges', 'count_edges']) k
        where not pg_input_is_valid(translate((config -> k)::text, '[]', '{}'), 'double precision[]')
      union all
      select from jsonb_array_elements(config -> 'transitions') t where not pg_input_is_valid(translate((t -> 'weights')::text, '[]', '{}'), 'double precision[]'))),
    -- these are written into code as they are
    ('kind_weights', config -> 'kind_weights' ? '*' and not exists (select from jsonb_each(config -> 'kind_weights') w where jsonb_typeof(w.value) <> 'number')),
    ('value', (select count(*) = 3 from jsonb_each(config -> 'value') v where jsonb_typeof(v.value) = 'number' and v.key in ('mean', 'scale', 'slope'))
      and (config #>> '{value,scale}')::double precision > 0),
    ('repeat_count, repeat_recency', jsonb_typeof(config -> 'repeat_count') = 'number' and jsonb_typeof(config -> 'repeat_recency') = 'number'),
    ('gap_edges, count_edges', jsonb_array_length(config -> 'gap_edges') = 4 and jsonb_array_length(config -> 'count_edges') = 4),
    ('transitions', jsonb_typeof(config -> 'transitions') = 'array' and not exists (select from jsonb_array_elements(config -> 'transitions') t
      where not ((t ->> 'decay')::double precision between 0.001 and 1 and (t ->> 'reach')::int > 0 and coalesce(jsonb_typeof(t -> 'by_item'), 'boolean') = 'boolean'
        and jsonb_array_length(t -> 'weights') = 25))),
    ('candidates', (config ->> 'candidates')::int between 1 and 1000),
    ('exploration', (config ->> 'exploration')::double precision between 0 and 1),
    ('exploration_gap', coalesce(jsonb_typeof(config -> 'exploration_gap'), 'null') in ('null', 'number'))) f (what, holds)
  where f.holds is not true limit 1;
  if found then
    perform dynrec._reject('config of a learned model: unusable ' || fault, left(coalesce(config ->> split_part(fault, ',', 1), config::text), 200), 'It is what workers.learning makes; train again.');
  end if;
end
$$;
comment on function dynrec._check_config(jsonb, int) is 'Internal. Whether a config is one that the templates of learned models can be rendered with.';

create or replace function dynrec._store_model(
  model int, dimension int, config jsonb, metrics jsonb, report jsonb, artefact_names text[], artefacts bytea[], transitions jsonb) returns void
language plpgsql security definer
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
  insert into dynrec_data.item_transition (model_id, item_id, pace, next_item_ids, weights)
  select model, t.item_id, t.pace, t.next_item_ids, t.weights
  from jsonb_to_recordset(transitions) as t (item_id text, pace smallint, next_item_ids text[], weights real[]);
  perform dynrec._create_partitions(model, dimension);
  select x.* into r from dynrec_data.recommender x join dynrec_data.model_version m on m.recommender_id = x.id where m.id = model;
  perform dynrec._begin_backfill(r);
end
$$;
comment on function dynrec._store_model(int, int, jsonb, jsonb, jsonb, text[], bytea[], jsonb) is
  'Internal. Stores a trained model with its artefacts and transitions (item_id, pace, next_item_ids, weights), and begins its backfill.';
