-- The life of a model version goes on: complete in the shadow, promoted, rolled back, retired; and which one answers a read.

create or replace function dynrec._finish_backfills() returns bigint
language plpgsql security definer
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
  where m.state = 'shadow' and m.options -> 'promote' = 'true' and m.id > r.active_model_id and not dynrec._loses(m)
    -- one that goes on from another was compared with that one
    and coalesce(m.parent_model_id = r.active_model_id, true)
    -- nobody asked to go back to an encoder that was left since
    and exists (select from dynrec_data.model_version b where b.id = m.base_model_id and (b.id = r.content_model_id or b.state = 'shadow'))
  order by m.id;
  insert into dynrec_data.task (recommender_id, action, entity)
  select m.recommender_id, 'retire', m.id::text from dynrec_data.model_version m
  where m.state in ('shadow', 'standby') and dynrec._is_superseded(m) and not exists (
    select from dynrec_data.task t where t.recommender_id = m.recommender_id and t.action = 'retire' and t.entity = m.id::text);
  return finished;
end
$$;
comment on function dynrec._finish_backfills() is
  'Internal. Model versions whose items and users are all there, with their index, answer in the shadow from now on; those that were to be promoted are, unless they lost, '
  'or go on from a model that no longer answers. Of those that lost the newest stays; what an experiment or a training needed goes once they have ended.';

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

create or replace function dynrec._has_vector_index(model int) returns boolean
language sql stable
set search_path from current
as $$
  select coalesce((select dynrec._index_stands(m.id, m.vector_index) from dynrec_data.model_version m where m.id = model), false)
$$;
comment on function dynrec._has_vector_index(int) is 'Internal. Whether the HNSW index that the reads of a model version use stands.';

create or replace function dynrec._loses(m dynrec_data.model_version) returns boolean
language sql immutable
set search_path from current
as $$
  select m.parent_model_id is not null
    and coalesce((m.metrics #>> '{active,ndcg_at_10}')::double precision > (m.metrics ->> 'ndcg_at_10')::double precision, true)
$$;
comment on function dynrec._loses(dynrec_data.model_version) is
  'Internal. Whether a model that goes on from another foresaw the newest period worse than that one, or had too little of it to be compared with.';

create or replace function dynrec.promote_model(recommender text, model_version int default null, force boolean default false) returns int
language plpgsql security definer
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
    perform dynrec._reject(
      case when m.metrics ? 'active'
        then format('model version %s loses against %s, which it goes on from, on the newest period: nDCG@10 %s against %s',
          m.id, m.parent_model_id, m.metrics ->> 'ndcg_at_10', m.metrics #>> '{active,ndcg_at_10}')
        else format('model version %s goes on from %s, and too little came since to compare them', m.id, m.parent_model_id)
      end, m.id::text, 'Train with more data, or promote it all the same with force => true.');
  end if;
  perform dynrec._activate(r, m);
  return m.id;
end
$$;
comment on function dynrec.promote_model(text, int, boolean) is
  'Lets a model version answer (default: the newest in the shadow): items and users switch with the commit, nobody sees two spaces mixed, and the content space that a learned model '
  'is made of comes with it. The one before stays up to date on standby. '
  'Returns the number. Raises invalid_parameter_value if its backfill is not done, or, unless force is given, if it lost against the one it goes on from or had too little to be compared by.';

create or replace function dynrec._activate(r dynrec_data.recommender, m dynrec_data.model_version) returns void
language plpgsql
set search_path from current
as $$
declare
  space int := coalesce(m.base_model_id, m.id);
begin
  update dynrec_data.model_version x set state = 'standby' where x.id = r.active_model_id or x.id = space and x.state = 'shadow';
  update dynrec_data.model_version x set state = 'active' where x.id = m.id;
  update dynrec_data.recommender x set active_model_id = m.id, content_model_id = space where x.id = r.id;
  insert into dynrec_data.model_activation (recommender_id, activated_at, model_id) values (r.id, clock_timestamp(), m.id);
  if space <> r.content_model_id then
    perform dynrec._encode_by_another(r);
  end if;
  -- of the models before, the last can be rolled back to; content spaces may be bases of others
  insert into dynrec_data.task (recommender_id, action, entity)
  select r.id, 'retire', x.id::text from dynrec_data.model_version x
  where x.recommender_id = r.id and x.kind = 'learned' and x.state = 'standby' and x.id <> r.active_model_id and dynrec._needed_by_experiment(x.id) is null;
end
$$;
comment on function dynrec._activate(dynrec_data.recommender, dynrec_data.model_version) is
  'Internal. Switches a recommender to a model version and to the content space that it is made of.';

create or replace function dynrec._encode_by_another(r dynrec_data.recommender) returns void
language plpgsql
set search_path from current
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'the encoder of a recommender cannot be exchanged under %: what was claimed or changed since its snapshot would be missed', current_setting('transaction_isolation')
      using errcode = 'invalid_transaction_state', hint = 'Promote or roll back at read committed.';
  end if;
  perform dynrec._generate(r.id);
  -- nobody claims until the commit, and those who publish end first, locked in their order: what was encoded for the other is given up, and claimed again
  perform pg_advisory_xact_lock(hashtext('dynrec.encoder'), r.id);
  perform from dynrec_data.lease l where l.recommender_id = r.id and l.kind in ('item', 'derived') order by l.kind, l.entity for update;
  delete from dynrec_data.lease l where l.recommender_id = r.id and l.kind in ('item', 'derived');
  -- what was published in the other space alone so far: the text is stored, but its vector here is an earlier text's
  with waiting as materialized (
    select c.entity as item_id, max(c.captured_at) as captured_at, min(c.lane) as lane from dynrec_data.change c
    where c.recommender_id = r.id and c.kind = 'derived' group by c.entity
  ), unknown as (
    update dynrec_data.item_content i set content_hash = '' where i.recommender_id = r.id and i.item_id in (select w.item_id from waiting w)
  )
  insert into dynrec_data.change (recommender_id, kind, entity, op, lane, captured_at)
  select r.id, 'item', w.item_id, 'refresh', case w.lane when 1 then 1 else 0 end, w.captured_at from waiting w;
  perform dynrec._notify_wake();
end
$$;
comment on function dynrec._encode_by_another(dynrec_data.recommender) is
  'Internal. From the commit on changes of items are encoded in another content space first: that of the recommender as it is stored by now.';

create or replace function dynrec.rollback_model(recommender text) returns int
language plpgsql security definer
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
  'Goes back to the model version that answered before, and to its encoder, at once: both have been kept up to date. Returns its number.';

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
