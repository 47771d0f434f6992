-- The life of a model version begins: staging a learned one, or another encoder, and the backfill.

create or replace function dynrec._training_options() returns text[]
language sql immutable
as $$
  -- those of workers.learning.settings, which knows their ranges, and two more
  select array['features', 'promote',
    'averaging', 'batch', 'candidates', 'category_task', 'companions', 'content', 'content_decays', 'continued_epochs', 'decays', 'dropout', 'ease_items',
    'ease_penalty', 'epochs', 'examples', 'exploration', 'fewest_examples', 'fewest_interactions', 'full_softmax', 'history_dropout', 'identity_dropout',
    'learned', 'negatives', 'numbers_rank', 'older', 'patience', 'pull', 'rate', 'recency', 'recent', 'seed', 'snapshots', 'transition_decays',
    'transition_examples', 'transition_items', 'transition_neighbours', 'transition_penalty', 'validated', 'validation', 'value_task']
$$;
comment on function dynrec._training_options() is 'Internal. The names of the options of dynrec.stage_model.';

create or replace function dynrec._check_training_options(options jsonb) returns void
language plpgsql immutable
set search_path from current
as $$
declare
  unknown text;
begin
  if jsonb_typeof(options) <> 'object' then
    perform dynrec._reject('options: not a JSON object', options::text, 'Give for example {"seed": 1}.');
  end if;
  select k into unknown from jsonb_object_keys(options) k where k <> all (dynrec._training_options()) order by k limit 1;
  if found then
    perform dynrec._reject('options: there is no training option of that name', unknown,
      'Options are: ' || (select string_agg(o, ', ' order by o) from unnest(dynrec._training_options()) o) || '.');
  end if;
  if jsonb_typeof(options -> 'promote') <> 'boolean' then
    perform dynrec._reject('options.promote: not a boolean', options ->> 'promote', 'Give true or false.');
  end if;
end
$$;
comment on function dynrec._check_training_options(jsonb) is
  'Internal. An error for options of training that do not exist, or that SQL reads and cannot use; workers look at the values of the others before they train.';

create or replace function dynrec._check_continued(parent dynrec_data.model_version, options jsonb) returns void
language plpgsql immutable
set search_path from current
as $$
declare
  changed record;
begin
  if options ? 'features' then
    perform dynrec._reject(format('options.features: training goes on from model version %s, and its features are made as before', parent.id), options ->> 'features',
      'Leave features out, or train anew, without continue_active.');
  end if;
  -- workers compare what is not in a config
  select o.name, o.given, o.known into changed from (
    select k.name, options -> k.name as given, case
      when k.name in ('learned', 'content') then parent.config -> k.name
      else (select jsonb_agg(h.value -> 'decay' order by h.position) from jsonb_array_elements(parent.config -> 'heads') with ordinality h (value, position)
        where (h.position > jsonb_array_length(parent.config -> 'heads') - coalesce((parent.config ->> 'content_heads')::int, 1)) = (k.name = 'content_decays')) end as known
    from unnest(array['learned', 'content', 'decays', 'content_decays']) k (name)) o
  where o.given <> o.known limit 1;
  if found then
    perform dynrec._reject(format('options.%s: training goes on from model version %s, which was made with %s', changed.name, parent.id, changed.known), changed.given::text,
      format('Leave %s out, or train anew, without continue_active.', changed.name));
  end if;
end
$$;
comment on function dynrec._check_continued(dynrec_data.model_version, jsonb) is 'Internal. An error for options that would make another model than the one that training goes on from.';

create or replace function dynrec.stage_model(
  recommender text, encoder text default null, options jsonb default '{}', continue_active boolean default false, base_model int default null) returns int
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  parent dynrec_data.model_version;
  space int;
  staged int;
begin
  -- no model is promoted or retired meanwhile
  select x.* into r from dynrec_data.recommender x where x.id = r.id for key share;
  options := coalesce(options, '{}');
  perform dynrec._check_training_options(options);
  if base_model is not null and (continue_active or encoder is not null) then
    perform dynrec._reject('base_model names what a model that is trained afresh is made of', base_model::text, 'Leave out encoder and continue_active, or base_model.');
  end if;
  if encoder is not null then
    if continue_active or options <> '{}' then
      perform dynrec._reject('an encoder is not trained: continue_active and options mean nothing for it',
        case when continue_active then 'true' else options::text end, 'Leave them out, and promote it with dynrec.promote_model.');
    end if;
    return dynrec._stage_encoder(r, encoder);
  end if;
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions has nothing to learn from', recommender, 'Declare interactions, or stage another encoder.');
  end if;
  if continue_active then
    select m.* into parent from dynrec_data.model_version m where m.id = r.active_model_id and m.kind = 'learned';
    if not found then
      perform dynrec._reject(format('continue_active: the active model version %s is not a learned one', r.active_model_id), 'true', 'Train a model and promote it first.');
    end if;
    perform dynrec._check_continued(parent, options);
  end if;
  space := coalesce(parent.base_model_id, dynrec._content_space(r, coalesce(base_model, r.content_model_id)));
  insert into dynrec_data.model_version (recommender_id, kind, dimension, state, encoder, base_model_id, parent_model_id, data_until, options)
  select r.id, 'learned', 0, 'staged', b.encoder, b.id, parent.id, dynrec._now(), stage_model.options
  from dynrec_data.model_version b where b.id = space
  returning id into staged;
  return staged;
end
$$;
comment on function dynrec.stage_model(text, text, jsonb, boolean, int) is
  'Begins a model version and returns its number: a learned one, to be trained by `dynrec train` on the interactions up to now, or, with encoder, another content space, whose '
  'backfill begins at once. continue_active: training goes on from the active model. base_model: the content space whose vectors a learned model is made of, by default the '
  'one in use; one in the shadow is promoted with it. options, of a learned one: hyper-parameters of training, features (how missing values are made up and numbers scaled), promote (true: as soon as it is complete; one that goes on from the active model, unless it loses against that); '
  'one that goes on takes what it leaves out from the active model, and can change neither its size and decays nor its features. The recommender goes on answering as before until dynrec.promote_model.';

create or replace function dynrec._content_space(r dynrec_data.recommender, model_version int) returns int
language plpgsql
set search_path from current
as $$
#variable_conflict use_variable
declare
  m dynrec_data.model_version := dynrec._model_version(r, model_version);
begin
  if m.kind <> 'content' then
    perform dynrec._reject(format('model version %s is a learned one', m.id), m.id::text, 'Models are made of the vectors of an encoder: see kind and base_model in dynrec.model_versions.');
  elsif m.state not in ('shadow', 'active', 'standby') then
    perform dynrec._reject(format('model version %s has no vectors to learn from: it is %s', m.id, m.state), m.id::text,
      case m.state when 'backfilling' then 'Wait for its backfill: see dynrec.model_versions.' else 'Stage its encoder again.' end);
  end if;
  return m.id;
end
$$;
comment on function dynrec._content_space(dynrec_data.recommender, int) is
  'Internal. The model version given, if it is a complete content space of the recommender; an error otherwise.';

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
  perform dynrec._begin_backfill(r);
  return staged;
end
$$;
comment on function dynrec._stage_encoder(dynrec_data.recommender, text) is 'Internal. A content model with another encoder, and its backfill.';

create or replace function dynrec._begin_backfill(r dynrec_data.recommender) returns void
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
comment on function dynrec._begin_backfill(dynrec_data.recommender) is
  'Internal. From now on the model''s vectors are kept up to date; those of all items and users are queued behind live changes.';
