-- What another model version would have earned, from logs of lists that were drawn by lot.

create or replace function dynrec.counterfactual_metrics(
  recommender text, "from" timestamptz, "to" timestamptz, by_model int default null, k int default 10, reward text default 'click',
  within interval default '1 day', exclude_seen boolean default null, diversity double precision default 0)
returns table (estimator text, value double precision, standard_error double precision, low double precision, high double precision,
  lists bigint, matched bigint, effective_lists double precision, logged_value double precision)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  perform dynrec._check_k(k);
  if reward is null or reward not in ('click', 'value', 'satisfaction') then
    perform dynrec._reject('reward: unknown', reward, 'Rewards are: click, value, satisfaction.');
  end if;
  perform dynrec._check_read(r, k, null, null, diversity, least("from", clock_timestamp()));
  r := dynrec._answering(r, least("from", clock_timestamp()), by_model);
  perform dynrec._check_period(r, "from", "to");
  return query
    with shown as materialized (
      select i.list_id, i.shown_at, i.user_id, i.item_id, i.position, i.propensity,
        case reward when 'click' then (cardinality(i.kinds) > 0)::int when 'value' then coalesce(i.value, 0) else i.satisfaction end as earned
      from dynrec.attributed_impressions(recommender, "from", least("to", clock_timestamp()), within) i
      where i.propensity is not null and i.position <= k
    ), list as materialized (
      select s.list_id, array(
        select t.item_id from dynrec._recommended(r, s.user_id, k, null, null, '{}',
          case when coalesce(exclude_seen, (r.options ->> 'exclude_seen')::boolean) then dynrec._seen(r, s.user_id, s.shown_at) end, diversity, s.shown_at) t
        order by t.rank) as item_ids
      from (select distinct s.list_id, s.user_id, s.shown_at from shown s) s
    ), weighted as materialized (
      select s.list_id, s.position, s.earned, case when l.item_ids[s.position] = s.item_id then 1 / s.propensity else 0 end as weight
      from shown s join list l using (list_id)
    ), place as materialized (
      select w.position, avg(w.earned) as expected, sum(w.weight) as total, sum(w.weight * w.earned) / nullif(sum(w.weight), 0) as normalised
      from weighted w group by w.position
    ), one as (
      select w.list_id, sum(w.earned) as logged, sum(w.weight * w.earned) as ips,
        sum(p.expected + w.weight * (w.earned - p.expected)) as doubly_robust,
        -- what a list adds to the ratios of its positions, for their error
        sum(w.weight * (w.earned - p.normalised) / nullif(p.total, 0)) as influence, max((w.weight > 0)::int) as matched
      from weighted w join place p using (position) group by w.list_id
    ), total as (
      select count(*) as n, avg(o.logged) as logged, sum(o.matched)::bigint as matched, avg(o.ips) as ips, stddev_samp(o.ips) / sqrt(count(*)) as ips_error,
        avg(o.doubly_robust) as doubly_robust, stddev_samp(o.doubly_robust) / sqrt(count(*)) as doubly_robust_error,
        (select sum(p.normalised) from place p) as snips, sqrt(sum(o.influence ^ 2)) as snips_error,
        (select sum(w.weight) ^ 2 / nullif(sum(w.weight ^ 2), 0) / nullif(count(distinct w.position), 0) from weighted w) as effective
      from one o
    )
    select e.estimator, e.value, e.error, e.value - 1.959963984540054 * e.error, e.value + 1.959963984540054 * e.error, t.n, t.matched, t.effective, t.logged
    from total t, lateral (values
      (1, 'ips', t.ips, t.ips_error), (2, 'snips', t.snips, t.snips_error), (3, 'doubly_robust', t.doubly_robust, t.doubly_robust_error)
    ) e (place, estimator, value, error)
    where t.n > 0
    order by e.place;
end
$$;
comment on function dynrec.counterfactual_metrics(text, timestamptz, timestamptz, int, int, text, interval, boolean, double precision) is
  'What the lists of another model version (by_model; default: the one that answered at from) would have earned a list, from lists that were logged'
  ' with propensities in [from, to). The list that it would have shown at the very moment is compared with what was shown, position by position up '
  'to k: an item that both show at the same position counts with weight 1 / propensity (the item-position model: Li et al., KDD 2018). ips: inverse'
  ' propensity scoring, unbiased and noisy; snips: self-normalised in each position (Swaminathan & Joachims, NIPS 2015), less noisy, biased in '
  'small logs; doubly_robust: the mean reward of each position, corrected by ips (Dudik et al., ICML 2011). reward: click (1 for an item that the '
  'user met within the time), value or satisfaction, as in dynrec.attributed_impressions. lists: that had propensities; matched: of those, with a '
  'common item; effective_lists: (sum w)^2 / sum w^2 by position; logged_value: what was earned. Assumes that propensities are true and above 0 for'
  ' whatever the other version shows, that an item earns at a position what it earns whatever stands around it, and that lists are independent. '
  'Without matches there is nothing to judge by: ips is 0 and snips null.';
