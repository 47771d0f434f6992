-- Two model versions judged by the same users.

create or replace function dynrec.compare_models(
  recommender text, "from" timestamptz, "to" timestamptz, model_version int, baseline int, k int[] default '{10}', users int default null,
  seed int default 0, user_ids text[] default null, filter text default null, filter_args jsonb default '{}', exclude_seen boolean default null,
  diversity double precision default 0, category text default null)
returns table (metric text, at_k int, slice text, value double precision, baseline_value double precision, difference double precision,
  standard_error double precision, low double precision, high double precision, p_value double precision, wins bigint, losses bigint, ties bigint)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
begin
  if compare_models.model_version is null or compare_models.baseline is null then
    perform dynrec._reject('two model versions are to be compared, one is missing', null, 'Give model_version and baseline: dynrec.model_versions lists them.');
  end if;
  return query
    with pair as (
      select u.metric, u.at_k, u.slice, u.value as value, b.value as base
      from dynrec.evaluate_users(recommender, "from", "to", k, compare_models.model_version, users, seed, user_ids, filter, filter_args, exclude_seen, diversity, category) u
      join dynrec.evaluate_users(recommender, "from", "to", k, compare_models.baseline, users, seed, user_ids, filter, filter_args, exclude_seen, diversity, category) b
        on (b.user_id, b.metric, b.at_k, b.slice) = (u.user_id, u.metric, u.at_k, u.slice)
    ), judged as (
      select p.metric, p.at_k, p.slice, avg(p.value) as value, avg(p.base) as base, avg(p.value - p.base) as difference,
        stddev_samp(p.value - p.base) / sqrt(count(*)) as error,
        count(*) filter (where p.value > p.base) as wins, count(*) filter (where p.value < p.base) as losses, count(*) filter (where p.value = p.base) as ties
      from pair p group by p.metric, p.at_k, p.slice
    )
    select j.metric, j.at_k, j.slice, j.value, j.base, j.difference, j.error, j.difference - 1.959963984540054 * j.error, j.difference + 1.959963984540054 * j.error,
      case when j.error > 0 then erfc(abs(j.difference) / j.error / sqrt(2::double precision)) when j.difference = 0 then 1 end, j.wins, j.losses, j.ties
    from judged j
    order by j.slice <> 'all', j.slice, j.at_k, j.metric;
end
$$;
comment on function dynrec.compare_models(
  text, timestamptz, timestamptz, int, int, int[], int, int, text[], text, jsonb, boolean, double precision, text) is
  'Whether model_version would have done better than baseline on the moment from: dynrec.evaluate of both on the same users, in pairs. value and '
  'baseline_value: their means; difference: of the pairs, with its standard error and 95 per cent interval; p_value: of no difference, two-sided, '
  'by the normal approximation to the paired t test (rough below some thirty users; null where all pairs differ alike); wins, losses, ties: users '
  'for whom the one, the other or neither was better. Both must have had vectors at from. Many metrics and slices are many tests: expect one in '
  'twenty to fall below 0.05 by chance.';
