-- Privacy: everything that is held about a user, and forgetting it for good.

create or replace function dynrec._check_user(r dynrec_data.recommender, user_id text) returns text
language plpgsql stable
set search_path from current
as $$
begin
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions holds nothing of users', r.name, 'There is nothing to do.');
  elsif user_id is null then
    perform dynrec._reject('user_id is missing', user_id, 'Give the user''s key as text.');
  end if;
  return dynrec._as_key(user_id, r.user_key_type);
end
$$;
comment on function dynrec._check_user(dynrec_data.recommender, text) is 'Internal. The key of a user as the source writes it; an error for null.';

create or replace function dynrec.export_user(recommender text, user_id text) returns jsonb
language plpgsql stable security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  key text := dynrec._check_user(r, user_id);
begin
  return jsonb_build_object('recommender', r.name, 'user_id', key, 'exported_at', clock_timestamp(),
    'forgotten_at', (select f.forgotten_at from dynrec_data.forgotten_user f where f.recommender_id = r.id and f.user_hash = dynrec._user_hash(r.id, key)),
    'held', jsonb_build_object(
      'vectors', (select coalesce(jsonb_agg(to_jsonb(u) order by u.model_id), '[]') from dynrec_data.user_vector u join dynrec_data.model_version m on m.id = u.model_id
        where m.recommender_id = r.id and u.user_id = key),
      'history', (select coalesce(jsonb_agg(to_jsonb(h) order by h.model_id, h.valid_to), '[]') from dynrec_data.user_vector_history h join dynrec_data.model_version m on m.id = h.model_id
        where m.recommender_id = r.id and h.user_id = key),
      'changes', (select coalesce(jsonb_agg(to_jsonb(c) order by c.id), '[]') from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'user' and c.entity = key),
      'leases', (select coalesce(jsonb_agg(to_jsonb(l)), '[]') from dynrec_data.lease l where l.recommender_id = r.id and l.kind = 'user' and l.entity = key),
      'retries', (select coalesce(jsonb_agg(to_jsonb(t)), '[]') from dynrec_data.retry t where t.recommender_id = r.id and t.kind = 'user' and t.entity = key),
      'dead_letters', (select coalesce(jsonb_agg(to_jsonb(d)), '[]') from dynrec_data.dead_letter d where d.recommender_id = r.id and d.kind = 'user' and d.entity = key),
      'fingerprints', (select coalesce(jsonb_agg(to_jsonb(f)), '[]') from dynrec_data.user_fingerprint f where f.recommender_id = r.id and f.user_id = key),
      'outbox', (select coalesce(jsonb_agg(to_jsonb(o)), '[]') from dynrec_data.outbox o where o.recommender_id = r.id and o.kind = 'user' and o.entity = key),
      'impressions', (select coalesce(jsonb_agg(to_jsonb(i) order by i.shown_at, i.list_id), '[]') from dynrec_data.impression i where i.recommender_id = r.id and i.user_id = key),
      'exposures', (select coalesce(jsonb_agg(to_jsonb(x) || jsonb_build_object('experiment', e.name) order by e.name), '[]')
        from dynrec_data.exposure x join dynrec_data.experiment e on e.id = x.experiment_id where e.recommender_id = r.id and x.user_id = key)));
end
$$;
comment on function dynrec.export_user(text, text) is
  'Everything that dynrec holds about a user, as JSON: held has vectors (with the sums that they are made of) and their history, with the interactions that ended a version, waiting changes, leases, retries and dead letters, fingerprints of batches, what others wait to be told, '
  'lists shown and exposures to experiments. The interactions themselves are in the application''s table. forgotten_at: when the user was forgotten, null if not. Fails where all that is more than 256 MB.';

create or replace function dynrec._held(r dynrec_data.recommender, key text) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'vectors', (select count(*) from dynrec_data.user_vector u join dynrec_data.model_version m on m.id = u.model_id where m.recommender_id = r.id and u.user_id = key),
    'history', (select count(*) from dynrec_data.user_vector_history h join dynrec_data.model_version m on m.id = h.model_id where m.recommender_id = r.id and h.user_id = key),
    'changes', (select count(*) from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'user' and c.entity = key),
    'leases', (select count(*) from dynrec_data.lease l where l.recommender_id = r.id and l.kind = 'user' and l.entity = key),
    'retries', (select count(*) from dynrec_data.retry t where t.recommender_id = r.id and t.kind = 'user' and t.entity = key),
    'dead_letters', (select count(*) from dynrec_data.dead_letter d where d.recommender_id = r.id and d.kind = 'user' and d.entity = key),
    'fingerprints', (select count(*) from dynrec_data.user_fingerprint f where f.recommender_id = r.id and f.user_id = key),
    'outbox', (select count(*) from dynrec_data.outbox o where o.recommender_id = r.id and o.kind = 'user' and o.entity = key),
    'impressions', (select count(*) from dynrec_data.impression i where i.recommender_id = r.id and i.user_id = key),
    'exposures', (select count(*) from dynrec_data.exposure x join dynrec_data.experiment e on e.id = x.experiment_id where e.recommender_id = r.id and x.user_id = key))
$$;
comment on function dynrec._held(dynrec_data.recommender, text) is
  'Internal. How many rows of each sort are held about a user: what export_user gives, counted, as that of millions of rows does not fit into a value.';

create or replace function dynrec._take_back(r dynrec_data.recommender, key text) returns void
language plpgsql
set search_path from current
as $$
declare
  token uuid := gen_random_uuid();
begin
  -- as if all interactions had been deleted: what was counted of them is taken off popularity by the publish that counts
  execute format($query$
    insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
    select %1$s, 'user', $1, 'delete', i.item_id, i.kind, i.value, i.occurred_at from dynrec_data.interactions_%1$s(array[$1]) i
    $query$, r.id) using key;
  delete from dynrec_data.lease l where l.recommender_id = r.id and l.kind = 'user' and l.entity = key;
  insert into dynrec_data.lease (recommender_id, kind, entity, token, deadline, attempts, lane, change_ids, captured_at)
  values (r.id, 'user', key, token, clock_timestamp() + interval '1 hour', 0, 0, '{}', clock_timestamp());
  execute format('select dynrec_data.publish_users_%s($1)', r.id) using token;
end
$$;
comment on function dynrec._take_back(dynrec_data.recommender, text) is 'Internal. Takes what a user did off the counters of popularity, and uses up the user''s waiting changes.';

create or replace function dynrec._erase(r dynrec_data.recommender, key text) returns void
language sql
set search_path from current
as $$
  delete from dynrec_data.user_vector u using dynrec_data.model_version m where m.id = u.model_id and m.recommender_id = r.id and u.user_id = key;
  delete from dynrec_data.user_vector_history h using dynrec_data.model_version m where m.id = h.model_id and m.recommender_id = r.id and h.user_id = key;
  delete from dynrec_data.change c where c.recommender_id = r.id and c.kind = 'user' and c.entity = key;
  delete from dynrec_data.lease l where l.recommender_id = r.id and l.kind = 'user' and l.entity = key;
  delete from dynrec_data.retry t where t.recommender_id = r.id and t.kind = 'user' and t.entity = key;
  delete from dynrec_data.dead_letter d where d.recommender_id = r.id and d.kind = 'user' and d.entity = key;
  delete from dynrec_data.impression i where i.recommender_id = r.id and i.user_id = key;
  delete from dynrec_data.outbox o where o.recommender_id = r.id and o.kind = 'user' and o.entity = key;
  delete from dynrec_data.user_fingerprint f where f.recommender_id = r.id and f.user_id = key;
  delete from dynrec_data.exposure x using dynrec_data.experiment e where e.id = x.experiment_id and e.recommender_id = r.id and x.user_id = key;
$$;
comment on function dynrec._erase(dynrec_data.recommender, text) is 'Internal. Deletes all rows about a user.';

create or replace function dynrec._mark_models(r dynrec_data.recommender, key text) returns int[]
language plpgsql
set search_path from current
as $$
declare
  first_at timestamptz;
  marked int[];
begin
  execute format('select min(i.occurred_at) from dynrec_data.interactions_%s(array[$1]) i', r.id) into first_at using key;
  with trained as (
    update dynrec_data.model_version m set forgotten_users = m.forgotten_users + 1
    where m.recommender_id = r.id and m.kind = 'learned' and m.state not in ('staged', 'failed', 'retired')
      and (m.data_until > first_at or exists (select from dynrec_data.user_vector_history h where h.model_id = m.id and h.user_id = key))
    returning m.id
  )
  select coalesce(array_agg(t.id order by t.id), '{}') into marked from trained t;
  return marked;
end
$$;
comment on function dynrec._mark_models(dynrec_data.recommender, text) is 'Internal. Counts a forgotten user with the model versions that learned from the interactions of the user; their numbers.';

create or replace function dynrec.forget_user(recommender text, user_id text) returns jsonb
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  key text := dynrec._check_user(r, user_id);
  is_first boolean;
  held jsonb;
  models int[] := '{}';
  receipt jsonb;
begin
  -- publishes of users, rebuilds of popularity and logging of lists have ended, and none begins before we have
  perform pg_advisory_xact_lock(hashtext('dynrec.popularity'), r.id);
  perform pg_advisory_xact_lock(hashtext('dynrec.forget'), r.id);
  perform dynrec._hold_interactions(r);
  is_first := not exists (select from dynrec_data.forgotten_user f where f.recommender_id = r.id);
  held := dynrec._held(r, key);
  -- a key that no user can have, such as that of a session, has lists at most
  if not dynrec._is_forgotten(r, key) and dynrec._is_key(key, r.user_key_type) then
    models := dynrec._mark_models(r, key);
    perform dynrec._take_back(r, key);
  end if;
  perform dynrec._erase(r, key);
  receipt := jsonb_build_object('recommender', r.name, 'user_hash', encode(dynrec._user_hash(r.id, key), 'hex'), 'forgotten_at', clock_timestamp(),
    'removed', held, 'model_versions', to_jsonb(models));
  insert into dynrec_data.forgotten_user as f (recommender_id, user_hash, forgotten_at, digest)
  values (r.id, dynrec._user_hash(r.id, key), (receipt ->> 'forgotten_at')::timestamptz, sha256(convert_to(receipt::text, 'UTF8')))
  on conflict on constraint forgotten_user_pkey do update set forgotten_at = excluded.forgotten_at, digest = excluded.digest;
  if is_first then
    -- from now on the code of this recommender asks whether a user was forgotten
    perform dynrec._generate(r.id);
  end if;
  return receipt;
end
$$;
comment on function dynrec.forget_user(text, text) is
  'Forgets a user for good: vectors, sums and history, waiting changes, leases, retries, dead letters, lists shown, exposures and what others wait to be told are deleted, and what was counted of the user is taken off popularity. '
  'Only the SHA-256 of the key stays: interactions of the user, those that are still in the application''s table as well as late ones, are never read or captured again, and the user is answered like one of whom nothing is known. '
  'What dynrec publish has sent already is out of reach. Model versions that learned from the user''s interactions count it (forgotten_users in dynrec.model_versions): their weights are not changed, train anew to be rid of it. The application''s own tables are left as they are. '
  'Returns a receipt, what was removed and when, that dynrec.verify_forgotten can check. Waits for running publishes, at most 10 seconds. Again for one who was forgotten: removes what came since, and gives a new receipt.';

create or replace function dynrec.verify_forgotten(recommender text, user_id text, receipt jsonb) returns boolean
language plpgsql stable security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  key text := dynrec._check_user(r, user_id);
begin
  if jsonb_typeof(receipt) is distinct from 'object' then
    perform dynrec._reject('receipt: not a JSON object', left(receipt::text, 200), 'Give what dynrec.forget_user returned.');
  end if;
  return exists (select from dynrec_data.forgotten_user f
      where f.recommender_id = r.id and f.user_hash = dynrec._user_hash(r.id, key) and f.digest = sha256(convert_to(receipt::text, 'UTF8')))
    and not exists (select from jsonb_each(dynrec._held(r, key)) h where h.value <> '0');
end
$$;
comment on function dynrec.verify_forgotten(text, text, jsonb) is
  'Whether a receipt is the last one that dynrec.forget_user gave for that user, unaltered, and nothing is held about the user now.';

create or replace function dynrec.readmit_user(recommender text, user_id text) returns bigint
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  key text := dynrec._check_user(r, user_id);
  counted bigint := 0;
begin
  perform pg_advisory_xact_lock(hashtext('dynrec.popularity'), r.id);
  perform pg_advisory_xact_lock(hashtext('dynrec.forget'), r.id);
  perform dynrec._hold_interactions(r);
  -- who writes now was not captured, and is waited for; who writes later is captured
  execute format('lock table %s in share mode', dynrec._qualified(r.interactions));
  delete from dynrec_data.forgotten_user f where f.recommender_id = r.id and f.user_hash = dynrec._user_hash(r.id, key);
  if not found then
    perform dynrec._reject('not a user who was forgotten', user_id, 'Keys are compared as the interaction table writes them.');
  end if;
  if dynrec._is_key(key, r.user_key_type) then
    execute format($query$
      insert into dynrec_data.change (recommender_id, kind, entity, op, item_id, event_kind, value, occurred_at)
      select %1$s, 'user', $1, 'insert', i.item_id, i.kind, i.value, i.occurred_at from dynrec_data.interactions_%1$s(array[$1]) i
      $query$, r.id) using key;
    get diagnostics counted = row_count;
  end if;
  -- where nobody else was forgotten, the code of this recommender no longer asks
  perform dynrec._generate(r.id) where not exists (select from dynrec_data.forgotten_user f where f.recommender_id = r.id);
  perform dynrec._notify_wake();
  return counted;
end
$$;
comment on function dynrec.readmit_user(text, text) is
  'Takes dynrec.forget_user back for a user who comes again under the same key and agrees to it: what the user does is captured, counted and learned from again. Nothing that was deleted comes back; '
  'interactions of the user that are still in the application''s table count as if they were new: delete those first that are not to. Returns how many these are. Earlier receipts no longer verify. '
  'Writers to the interaction table wait for it; it waits for them at most 10 seconds.';
