-- The life of a model version begins: staging a learned one, or another encoder, and the backfill.

create or replace function dynrec.stage_model(
  recommender text, encoder text default null, options jsonb default '{}', continue_active boolean default false) returns int
language plpgsql security definer
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
  'backfill begins at once. continue_active: training goes on from the active model. options: hyper-parameters of training, features (how missing values are made up and numbers scaled), promote (true: as soon as it is complete; one that goes on from the active model, unless it loses against that). The recommender goes on answering as before until dynrec.promote_model.';

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
