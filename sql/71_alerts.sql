-- Alerts: what is wrong, by what was measured and by what the doctor finds, and what to do about it.

create or replace function dynrec._quality_alerts() returns table (recommender text, severity text, alert text, since timestamptz, finding text, remedy text)
language sql stable
set search_path from current
as $$
  with newest as (
    select m.*, avg(m.value) over before as usual, stddev_samp(m.value) over before as spread, count(*) over before as times,
      row_number() over (partition by m.recommender_id, m.metric, m.at_k, m.slice, case when m.metric <> 'ndcg_at_k' then m.model_id end order by m.measured_at desc) as age,
      max(m.measured_at) over (partition by m.recommender_id, m.metric, m.model_id) as last_at
    from dynrec_data.measurement m join dynrec_data.recommender r on r.id = m.recommender_id
    where m.metric in ('index_recall_at_k', 'psi')
      -- more time brings more relevant items: only like periods can be compared
      or m.metric = 'ndcg_at_k' and coalesce(m.measured_at - m.period_from >= 0.5 * (r.options ->> 'measure_every')::interval, true)
    window before as (partition by m.recommender_id, m.metric, m.at_k, m.slice order by m.measured_at rows between 7 preceding and 1 preceding)
  )
  select r.name, a.severity, a.alert, n.measured_at, a.finding, a.remedy
  from newest n join dynrec_data.recommender r on r.id = n.recommender_id and n.age = 1, lateral (
    select 'warning' as severity, 'quality fell' as alert, format('nDCG@%s was %s, after %s on average of the %s times before', n.at_k, n.value::numeric(9, 4), n.usual::numeric(9, 4), n.times) as finding,
      format('select * from dynrec.evaluate(%L, %L, %L, category => …) shows where; train on what came since, or go back: select dynrec.rollback_model(%L)', r.name, n.period_from, n.measured_at, r.name) as remedy
    where n.metric = 'ndcg_at_k' and n.slice = 'all' and n.times >= 3 and n.n >= 30 and n.value < 0.9 * n.usual
      and n.value < n.usual - 3 * sqrt(coalesce(n.spread, 0) ^ 2 / n.times + coalesce(n.standard_error, 0) ^ 2)
    union all
    select 'warning', 'index recall is low', format('the index finds %s of what an exact search finds', n.value::numeric(9, 3)),
      dynrec._recall_remedy(n.model_id)
    where n.metric = 'index_recall_at_k' and n.value < 0.95 and n.model_id = r.active_model_id
    union all
    select 'warning', 'inputs drifted', format('%s: population stability index %s since model version %s was made', n.slice, n.value::numeric(9, 2), n.model_id),
      format('select * from dynrec.data_drift(%1$L) shows how; train on the new data: dynrec train %1$L', r.name)
    where n.metric = 'psi' and n.value > 0.25 and n.n >= 500 and n.model_id = r.active_model_id and n.measured_at = n.last_at
  ) a
$$;
comment on function dynrec._quality_alerts() is 'Internal. Alerts of the newest measurements.';

create or replace view dynrec.alerts with (security_invoker = true) as
select q.* from dynrec._quality_alerts() q
union all
select r.name, 'warning', 'not measured', coalesce(r.measured_at, r.created_at), format('nothing was measured since %s', coalesce(r.measured_at, r.created_at)),
  'is the maintenance queue served? dynrec worker --queues maintenance'
from dynrec_data.recommender r
where not r.paused and coalesce(r.measured_at, r.created_at) < now() - 2 * (r.options ->> 'measure_every')::interval - interval '10 minutes'
union all
select r.name, 'error', 'training failed', m.created_at, format('model version %s: %s', m.id, m.error), format('dynrec train %L, after mending what it says', r.name)
from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
where m.state = 'failed' and not exists (select from dynrec_data.model_version x where x.recommender_id = r.id and x.kind = 'learned' and x.id > m.id)
union all
select r.name, 'warning', 'experiment invalid', e.started_at,
  format('%s: users of the arms are %s, which is not the ratio that they were assigned in', e.name, array_to_string(x.exposed, ' : ')),
  'find where exposures get lost, stop the experiment and begin another one'
from dynrec_data.experiment e join dynrec_data.recommender r on r.id = e.recommender_id cross join lateral dynrec._exposures(e) x
where e.ended_at is null and x.sample_ratio_p < 0.01
union all
select r.name, d.severity, 'doctor', null, case when r.name is null then d.subject || ': ' else '' end || d.finding, d.remedy
from dynrec.doctor() d left join dynrec_data.recommender r on r.name = d.subject
where d.severity <> 'info';
comment on view dynrec.alerts is
  'What is wrong and what to do about it: severity (error: something does not move or is lost; warning), alert (its kind), since when it is known, finding, remedy. quality fell: nDCG of the last measurement below nine tenths of the '
  'mean of the up to 7 before, by more than 3 standard errors, over at least 30 users; index recall is low: below 0.95; inputs drifted: population stability index above 0.25 over at least 500 items or interactions; not measured; training failed; experiment invalid '
  '(dynrec.experiments); doctor: whatever dynrec.doctor finds beyond mere information. recommender is null for what concerns all. No row: all is well.';
