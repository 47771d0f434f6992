-- Drift: how the inputs and the vectors of a model version are distributed now, beside what they were like when it was made.

create or replace function dynrec._inputs(r dynrec_data.recommender, model int, centre vector, since timestamptz, until timestamptz)
returns table (subject text, is_number boolean, number double precision, label text)
language plpgsql stable
set search_path from current
set work_mem = '64MB'  -- the last 100,000 of many interactions are found without sorting all of them on disk
as $$
begin
  return query execute format($query$
    with sample as materialized (
      select v.item_id, dynrec._vector(v.embedding, v.half) as embedding from dynrec_data.item_vector_%2$s v order by hashtextextended(v.item_id, 0), v.item_id limit 10000
    ), item as materialized (
      select s.embedding, c.features from sample s left join dynrec_data.item_content c on c.recommender_id = %1$s and c.item_id = s.item_id
    )
    select 'vectors', true, nullif(1 - (i.embedding <=> $1), 'NaN'), null from item i where $1 is not null
    union all
    select 'items: ' || c.name, true, case when pg_input_is_valid(i.features ->> c.name, 'double precision') then (i.features ->> c.name)::double precision end, null
    from item i cross join unnest($2) as c (name)
    union all
    select 'items: ' || c.name || case when c.name = any ($2) then ', as a label' else '' end, false, null, left(i.features ->> c.name, 200) from item i cross join unnest($3) as c (name)
    $query$, r.id, model) using centre, r.numeric_columns, r.categorical_columns;
  if r.interactions is not null then
    return query execute format($query$
      with event as materialized (
        select i.item_id, i.kind, i.value from dynrec_data.interactions_all_%1$s() i where i.occurred_at >= $1 and i.occurred_at < $2
        order by i.occurred_at desc, i.user_id, i.item_id limit 100000
      )
      select 'interactions: kind', false, null::double precision, left(e.kind, 200) from event e where $3
      union all
      select 'interactions: value', true, e.value, null from event e where $4
      union all
      select 'items met: ' || n.name, false, null, left(c.features ->> n.name, 200)
      from event e left join dynrec_data.item_content c on c.recommender_id = %1$s and c.item_id = e.item_id cross join unnest($5) as n (name)
      $query$, r.id) using since, until, r.kind_column is not null, r.value_column is not null, r.categorical_columns;
  end if;
end
$$;
comment on function dynrec._inputs(dynrec_data.recommender, int, vector, timestamptz, timestamptz) is
  'Internal. What a model version is fed with: columns of 10,000 items drawn by hash, the last 100,000 interactions of [since, until) and the items met in them, and, '
  'with a centre, the cosines of the vectors to it. A number or a label; both null where there is none.';

create or replace function dynrec._bin(edges double precision[], labels text[], number double precision, label text) returns int
language sql immutable
as $$
  select case
    when labels is null then case when number is null then cardinality(edges) + 2 when cardinality(edges) = 0 then 1 else width_bucket(number, edges) + 1 end
    when label is null then cardinality(labels) + 2
    else coalesce(array_position(labels, label), cardinality(labels) + 1) end
$$;
comment on function dynrec._bin(double precision[], text[], double precision, text) is
  'Internal. The number of the bin, from 1: between two edges, or a label; the last but one of labels is for all others, and the last for what is missing.';

create or replace function dynrec._bin_names(edges double precision[], labels text[]) returns text[]
language sql immutable
set search_path from current
as $$
  select case when labels is not null then labels || '{others,missing}'::text[]
    when cardinality(edges) = 0 then '{any,missing}'::text[]
    else '< ' || dynrec._short(edges[1]) || array(select format('%s to %s', dynrec._short(edges[n]), dynrec._short(edges[n + 1])) from generate_series(1, cardinality(edges) - 1) n)
      || array['>= ' || dynrec._short(edges[cardinality(edges)]), 'missing'] end
$$;
comment on function dynrec._bin_names(double precision[], text[]) is 'Internal. What to call the bins.';

create or replace function dynrec._binned(r dynrec_data.recommender, model int, profile jsonb, since timestamptz, until timestamptz)
returns table (subject text, edges double precision[], labels text[], counts bigint[])
language sql stable
set search_path from current
as $$
  with known as materialized (
    select s.subject, s.edges, s.labels from jsonb_to_recordset(profile -> 'subjects') as s (subject text, edges double precision[], labels text[])
  ), found as (
    select k.subject, dynrec._bin(k.edges, k.labels, i.number, i.label) as bin, count(*) as n
    from known k join dynrec._inputs(r, model, (profile ->> 'centre')::vector, since, until) i on i.subject = k.subject and i.is_number = (k.labels is null)
    group by k.subject, dynrec._bin(k.edges, k.labels, i.number, i.label)
  )
  select k.subject, k.edges, k.labels, array_agg(coalesce(f.n, 0) order by b.bin)
  from known k cross join generate_series(1, cardinality(dynrec._bin_names(k.edges, k.labels))) as b (bin)
  left join found f on f.subject = k.subject and f.bin = b.bin
  group by k.subject, k.edges, k.labels
$$;
comment on function dynrec._binned(dynrec_data.recommender, int, jsonb, timestamptz, timestamptz) is
  'Internal. How many of the inputs of a model version fall into each bin of a profile; interactions of [since, until).';

create or replace function dynrec._profile(r dynrec_data.recommender, m dynrec_data.model_version) returns jsonb
language plpgsql stable
set search_path from current
as $$
declare
  until timestamptz := coalesce(m.data_until, clock_timestamp());
  since timestamptz := coalesce(m.data_from, '-infinity');
  profile jsonb;
begin
  execute format('select jsonb_build_object(''centre'', avg(l2_normalize(dynrec._vector(v.embedding, v.half)))::text, ''until'', $1, ''taken_at'', clock_timestamp(), ''items'', count(*)) from dynrec_data.item_vector_%s v', m.id)
    into profile using until;
  select profile || jsonb_build_object('subjects', jsonb_agg(jsonb_build_object('subject', s.subject, 'edges', s.edges, 'labels', s.labels))) into profile
  from (
    select i.subject,
      case when i.is_number then array(select distinct e from unnest(percentile_disc('{.1,.2,.3,.4,.5,.6,.7,.8,.9}'::double precision[]) within group (order by i.number)) e
        where e is not null order by e) end as edges,
      case when not i.is_number then array(select l.label from unnest(array_agg(i.label)) as l (label) where l.label is not null group by l.label order by count(*) desc, l.label limit 20) end as labels
    from dynrec._inputs(r, m.id, (profile ->> 'centre')::vector, since, until) i
    group by i.subject, i.is_number
  ) s;
  return profile || (
    select jsonb_build_object('subjects', jsonb_agg(jsonb_build_object('subject', b.subject, 'edges', b.edges, 'labels', b.labels, 'counts', b.counts)))
    from dynrec._binned(r, m.id, profile, since, until) b);
end
$$;
comment on function dynrec._profile(dynrec_data.recommender, dynrec_data.model_version) is
  'Internal. How the inputs and vectors of a model version are distributed: numbers by their deciles, labels by the 20 commonest, vectors by their cosine to the mean direction (centre); '
  'interactions of the time that it learned from, of a content model all so far.';

create or replace function dynrec._take_profiles() returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  due record;
  taken bigint := 0;
begin
  for due in
    select m.id, r as recommender, m as version from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
    -- one that was taken of half of the items or less says nothing of the rest
    where (m.profile is null or (select count(*) from dynrec_data.item_vector v where v.model_id = m.id) > 2 * (m.profile ->> 'items')::bigint)
      and m.state in ('shadow', 'active', 'standby')
      and exists (select from dynrec_data.item_vector v where v.model_id = m.id)
      and not exists (select from dynrec_data.task t where t.recommender_id = r.id and t.action like 'scan\_%')
      and not exists (select from dynrec_data.change c where c.recommender_id = r.id and c.kind in ('item', 'derived') and c.lane = 1)
      and not exists (select from dynrec_data.lease l where l.recommender_id = r.id and l.kind in ('item', 'derived') and l.lane = 1)
    order by m.id
  loop
    begin
      perform dynrec._hold_sources(due.recommender);
      update dynrec_data.model_version x set profile = dynrec._profile(due.recommender, due.version) where x.id = due.id and x.profile is not distinct from (due.version).profile;
      taken := taken + 1;
    exception
      when lock_not_available or deadlock_detected or serialization_failure then
        raise;
      when others then
        -- its table may be gone, which the doctor says, or a policy refuse; the others go on
        raise warning 'no profile of model version %: %', due.id, sqlerrm;
    end;
  end loop;
  return taken;
end
$$;
comment on function dynrec._take_profiles() is 'Internal. Profiles of the model versions that have their vectors and no profile yet, or one of less than half as many items.';

create or replace function dynrec.data_drift(recommender text, by_model int default null)
returns table (model_version int, subject text, psi double precision, bins text[], expected double precision[], observed double precision[], n bigint)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._answering(dynrec._recommender(recommender), null, by_model);
  profile jsonb;
begin
  select m.profile into profile from dynrec_data.model_version m where m.id = r.active_model_id;
  return query
    select r.active_model_id, x.subject, greatest(0, sum((x.observed - x.expected) * ln(greatest(x.observed, 0.0001) / greatest(x.expected, 0.0001)))
        - (count(*) filter (where x.expected > 0 or x.observed > 0) - 1) * (1.0::double precision / min(x.before) + 1.0::double precision / min(x.now))),
      dynrec._bin_names(x.edges, x.labels), array_agg(x.expected order by x.bin), array_agg(x.observed order by x.bin), min(x.now)::bigint
    from (
      select b.subject, b.edges, b.labels, c.bin, t.before, t.now, c.before / t.before::double precision as expected, c.now / t.now::double precision as observed
      from dynrec._binned(r, r.active_model_id, profile, (profile ->> 'until')::timestamptz, 'infinity') b
      join jsonb_to_recordset(profile -> 'subjects') as p (subject text, counts bigint[]) on p.subject = b.subject
      cross join lateral unnest(p.counts, b.counts) with ordinality as c (before, now, bin)
      cross join lateral (select nullif(sum(y.before), 0) as before, nullif(sum(y.now), 0) as now from unnest(p.counts, b.counts) as y (before, now)) t
    ) x
    where x.before is not null and x.now is not null and not row_security_active(r.items) and not coalesce(row_security_active(r.interactions), false)
    group by x.subject, x.edges, x.labels
    order by 3 desc, x.subject;
end
$$;
comment on function dynrec.data_drift(text, int) is
  'How far the inputs and vectors of the active model version (or by_model) have moved since it was made. subject: vectors (their cosines to the mean direction that they had then), items: a column of the catalogue, '
  'items met: a categorical column of the items in interactions, interactions: kind or value. expected: the shares of the bins then (of the training data, of a content model when its vectors were '
  'complete), observed: the shares now, of interactions since then; n: how many stand behind them. psi: the population stability index, sum((observed - expected) * ln(observed / expected)) with shares of at least 0.0001, less what '
  'samples of these sizes differ by chance (bins - 1) * (1 / n then + 1 / n now); by convention up to 0.1 is little, above 0.25 much. No row: nothing to compare yet, or row-level security hides rows of the sources from the caller.';
