-- Experiments: arms that users are divided among, by a hash that Python computes alike (dynrec_store.experiments).

create or replace function dynrec._experiment_metrics() returns text[]
language sql immutable parallel safe
as $$ select array['satisfaction_per_user', 'value_per_user', 'interactions_per_user', 'conversion', 'click_through'] $$;
comment on function dynrec._experiment_metrics() is 'Internal. What an experiment can be about.';

create or replace function dynrec._experiment(r dynrec_data.recommender, name text) returns dynrec_data.experiment
language plpgsql stable
set search_path from current
as $$
declare
  e dynrec_data.experiment;
begin
  select x.* into e from dynrec_data.experiment x where x.recommender_id = r.id and x.name = _experiment.name;
  if not found then
    raise exception 'recommender % has no experiment named %', quote_literal(r.name), dynrec._quoted(name)
      using errcode = 'undefined_object',
        hint = coalesce(
          'There are: ' || (select string_agg(quote_literal(x.name), ', ' order by x.name) from dynrec_data.experiment x where x.recommender_id = r.id) || '.',
          'None was created yet: see dynrec.create_experiment.');
  end if;
  return e;
end
$$;
comment on function dynrec._experiment(dynrec_data.recommender, text) is 'Internal. The experiment of that name; an error that lists the names if there is none.';

create or replace function dynrec._check_arm(r dynrec_data.recommender, number bigint, given jsonb) returns void
language plpgsql stable
set search_path from current
as $$
declare
  what text := format('arms: arm %s', number);
  unknown text;
begin
  if jsonb_typeof(given) is distinct from 'object' then
    perform dynrec._reject(what || ' is not a JSON object', given::text, 'Give for example {"arm": "control"}.');
  end if;
  select key into unknown from jsonb_object_keys(given) key where key not in ('arm', 'share', 'model_version', 'diversity', 'exclude_seen') limit 1;
  if found then
    perform dynrec._reject(what || ': unknown field', unknown, 'Fields are: arm, share, model_version, diversity, exclude_seen.');
  elsif jsonb_typeof(given -> 'arm') is distinct from 'string' or length(given ->> 'arm') not between 1 and 200 then
    perform dynrec._reject(what || ': arm is not a name', left(given ->> 'arm', 200), 'Give a text of 1 to 200 characters, such as "control".');
  elsif given ? 'share' and (jsonb_typeof(given -> 'share') <> 'number' or (given ->> 'share')::numeric not between 0.001 and 1000) then
    perform dynrec._reject(what || ': share is out of range', given ->> 'share', 'Give its weight beside the other arms, 0.001 to 1000; default 1.');
  elsif given ? 'diversity' and (jsonb_typeof(given -> 'diversity') <> 'number' or (given ->> 'diversity')::numeric not between 0 and 1) then
    perform dynrec._reject(what || ': diversity is out of range', given ->> 'diversity', 'Give 0 (by score alone) to 1 (as different as possible).');
  elsif given ? 'exclude_seen' and jsonb_typeof(given -> 'exclude_seen') <> 'boolean' then
    perform dynrec._reject(what || ': exclude_seen is not a boolean', given ->> 'exclude_seen', 'Give true or false.');
  elsif given ? 'model_version' and (jsonb_typeof(given -> 'model_version') <> 'number' or not exists (
      select from dynrec_data.model_version m
      where m.recommender_id = r.id and m.id = (given ->> 'model_version')::numeric and m.state in ('shadow', 'active', 'standby'))) then
    perform dynrec._reject(what || ': model_version cannot answer', given ->> 'model_version', format('There are: %s.', (
      select string_agg(m.id::text, ', ' order by m.id) from dynrec_data.model_version m where m.recommender_id = r.id and m.state in ('shadow', 'active', 'standby'))));
  end if;
end
$$;
comment on function dynrec._check_arm(dynrec_data.recommender, bigint, jsonb) is 'Internal. An error that names the field and the value unless an arm is one.';

create or replace function dynrec._check_experiment(
  r dynrec_data.recommender, name text, arms jsonb, metric text, within interval, traffic double precision, planned_users bigint, conversion_kinds text[]) returns void
language plpgsql stable
set search_path from current
as $$
declare
  twice text;
begin
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions cannot say what users did', r.name, 'Declare one with interactions => ….');
  elsif name is null or length(name) not between 1 and 200 then
    perform dynrec._reject('name is not a name', left(name, 200), 'Give a text of 1 to 200 characters.');
  elsif exists (select from dynrec_data.experiment e where e.recommender_id = r.id and e.name = _check_experiment.name) then
    perform dynrec._reject('the recommender had an experiment of that name already', name, 'Choose another: users stay in the arm that they were assigned by it.');
  elsif jsonb_typeof(arms) is distinct from 'array' or jsonb_array_length(arms) not between 2 and 20 then
    perform dynrec._reject('arms: not a JSON array of 2 to 20 arms', left(arms::text, 200),
      'Give the baseline first, for example [{"arm": "control"}, {"arm": "deep", "model_version": 4}].');
  elsif metric is null or metric <> all (dynrec._experiment_metrics()) then
    perform dynrec._reject('metric: unknown name', metric, format('There are: %s.', array_to_string(dynrec._experiment_metrics(), ', ')));
  elsif within is null or not isfinite(within) or not dynrec._seconds(within) between 1 and 31536000 then
    perform dynrec._reject('within is out of range', within::text, 'Give how long after the first exposure what a user does counts: 1 second to 365 days.');
  elsif traffic is null or not (traffic > 0 and traffic <= 1) then
    perform dynrec._reject('traffic is out of range', traffic::text, 'Give the share of the users that take part, above 0 and up to 1.');
  elsif cardinality(conversion_kinds) = 0 or exists (select from unnest(conversion_kinds) k where k is null) then
    perform dynrec._reject('conversion_kinds: no kind, or one that is null', conversion_kinds::text, 'Name kinds of interactions, or leave it out for any.');
  elsif planned_users is null or planned_users < 100 then
    perform dynrec._reject('planned_users is out of range', planned_users::text, 'Give how many users you expect to take part, at least 100.');
  end if;
  perform dynrec._check_arm(r, a.number, a.given) from jsonb_array_elements(arms) with ordinality as a (given, number);
  select a ->> 'arm' into twice from jsonb_array_elements(arms) a group by a ->> 'arm' having count(*) > 1 limit 1;
  if found then
    perform dynrec._reject('arms: a name is there twice', twice, 'Give each arm a name of its own.');
  end if;
end
$$;
comment on function dynrec._check_experiment(dynrec_data.recommender, text, jsonb, text, interval, double precision, bigint, text[]) is
  'Internal. An error that names the value unless these are the arguments of an experiment.';

create or replace function dynrec.create_experiment(
  recommender text, name text, arms jsonb, metric text default 'satisfaction_per_user', within interval default '7 days',
  traffic double precision default 1, planned_users bigint default 10000, conversion_kinds text[] default null) returns void
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  experiment_id int;
begin
  -- nobody retires a model version or declares the same name meanwhile
  perform from dynrec_data.recommender x where x.id = r.id for update;
  perform dynrec._check_experiment(r, name, arms, metric, within, traffic, planned_users, conversion_kinds);
  insert into dynrec_data.experiment as e (recommender_id, name, metric, within, conversion_kinds, planned_users)
  values (r.id, name, metric, within, conversion_kinds, planned_users)
  on conflict do nothing returning e.id into experiment_id;  -- one that a repeatable read does not see is a serialization failure
  insert into dynrec_data.experiment_traffic (experiment_id, since, traffic)
  select e.id, e.started_at, create_experiment.traffic from dynrec_data.experiment e where e.id = experiment_id;
  insert into dynrec_data.experiment_arm (experiment_id, position, name, share, upper_bound, model_id, options)
  select experiment_id, a.number, a.given ->> 'arm', a.share / a.total, case when a.number = a.last then 1 else a.until / a.total end,
    (a.given ->> 'model_version')::numeric::int, a.given - '{arm,share,model_version}'::text[]
  from (
    select g.given, g.number, s.share, sum(s.share) over () as total, sum(s.share) over (order by g.number) as until, count(*) over () as last
    from jsonb_array_elements(arms) with ordinality as g (given, number), lateral (select coalesce((g.given ->> 'share')::double precision, 1) as share) s
  ) a;
end
$$;
comment on function dynrec.create_experiment(text, text, jsonb, text, interval, double precision, bigint, text[]) is
  'Begins an experiment: users are divided among arms by a hash of recommender, experiment and user, each always into the same one. arms: an array of objects, the first is the baseline that the '
  'others are compared with: arm (its name), share (its weight beside the others, default 1), and what its users get: model_version (default: whichever is active), diversity, exclude_seen '
  '(default: as in the call). metric: what the verdict is about, of the interactions of a user within so long after the first exposure: satisfaction_per_user (the sum of the weights of the kinds, times the '
  'value), value_per_user, interactions_per_user, conversion (the share of users with an interaction of conversion_kinds, default any), click_through (the share of shown items that were met). '
  'traffic: the share of the users that take part. planned_users: with so many the sequential intervals are tightest; they are valid at any number. '
  'Serve by dynrec.recommend(…, experiment => name), log by dynrec.log_impressions or dynrec.log_exposure, read dynrec.experiments.';

create or replace function dynrec.alter_experiment(recommender text, experiment text, traffic double precision) returns void
language plpgsql security definer
set search_path from current
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  e dynrec_data.experiment := dynrec._experiment(r, experiment);
  before double precision;
begin
  -- whoever else alters it comes first, or later
  select x.* into e from dynrec_data.experiment x where x.id = e.id for no key update;
  select max(t.traffic) into before from dynrec_data.experiment_traffic t where t.experiment_id = e.id;
  if e.ended_at is not null then
    perform dynrec._reject('the experiment has ended', experiment, 'Begin another one: dynrec.create_experiment.');
  elsif traffic is null or not (traffic >= before and traffic <= 1) then
    perform dynrec._reject('traffic can only grow', traffic::text, format('Give %s to 1: with less, users who take part would fall out.', before));
  end if;
  insert into dynrec_data.experiment_traffic (experiment_id, since, traffic) values (e.id, clock_timestamp(), traffic);
end
$$;
comment on function dynrec.alter_experiment(text, text, double precision) is
  'Lets more users take part in a running experiment; those who did stay in their arms.';

create or replace function dynrec.stop_experiment(recommender text, experiment text) returns void
language plpgsql security definer
set search_path from current
as $$
#variable_conflict use_variable
declare
  e dynrec_data.experiment := dynrec._experiment(dynrec._recommender(recommender), experiment);
begin
  update dynrec_data.experiment x set ended_at = clock_timestamp() where x.id = e.id and x.ended_at is null;
end
$$;
comment on function dynrec.stop_experiment(text, text) is
  'Ends an experiment: from now on everybody is served as without it, whether the application still names it or not. What exposed users do counts to the end of their time. No effect on one that has ended.';

create or replace function dynrec._draws(recommender text, experiment text, user_id text, out participation double precision, out place double precision)
language sql immutable parallel safe
set search_path from current
as $$
  select ('x' || substr(d.digest, 1, 13))::bit(52)::bigint / 4503599627370496::double precision,
    ('x' || substr(d.digest, 14, 13))::bit(52)::bigint / 4503599627370496::double precision
  from (select encode(sha256(convert_to(recommender || chr(31) || experiment || chr(31) || user_id, 'UTF8')), 'hex') as digest) d
$$;
comment on function dynrec._draws(text, text, text) is
  'Internal. Two numbers from 0 to below 1, whether a user takes part in an experiment and where: the first and the second 52 bits of the SHA-256 of the UTF-8 of the three, with the unit separator between them.';

create or replace function dynrec._arm(r dynrec_data.recommender, e dynrec_data.experiment, user_id text, moment timestamptz) returns dynrec_data.experiment_arm
language sql stable
set search_path from current
as $$
  select a.* from dynrec_data.experiment_arm a, dynrec._draws(r.name, e.name, dynrec._as_key(user_id, r.user_key_type)) d
  where a.experiment_id = e.id and d.place < a.upper_bound and coalesce(e.ended_at > moment, true)
    and d.participation < (select max(t.traffic) from dynrec_data.experiment_traffic t where t.experiment_id = e.id and t.since <= moment)
  order by a.position limit 1
$$;
comment on function dynrec._arm(dynrec_data.recommender, dynrec_data.experiment, text, timestamptz) is
  'Internal. The arm of a user at a moment; null for who does not take part, and while the experiment does not run.';

create or replace function dynrec.experiment_arm(recommender text, experiment text, user_id text) returns text
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  if user_id is null then
    perform dynrec._reject('user_id is missing', user_id, 'Give the user''s key as text.');
  end if;
  return (dynrec._arm(r, dynrec._experiment(r, experiment), user_id, clock_timestamp())).name;
end
$$;
comment on function dynrec.experiment_arm(text, text, text) is
  'The arm of an experiment that a user is in, always the same one; null for who does not take part, and after the end. dynrec_store.experiments computes the same in Python.';

create or replace function dynrec.log_exposure(recommender text, experiment text, user_id text) returns text
language plpgsql
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  e dynrec_data.experiment := dynrec._experiment(r, experiment);
  arm dynrec_data.experiment_arm;
begin
  if user_id is null then
    perform dynrec._reject('user_id is missing', user_id, 'Give the user''s key as text.');
  end if;
  perform dynrec._check_length('user_id', user_id);
  arm := dynrec._arm(r, e, user_id, clock_timestamp());
  perform dynrec._check_sees_all(array[r.interactions], 'exposures are not for it');
  perform dynrec._check_may_note('exposures');
  -- whoever is forgotten meanwhile is forgotten after this
  perform pg_advisory_xact_lock_shared(hashtext('dynrec.forget'), r.id);
  if arm.position is not null and not dynrec._is_forgotten(r, user_id) then
    insert into dynrec_data.exposure as x (experiment_id, user_id, arm, exposed_at)
    values (e.id, dynrec._as_key(user_id, r.user_key_type), arm.position, clock_timestamp())
    on conflict on constraint exposure_pkey do update set exposed_at = excluded.exposed_at where excluded.exposed_at < x.exposed_at;
  end if;
  return arm.name;
end
$$;
comment on function dynrec.log_exposure(text, text, text) is
  'Notes that a user meets an experiment now, and returns the arm (null: does not take part, and nothing is noted). For applications that do not log impressions; dynrec.log_impressions notes it by itself.';

create or replace function dynrec._needed_by_experiment(model int) returns text
language sql stable
set search_path from current
as $$
  select e.name from dynrec_data.experiment e join dynrec_data.experiment_arm a on a.experiment_id = e.id
  where a.model_id = model and e.ended_at is null order by e.name limit 1
$$;
comment on function dynrec._needed_by_experiment(int) is 'Internal. A running experiment with an arm that a model version answers for; null if there is none.';
