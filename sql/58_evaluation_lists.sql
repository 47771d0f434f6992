-- What would have been recommended at a moment, beside what users did after it: the ground of every evaluation.

create or replace function dynrec._check_period(r dynrec_data.recommender, starts timestamptz, ends timestamptz) returns void
language plpgsql stable
set search_path from current
as $$
declare
  kept_since timestamptz;
begin
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions cannot be evaluated', r.name, 'Declare one with interactions => …, user_column => ….');
  elsif starts is null or ends is null or not isfinite(starts) or not isfinite(ends) or starts >= ends then
    perform dynrec._reject('the period is not one', format('%s to %s', coalesce(starts::text, 'null'), coalesce(ends::text, 'null')), 'Give two moments, the earlier first: users are judged by what they did in [from, to).');
  elsif starts > clock_timestamp() then
    perform dynrec._reject('from is not a moment of the past', starts::text, 'Recommendations of the future are not known yet.');
  end if;
  select coalesce(m.stored_at, m.created_at) into kept_since from dynrec_data.model_version m where m.id = r.active_model_id;
  if starts < kept_since then
    perform dynrec._reject(format('model version %s had no vectors at', r.active_model_id), starts::text,
      format('They are kept since %s: evaluate from a later moment on, or another model version with by_model.', kept_since));
  end if;
end
$$;
comment on function dynrec._check_period(dynrec_data.recommender, timestamptz, timestamptz) is
  'Internal. An error unless from and to are a period in whose beginning the backfill of the answering model version had begun.';

create or replace function dynrec._test_users(
  r dynrec_data.recommender, starts timestamptz, ends timestamptz, users int, seed int, among text[]) returns text[]
language plpgsql stable
set search_path from current
as $$
declare
  found_users text[];
begin
  execute format($query$
    select array_agg(u.user_id order by u.place) from (
      select i.user_id, row_number() over (order by hashtextextended(i.user_id, $4), i.user_id) as place
      from dynrec_data.interactions_all_%1$s() i
      where i.occurred_at >= $1 and i.occurred_at < $2 and dynrec_data.kind_weight_%1$s(i.kind, 1) > 0 and ($5 is null or i.user_id = any ($5))
      group by i.user_id
    ) u where u.place <= $3
    $query$, r.id) into found_users using starts, ends, coalesce(users, 2147483647), seed::bigint, among;
  return coalesce(found_users, '{}');
end
$$;
comment on function dynrec._test_users(dynrec_data.recommender, timestamptz, timestamptz, int, int, text[]) is
  'Internal. The users who did something in favour of an item in [starts, ends), or so many of them, drawn by a hash of key and seed.';

create or replace function dynrec._test_list(
  r dynrec_data.recommender, user_id text, starts timestamptz, ends timestamptz, k int, filter text, filter_args jsonb,
  leave_out_seen boolean, diversity double precision, popular jsonb,
  out recommended text[], out scores double precision[], out sources text[], out relevant text[], out gains double precision[], out is_new boolean)
language plpgsql stable parallel safe cost 100000
set search_path from current
as $$
#variable_conflict use_variable
declare
  seen text[] := dynrec._seen(r, user_id, starts);
begin
  is_new := cardinality(seen) = 0;
  execute format($query$
    select coalesce(array_agg(w.item_id order by w.item_id), '{}'), coalesce(array_agg(w.gain order by w.item_id), '{}')
    from (
      select i.item_id, greatest(sum(dynrec_data.kind_weight_%1$s(i.kind, i.value)), 0) as gain from dynrec_data.interactions_%1$s(array[$1]) i
      where i.occurred_at >= $2 and i.occurred_at < $3 group by i.item_id
      having bool_or(dynrec_data.kind_weight_%1$s(i.kind, 1) > 0)
    ) w
    where not ($4 and w.item_id = any ($5)) and dynrec_data.vector_known_m%2$s(w.item_id, $2) is not null
    $query$, r.id, r.active_model_id) into relevant, gains using user_id, starts, ends, leave_out_seen, seen;
  select coalesce(array_agg(c.item_id order by c.rank), '{}'), coalesce(array_agg(c.score order by c.rank), '{}'), coalesce(array_agg(c.source order by c.rank), '{}')
  into recommended, scores, sources
  from dynrec._recommended(r, user_id, k, filter, filter_args, '{}', case when leave_out_seen then seen end, diversity, starts, popular) c;
end
$$;
comment on function dynrec._test_list(
  dynrec_data.recommender, text, timestamptz, timestamptz, int, text, jsonb, boolean, double precision, jsonb) is
  'Internal. The list of one user at starts, and the items that it should have found: those met until ends in favour, known at starts, and, where '
  'seen items are left out, new to the user; with the sum of the weights of what the user did with each of them, at least 0.';

create or replace function dynrec.evaluation_lists(
  recommender text, "from" timestamptz, "to" timestamptz, k int default 10, by_model int default null, users int default null, seed int default 0,
  user_ids text[] default null, filter text default null, filter_args jsonb default '{}', exclude_seen boolean default null,
  diversity double precision default 0)
returns table (user_id text, recommended text[], scores double precision[], sources text[], relevant text[], gains double precision[], is_new boolean, model_version int)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  parts int := 1 + current_setting('max_parallel_workers_per_gather')::int;
  asked text[];
begin
  if users < 1 then
    perform dynrec._reject('users is out of range', users::text, 'Give the size of the sample, or leave it out for all users.');
  end if;
  perform dynrec._check_read(r, k, filter, filter_args, diversity, least("from", clock_timestamp()));
  r := dynrec._answering(r, least("from", clock_timestamp()), by_model);
  perform dynrec._check_period(r, "from", "to");
  asked := dynrec._test_users(r, "from", "to", users, coalesce(seed, 0), dynrec._as_keys(user_ids, r.user_key_type));
  -- a part for each process: Postgres runs the parts of an append side by side. The function
  -- stands where its cost is counted for every user; offset 0 keeps it from being called for every column.
  return query execute format('select l.id, (l.list).*, $11 from (select p.* from (%s) p offset 0) l', (
    select string_agg(format('select u.id, dynrec._test_list($2, u.id, $3, $4, $5, $6, $7, $8, $9, $10) as list from unnest(($1)[%s:%s]) as u (id)',
      1 + cardinality(asked) * (p - 1) / parts, cardinality(asked) * p / parts), ' union all ')
    from generate_series(1, parts) p))
    using asked, r, "from", "to", k, filter, filter_args, coalesce(exclude_seen, (r.options ->> 'exclude_seen')::boolean), diversity,
      dynrec._shared_of(r, "from"), r.active_model_id;
end
$$;
comment on function dynrec.evaluation_lists(
  text, timestamptz, timestamptz, int, int, int, int, text[], text, jsonb, boolean, double precision) is
  'For each user who did something in [from, to): what dynrec.recommend(…, as_of => from) answers by the model version that answered then (or '
  'by_model), and the relevant items: those that the user met in the period by a kind of positive weight, that had a vector at from, and, with '
  'exclude_seen, that the user had not met before. gains[i]: how much relevant[i] is worth, the sum of the weights of what the user did with it in the period, as the recommender declares its kinds, at least 0. is_new: nothing was known of the user at from. users: a sample of so many, drawn by seed; '
  'user_ids: among these alone; filter, exclude_seen, diversity as in dynrec.recommend. A list is the one that was served at from, as far as the '
  'index finds all neighbours, the options are those of then, and no transaction was just committing; filter looks at today''s source. Runs in '
  'parallel workers where the settings allow. Raises invalid_parameter_value for a moment before the model version had vectors.';
