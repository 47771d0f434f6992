-- What came of an experiment: estimates for each arm, intervals that hold however often one looks, and the verdict.

create or replace function dynrec._log_gamma(x double precision) returns double precision
language sql immutable parallel safe
as $$
  -- Stirling's series from 10 on, reached by ln gamma(x) = ln gamma(x + 1) - ln x
  select (y - 0.5) * ln(y) - y + 0.91893853320467274 + 1 / (12 * y) - 1 / (360 * y ^ 3) + 1 / (1260 * y ^ 5) - 1 / (1680 * y ^ 7)
    - coalesce((select sum(ln(x + i)) from generate_series(0, steps - 1) i), 0)
  from (select greatest(0, ceil(10 - x))::int as steps) s, lateral (select x + steps as y) z
$$;
comment on function dynrec._log_gamma(double precision) is 'Internal. The logarithm of the gamma function of a positive number (Abramowitz & Stegun 6.1.41).';

create or replace function dynrec._sample_ratio_p(counts bigint[], shares double precision[]) returns double precision
language sql immutable parallel safe
set search_path from current
as $$
  -- the weight of the evidence for other shares: a Dirichlet about the intended ones against these themselves
  select exp(greatest(-700, least(0,
    sum(dynrec._log_gamma(100 * share)) - sum(dynrec._log_gamma(100 * share + x)) + dynrec._log_gamma(100 + sum(x)) - dynrec._log_gamma(100) + sum(x * ln(share)))))
  from unnest(counts, shares) as a (x, share)
$$;
comment on function dynrec._sample_ratio_p(bigint[], double precision[]) is
  'Internal. How likely counts like these are, at any number of looks, if each unit falls to an arm by these shares (Lindon & Malek, NeurIPS 2022, '
  'with a Dirichlet of concentration 100).';

create or replace function dynrec._sequential_interval(
  difference double precision, error double precision, reached double precision, alpha double precision,
  out low double precision, out high double precision, out p_value double precision)
language sql immutable parallel safe
as $$
  select difference - w.width, difference + w.width,
    least(1, sqrt(1 + m.q) * exp(greatest(-700, -0.5 * (difference / nullif(error, 0)) ^ 2 * m.q / (1 + m.q))))
  from (select nullif(reached, 0) * (ln(1 - 2 * ln(alpha)) - 2 * ln(alpha)) as q) m,
    lateral (select nullif(error, 0) * sqrt((1 + 1 / m.q) * (ln(1 + m.q) - 2 * ln(alpha))) as width) w
$$;
comment on function dynrec._sequential_interval(double precision, double precision, double precision, double precision) is
  'Internal. An interval that covers the true difference at all looks together with probability 1 - alpha, and the p-value that belongs to it: the asymptotic confidence sequence of Waudby-Smith, Arbour, '
  'Sinha, Kennedy & Ramdas (Annals of Statistics 2024), a normal mixture that is tightest when the share reached of the planned users is 1. Null while that is 0, and where nothing varies.';

create or replace function dynrec._outcomes(r dynrec_data.recommender, e dynrec_data.experiment, until timestamptz, clicks boolean)
returns table (arm smallint, metric text, total double precision, units double precision)
language plpgsql stable
set search_path from current
set enable_nestloop = off  -- what the statistics do not know yet is taken for one user
as $$
begin
  return query execute format($query$
    with unit as materialized (
      select x.user_id, x.arm, x.exposed_at from dynrec_data.exposure x where x.experiment_id = $1 and x.exposed_at <= $2 - $3
    ), done as (
      select u.user_id, count(*) as interactions, bool_or($4 is null or i.kind = any ($4))::int as converted, sum(i.value) as value,
        sum(dynrec_data.kind_weight_%1$s(i.kind, i.value)) as satisfaction
      from unit u join dynrec_data.interactions_%1$s(array(select x.user_id from unit x where pg_input_is_valid(x.user_id, %2$L))) i
        on i.user_id = u.user_id and i.occurred_at >= u.exposed_at and i.occurred_at < u.exposed_at + $3
      where i.occurred_at >= $5 and i.occurred_at < $2
      group by u.user_id
    ), shown as (
      select u.user_id, count(*) as items, count(*) filter (where s.first_at < u.exposed_at + $3) as clicked
      from unit u join dynrec.attributed_impressions($6, $5, $2, least($3, interval '1 day')) s
        on s.user_id = u.user_id and s.experiment = $7 and s.shown_at >= u.exposed_at and s.shown_at < u.exposed_at + $3
      where $8
      group by u.user_id
    )
    select u.arm, m.metric, m.total, m.units
    from unit u left join done d on d.user_id = u.user_id left join shown s on s.user_id = u.user_id, lateral (values
      ('satisfaction_per_user', coalesce(d.satisfaction, 0), 1.0::double precision), ('value_per_user', coalesce(d.value, 0), 1),
      ('interactions_per_user', coalesce(d.interactions, 0)::double precision, 1), ('conversion', coalesce(d.converted, 0)::double precision, 1),
      ('click_through', coalesce(s.clicked, 0)::double precision, coalesce(s.items, 0))) m (metric, total, units)
    where $8 or m.metric <> 'click_through'
    $query$, r.id, r.user_key_type)
    using e.id, greatest(until, e.started_at + interval '1 microsecond'), e.within, e.conversion_kinds, e.started_at, r.name, e.name, clicks;
end
$$;
comment on function dynrec._outcomes(dynrec_data.recommender, dynrec_data.experiment, timestamptz, boolean) is
  'Internal. For each metric and user whose time after the first exposure is over: a sum and what it is divided by (1 for the user, or the number of items shown; these only with clicks).';

create or replace function dynrec._experiment_results(r dynrec_data.recommender, e dynrec_data.experiment, until timestamptz, metrics text[])
returns table (arm text, arm_position smallint, metric text, users bigint, value double precision, standard_error double precision,
  difference double precision, low double precision, high double precision, p_value double precision)
language sql stable
set search_path from current
as $$
  with one as (
    select a.position, a.name, a.share, m.metric, count(o.arm) as users, sum(o.total) / nullif(sum(o.units), 0) as value,
      dynrec._ratio_error(sum(o.total) / nullif(sum(o.units), 0), count(o.arm), sum(o.units), regr_syy(o.total, o.units), regr_sxx(o.total, o.units), regr_sxy(o.total, o.units)) as error
    from dynrec_data.experiment_arm a cross join unnest(metrics) as m (metric)
    left join dynrec._outcomes(r, e, until, 'click_through' = any (metrics)) o on o.arm = a.position and o.metric = m.metric
    where a.experiment_id = e.id
    group by a.position, a.name, a.share, m.metric
  )
  select a.name, a.position, a.metric, a.users, a.value, a.error, d.difference, i.low, i.high,
    case when d.error > 0 and d.reached > 0 then least(1, i.p_value * t.tests) end
  from one a left join one b on b.position = 1 and b.metric = a.metric and a.position > 1
  cross join lateral (select a.value - b.value as difference, sqrt(a.error ^ 2 + b.error ^ 2) as error,
    (a.users + b.users) / (e.planned_users * (a.share + b.share)) as reached) d
  cross join (select count(*) - 1.0::double precision as tests from dynrec_data.experiment_arm x where x.experiment_id = e.id) t
  cross join lateral dynrec._sequential_interval(d.difference, d.error, d.reached, 0.05 / t.tests) i
$$;
comment on function dynrec._experiment_results(dynrec_data.recommender, dynrec_data.experiment, timestamptz, text[]) is
  'Internal. The estimates of each arm and metric, and the differences from the baseline, by the users whose time was over at a moment.';

create or replace function dynrec.experiment_results(recommender text, experiment text, until timestamptz default null)
returns table (arm text, metric text, is_primary boolean, users bigint, value double precision, standard_error double precision,
  difference double precision, relative_difference double precision, low double precision, high double precision, p_value double precision)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  e dynrec_data.experiment := dynrec._experiment(r, experiment);
begin
  if until is not null and (not isfinite(until) or until > clock_timestamp()) then
    perform dynrec._reject('until is not a moment of the past', until::text, 'Leave it out for now.');
  elsif row_security_active(r.interactions) then
    perform dynrec._reject('row-level security hides interactions from you, hidden users would count as idle', r.interactions::text, 'Ask as a role that sees all of them.');
  end if;
  return query
    select x.arm, x.metric, x.metric = e.metric, x.users, x.value, x.standard_error, x.difference,
      x.difference / nullif(abs(x.value - x.difference), 0), x.low, x.high, x.p_value
    from dynrec._experiment_results(r, e, coalesce(until, clock_timestamp()), dynrec._experiment_metrics()) x
    order by x.metric <> e.metric, array_position(dynrec._experiment_metrics(), x.metric), x.arm_position;
end
$$;
comment on function dynrec.experiment_results(text, text, timestamptz) is
  'What came of an experiment up to a moment (default: now), a row for each metric and arm, the primary metric first: users, those whose time (within) after the first exposure is over; value, the mean over '
  'them (click_through: a ratio of sums) with its standard error; the difference from the baseline, also as a share of it, with the interval from low to high and the p-value. Interval and p-value hold '
  'however often one looks and whenever one stops: 95 per cent for all looks together, and for all arms of the metric together (Bonferroni); they are asymptotic, rough below a hundred users an arm. '
  'Other metrics than the primary are for understanding: each is a test of its own. A user''s interactions count whatever brought them about; items shown count with what the user did about them within a day.';

create or replace function dynrec._exposures(e dynrec_data.experiment, out arms text[], out exposed bigint[], out sample_ratio_p double precision)
language sql stable
set search_path from current
as $$
  select array_agg(a.name order by a.position), array_agg(coalesce(x.users, 0) order by a.position),
    dynrec._sample_ratio_p(array_agg(coalesce(x.users, 0) order by a.position), array_agg(a.share order by a.position))
  from dynrec_data.experiment_arm a
  left join (select x.arm, count(*) as users from dynrec_data.exposure x where x.experiment_id = e.id group by x.arm) x on x.arm = a.position
  where a.experiment_id = e.id
$$;
comment on function dynrec._exposures(dynrec_data.experiment) is
  'Internal. How many users met each arm, the baseline first, and how likely that is by the shares of the arms.';

create or replace function dynrec._verdict(r dynrec_data.recommender, e dynrec_data.experiment)
returns table (arms text[], exposed bigint[], sample_ratio_p double precision, best_arm text, difference double precision, low double precision,
  high double precision, verdict text)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  best record;
begin
  select x.* into arms, exposed, sample_ratio_p from dynrec._exposures(e) x;
  if row_security_active(r.interactions) then
    verdict := 'unknown: row-level security hides interactions from you';
    return next;
    return;
  end if;
  select x.*, min(x.users) over () as fewest, max(x.high) over () as highest into best
  from dynrec._experiment_results(r, e, clock_timestamp(), array[e.metric]) x
  order by x.arm_position = 1, coalesce(x.low > 0, false) desc, x.difference desc nulls last, x.arm_position limit 1;
  best_arm := best.arm;
  difference := best.difference;
  low := best.low;
  high := best.high;
  verdict := case
    when sample_ratio_p < 0.01 then format('invalid: users of the arms are not in the ratio that they were assigned in (%s); find out why exposures get lost before believing any figure', array_to_string(exposed, ' : '))
    when best.fewest < 100 then format('too early: an arm has %s users whose %s are over, at least 100 are needed', best.fewest, e.within)
    when low > 0 then format('better: %s beats %s in %s by %s', best_arm, arms[1], e.metric, dynrec._figures(difference, low, high))
    when best.highest < 0 then format('worse: no arm beats %s in %s; the best, %s, by %s', arms[1], e.metric, best_arm, dynrec._figures(difference, low, high))
    when low is null then format('unknown: %s does not vary within arms', e.metric)
    else format('undecided: %s against %s in %s by %s', best_arm, arms[1], e.metric, dynrec._figures(difference, low, high)) end;
  return next;
end
$$;
comment on function dynrec._verdict(dynrec_data.recommender, dynrec_data.experiment) is
  'Internal. How many users met each arm, whether that is the ratio they were assigned in, the best other arm beside the baseline, and the verdict in words.';

create or replace function dynrec._figures(difference double precision, low double precision, high double precision) returns text
language sql immutable
set search_path from current
as $$ select format('%s (%s to %s)', dynrec._short(difference), dynrec._short(low), dynrec._short(high)) $$;
comment on function dynrec._figures(double precision, double precision, double precision) is 'Internal. A difference and its interval in words.';

create or replace view dynrec.experiments with (security_invoker = true) as
select r.name as recommender, e.name as experiment, case when e.ended_at is null then 'running' else 'ended' end as state, e.started_at, e.ended_at, t.traffic,
  e.metric, v.arms, v.exposed, v.sample_ratio_p, v.best_arm, v.difference, v.low, v.high, v.verdict
from dynrec_data.experiment e join dynrec_data.recommender r on r.id = e.recommender_id cross join lateral dynrec._verdict(r, e) v
cross join lateral (select max(t.traffic) as traffic from dynrec_data.experiment_traffic t where t.experiment_id = e.id) t;
comment on view dynrec.experiments is
  'Every experiment with its verdict. arms: the baseline first; exposed: how many users met each; sample_ratio_p: how likely these numbers are by the shares of the arms, at any number of looks (below 0.01 the '
  'experiment is invalid); best_arm, difference, low, high: the arm that does best beside the baseline in the primary metric, with the sequential 95 per cent interval of dynrec.experiment_results. '
  'verdict begins with: invalid, too early, better, worse, undecided or unknown.';

create or replace view dynrec.experiment_arms with (security_invoker = true) as
select r.name as recommender, e.name as experiment, a.position, a.name as arm, a.share, a.upper_bound, a.model_id as model_version, a.options, t.traffic, e.ended_at
from dynrec_data.experiment e join dynrec_data.recommender r on r.id = e.recommender_id join dynrec_data.experiment_arm a on a.experiment_id = e.id
cross join lateral (select max(t.traffic) as traffic from dynrec_data.experiment_traffic t where t.experiment_id = e.id) t;
comment on view dynrec.experiment_arms is
  'The arms of every experiment: position (1 is the baseline), share of those who take part, upper_bound (users who draw less, and not less than the arm before, are in it), what they get: model_version '
  '(null: whichever is active) and options of dynrec.recommend; traffic: the share of the users that take part.';
