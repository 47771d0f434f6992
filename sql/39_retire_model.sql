-- The end of a model version: retired on request, or by itself once nobody waits for it any more.

create or replace function dynrec.retire_model(recommender text, model_version int) returns void
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  m dynrec_data.model_version;
  needed_by int;
  tested_by text;
begin
  -- nobody begins an experiment with it meanwhile
  perform from dynrec_data.recommender x where x.id = r.id for update;
  perform from dynrec_data.model_version x where x.recommender_id = r.id and x.id = model_version for update;
  m := dynrec._model_version(r, model_version);
  if m.state = 'active' or m.id = r.content_model_id then
    perform dynrec._reject('the model version is in use', model_version::text, 'Promote another one first; the content space of a recommender stays.');
  end if;
  select x.id into needed_by from dynrec_data.model_version x where x.base_model_id = m.id and (dynrec._is_live(x) or x.state in ('staged', 'training')) limit 1;
  if found then
    perform dynrec._reject(format('model version %s is made of its vectors', needed_by), model_version::text, format('Retire %s first.', needed_by));
  end if;
  needed_by := dynrec._needed_by_training(m.id);
  if needed_by is not null then
    perform dynrec._reject(format('the training of model version %s goes on from it', needed_by), model_version::text, format('Wait until %s is trained, or retire it first.', needed_by));
  end if;
  tested_by := dynrec._needed_by_experiment(m.id);
  if tested_by is not null then
    perform dynrec._reject(format('experiment %L has an arm of it', tested_by), model_version::text, format('select dynrec.stop_experiment(%L, %L)', recommender, tested_by));
  end if;
  perform dynrec._retire(m);
end
$$;
comment on function dynrec.retire_model(text, int) is
  'Gives up a model version: its partitions and artefacts go at once and its history within minutes, its row stays. Reads as of a moment at which it answered are no longer possible. '
  'Raises lock_not_available after a moment if somebody reads vectors for long, such as in a transaction that is left open: then nothing is changed.';

create or replace function dynrec._retire(m dynrec_data.model_version) returns void
language plpgsql
set search_path from current
as $$
begin
  update dynrec_data.model_version x set state = 'retired' where x.id = m.id;
  delete from dynrec_data.model_artefact a where a.model_id = m.id;
  delete from dynrec_data.item_transition t where t.model_id = m.id;
  delete from dynrec_data.outbox o where o.model_id = m.id;
  delete from dynrec_data.vector_index v where v.model_id = m.id;
  if dynrec._is_live(m) then
    perform dynrec._generate(m.recommender_id);
    perform dynrec._drop_model_functions(m.id);
    perform dynrec._drop_partitions(m.id);
  end if;
end
$$;
comment on function dynrec._retire(dynrec_data.model_version) is
  'Internal. Drops what a model version has and keeps its row; its history is forgotten by dynrec._maintain. Raises lock_not_available, with nothing done, where somebody reads for long.';

-- To drop a partition locks its parent, and with it whoever reads the vectors of all models: reads that come meanwhile wait behind it. So it comes
-- last of all, waits for moments only, and lets through who waited in between. "detach partition … concurrently" would hold up nobody, but runs in
-- no function: who calls it has to own the tables, as workers do not, and killed half-way it leaves a partition that somebody has to finish.
create or replace function dynrec._drop_partitions(model int) returns void
language plpgsql
set search_path from current
set lock_timeout = '300ms'
as $$
begin
  for attempt in 1 .. 3 loop
    begin
      execute format('drop table dynrec_data.item_vector_%1$s, dynrec_data.user_vector_%1$s', model);
      return;
    exception when lock_not_available then
      perform pg_sleep(0.1);
    end;
  end loop;
  raise exception 'model version % cannot be retired while vectors are being read for long', model
    using errcode = 'lock_not_available', hint = 'Try again when the transactions that read them have ended: see pg_stat_activity.';
end
$$;
comment on function dynrec._drop_partitions(int) is
  'Internal. Drops the vectors of a model version. Raises lock_not_available after a second: reads wait behind it for 300 ms at most.';

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

create or replace function dynrec._is_superseded(m dynrec_data.model_version) returns boolean
language plpgsql stable
set search_path from current
as $$
begin
  return m.kind = 'learned' and dynrec._needed_by_experiment(m.id) is null and dynrec._needed_by_training(m.id) is null and case m.state
    when 'standby' then m.id is distinct from (
      select a.model_id from dynrec_data.model_activation a join dynrec_data.recommender r on r.id = a.recommender_id
      where a.recommender_id = m.recommender_id and a.model_id <> r.active_model_id order by a.activated_at desc limit 1)
    when 'shadow' then m.options -> 'promote' = 'true' and exists (
      select from dynrec_data.model_version n
      where n.recommender_id = m.recommender_id and n.id > m.id and n.options -> 'promote' = 'true' and n.state in ('shadow', 'active', 'standby'))
    else false end;
end
$$;
comment on function dynrec._is_superseded(dynrec_data.model_version) is
  'Internal. Whether nobody waits for a learned model version any more: it answered, and another one after it before the active one; or it was to be promoted and lost, '
  'and a newer one that was to be promoted is complete. One that was staged without promote is never superseded in the shadow, and none that an experiment or a training needs.';

create or replace function dynrec._needed_by_training(model int) returns int
language sql stable
set search_path from current
as $$
  select min(m.id) from dynrec_data.model_version m where m.parent_model_id = model and m.state in ('staged', 'training')
$$;
comment on function dynrec._needed_by_training(int) is 'Internal. A model version whose training is to go on from this one; null if there is none.';

create or replace function dynrec._retire_superseded(t dynrec_data.task) returns bigint
language plpgsql
set search_path from current
as $$
begin
  -- nobody begins an experiment with it meanwhile
  perform from dynrec_data.recommender r where r.id = t.recommender_id for update;
  perform dynrec._retire(m) from dynrec_data.model_version m where m.id = t.entity::int and dynrec._is_superseded(m);
  return 1;
exception when lock_not_available then
  insert into dynrec_data.task (recommender_id, action, entity, captured_at)
  values (t.recommender_id, t.action, t.entity, clock_timestamp() + interval '10 seconds');
  return 0;
end
$$;
comment on function dynrec._retire_superseded(dynrec_data.task) is
  'Internal. Retires the model version of a task unless it is needed again; where somebody reads for long nothing is done, and the task is put off by ten seconds. How many it did.';
