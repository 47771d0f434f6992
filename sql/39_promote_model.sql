-- Which model version answers from now on: promoted, or gone back to, with the content space that it is made of.

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

create or replace function dynrec._loses(m dynrec_data.model_version) returns boolean
language sql immutable
set search_path from current
as $$
  select m.parent_model_id is not null
    and coalesce((m.metrics #>> '{active,ndcg_at_10}')::double precision > (m.metrics ->> 'ndcg_at_10')::double precision, true)
$$;
comment on function dynrec._loses(dynrec_data.model_version) is
  'Internal. Whether a model that goes on from another foresaw the newest period worse than that one, or had too little of it to be compared with.';

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
