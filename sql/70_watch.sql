-- Watching quality: what is measured time and again, and kept.

create or replace function dynrec._judged_version(r dynrec_data.recommender, since timestamptz, out model int, out judged_from timestamptz)
language plpgsql stable
set search_path from current
as $$
declare
  complete_at timestamptz;
begin
  judged_from := since;
  loop
    select m.id, (m.profile ->> 'taken_at')::timestamptz into model, complete_at from dynrec_data.model_version m
    where m.id = coalesce((
        select a.model_id from dynrec_data.model_activation a where a.recommender_id = r.id and a.activated_at <= judged_from order by a.activated_at desc limit 1), r.active_model_id)
      and m.state in ('shadow', 'active', 'standby') and m.profile is not null;
    exit when model is null or complete_at <= judged_from;
    -- another one may have answered by the time at which its vectors were complete
    judged_from := complete_at;
  end loop;
end
$$;
comment on function dynrec._judged_version(dynrec_data.recommender, timestamptz) is
  'Internal. The first moment from since on at which the version that answered had all its vectors, and that version; null if it has retired or is not complete yet.';

create or replace function dynrec._measure_quality(r dynrec_data.recommender, since timestamptz, moment timestamptz) returns bigint
language plpgsql
set search_path from current
as $$
declare
  judged record := dynrec._judged_version(r, since);
  measured bigint;
begin
  if judged.model is null or r.interactions is null then
    return 0;
  end if;
  insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, period_from, value, standard_error, n)
  select r.id, e.metric, e.at_k, e.slice, moment, judged.model, judged.judged_from, e.value, e.standard_error, e.n
  from dynrec.evaluate(r.name, judged.judged_from, moment, array[10], by_model => judged.model, users => 1000) e;
  get diagnostics measured = row_count;
  return measured;
end
$$;
comment on function dynrec._measure_quality(dynrec_data.recommender, timestamptz, timestamptz) is
  'Internal. Notes the metrics of the lists of since, or of when the vectors were complete, by what users did until moment.';

create or replace function dynrec._measure_state(r dynrec_data.recommender, moment timestamptz) returns bigint
language plpgsql
set search_path from current
as $$
declare
  measured bigint;
begin
  insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, value, standard_error, n)
  select r.id, 'index_recall_at_k', 10, 'all', moment, i.model_version, i.recall, i.standard_error, i.queries
  from dynrec.index_recall(r.name, 10, 50) i where i.recall is not null
  union all
  select r.id, 'psi', 0, d.subject, moment, d.model_version, d.psi, null, d.n from dynrec.data_drift(r.name) d;
  get diagnostics measured = row_count;
  return measured;
end
$$;
comment on function dynrec._measure_state(dynrec_data.recommender, timestamptz) is 'Internal. Notes the recall of the index and the drift.';

create or replace function dynrec.watch(recommender text) returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  every interval := coalesce(r.options ->> 'measure_every', '1 day');
  moment timestamptz := clock_timestamp();
  measured bigint;
begin
  perform dynrec._hold_sources(r);
  measured := dynrec._measure_quality(r, greatest(r.measured_at, moment - every), moment) + dynrec._measure_state(r, moment);
  -- last, as the row is locked from here on
  update dynrec_data.recommender x set measured_at = moment where x.id = r.id;
  return measured;
end
$$;
comment on function dynrec.watch(text) is
  'Measures a recommender now and notes it in dynrec.measurements; returns how many values. Workers do it by themselves every measure_every (an option, default a day). Of 1,000 users drawn by hash the lists of the last '
  'time, at most measure_every ago, judged by what they did since (dynrec.evaluate); the recall of the index over 50 searches (dynrec.index_recall); drift (dynrec.data_drift).';

create or replace function dynrec._is_due(r dynrec_data.recommender) returns boolean
language sql stable
set search_path from current
as $$ select not r.paused and coalesce(coalesce(r.measured_at, r.created_at) <= now() - (r.options ->> 'measure_every')::interval, false) $$;
comment on function dynrec._is_due(dynrec_data.recommender) is 'Internal. Whether a recommender is to be measured.';

create or replace function dynrec._watch_next() returns text
language plpgsql security definer
set search_path from current
as $$
declare
  due record;
begin
  for due in
    select r.id, r.name from dynrec_data.recommender r
    where dynrec._is_due(r) order by coalesce(r.measured_at, r.created_at)
  loop
    -- whoever watches one holds its lock: others take the next; and it may have been measured while we were at another
    continue when not pg_try_advisory_xact_lock(hashtext('dynrec.watch'), due.id)
      or not (select dynrec._is_due(r) from dynrec_data.recommender r where r.id = due.id);
    begin
      perform dynrec.watch(due.name);
      return due.name;
    exception
      when lock_not_available or deadlock_detected or serialization_failure then
        raise;
      when others then
        -- its table may be gone, which the doctor says, or a policy refuse; the others go on
        raise warning 'recommender % could not be measured: %', due.name, sqlerrm;
    end;
  end loop;
  return null;
end
$$;
comment on function dynrec._watch_next() is 'Internal. Measures one recommender that is due and returns its name; null if none is, or none can be.';

create or replace view dynrec.measurements with (security_invoker = true) as
select r.name as recommender, m.measured_at, m.period_from, m.model_id as model_version, m.metric, nullif(m.at_k, 0) as at_k, m.slice, m.value, m.standard_error, m.n
from dynrec_data.measurement m join dynrec_data.recommender r on r.id = m.recommender_id;
comment on view dynrec.measurements is
  'What was measured when (dynrec.watch): the metrics of dynrec.evaluate (lists of period_from, judged by what users did until measured_at, with slices), index_recall_at_k (dynrec.index_recall), '
  'and psi, the drift of a subject (slice) since the model version was made (dynrec.data_drift); n: users, searches, items or interactions behind it. Kept for the option retention.';
