-- The life of a model version begins: staging a learned one, or another encoder, and the backfill.

create or replace function dynrec.stage_model(
  recommender text, encoder text default null, options jsonb default '{}', continue_active boolean default false, base_model int default null) returns int
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  parent int;
  space int;
  staged int;
begin
  -- no model is promoted or retired meanwhile
  select x.* into r from dynrec_data.recommender x where x.id = r.id for key share;
  if jsonb_typeof(coalesce(options, '{}')) <> 'object' then
    perform dynrec._reject('options: not a JSON object', options::text, 'Give for example {"seed": 1}.');
  end if;
  if base_model is not null and (continue_active or encoder is not null) then
    perform dynrec._reject('base_model names what a model that is trained afresh is made of', base_model::text, 'Leave out encoder and continue_active, or base_model.');
  end if;
  if encoder is not null then
    return dynrec._stage_encoder(r, encoder);
  end if;
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions has nothing to learn from', recommender, 'Declare interactions, or stage another encoder.');
  end if;
  if continue_active then
    select m.id, m.base_model_id into parent, space from dynrec_data.model_version m where m.id = r.active_model_id and m.kind = 'learned';
    if not found then
      perform dynrec._reject(format('continue_active: the active model version %s is not a learned one', r.active_model_id), 'true', 'Train a model and promote it first.');
    end if;
  end if;
  space := coalesce(space, dynrec._content_space(r, coalesce(base_model, r.content_model_id)));
  insert into dynrec_data.model_version (recommender_id, kind, dimension, state, encoder, base_model_id, parent_model_id, data_until, options)
  select r.id, 'learned', 0, 'staged', b.encoder, b.id, parent, dynrec._now(), coalesce(stage_model.options, '{}')
  from dynrec_data.model_version b where b.id = space
  returning id into staged;
  return staged;
end
$$;
comment on function dynrec.stage_model(text, text, jsonb, boolean, int) is
  'Begins a model version and returns its number: a learned one, to be trained by `dynrec train` on the interactions up to now, or, with encoder, another content space, whose '
  'backfill begins at once. continue_active: training goes on from the active model. base_model: the content space whose vectors a learned model is made of, by default the '
  'one in use; one in the shadow is promoted with it. options: hyper-parameters of training, features (how missing values are made up and numbers scaled), promote (true: as soon as it is complete; one that goes on from the active model, unless it loses against that). The recommender goes on answering as before until dynrec.promote_model.';

create or replace function dynrec._content_space(r dynrec_data.recommender, model_version int) returns int
language plpgsql
set search_path from current
as $$
#variable_conflict use_variable
declare
  m dynrec_data.model_version;
begin
  select x.* into m from dynrec_data.model_version x where x.recommender_id = r.id and x.id = model_version;
  if m.id is null then
    perform dynrec._reject('no such model version', model_version::text, format('There are: %s.',
      (select string_agg(x.id::text, ', ' order by x.id) from dynrec_data.model_version x where x.recommender_id = r.id)));
  elsif m.kind <> 'content' then
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
