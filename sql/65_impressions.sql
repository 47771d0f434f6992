-- Live traffic: what was shown, what users did about it, and how that is for each model version, arm, position or day.

create or replace function dynrec._check_impression(number bigint, given jsonb) returns void
language plpgsql immutable
set search_path from current
as $$
declare
  what text := format('impression %s', number);
  unknown text;
begin
  if jsonb_typeof(given) is distinct from 'object' then
    perform dynrec._reject(what || ': not a JSON object', given::text, 'Give for example {"user_id": "42", "item_ids": ["1", "2"]}.');
  end if;
  select key into unknown from jsonb_object_keys(given) key
  where key not in ('user_id', 'item_ids', 'shown_at', 'first_position', 'model_version', 'surface', 'experiment', 'arm', 'propensities') limit 1;
  if found then
    perform dynrec._reject(what || ': unknown field', unknown,
      'Fields are: user_id, item_ids, shown_at, first_position, model_version, surface, experiment, arm, propensities.');
  elsif given ->> 'user_id' is null then
    perform dynrec._reject(what || ': user_id is missing', given ->> 'user_id', 'Give the user''s key; for visitors without one the key of their session.');
  elsif jsonb_typeof(given -> 'item_ids') is distinct from 'array' or jsonb_array_length(given -> 'item_ids') not between 1 and 10000
    or exists (select from jsonb_array_elements(given -> 'item_ids') e where jsonb_typeof(e) not in ('string', 'number')) then
    perform dynrec._reject(what || ': item_ids is not an array of 1 to 10000 keys', left(coalesce(given ->> 'item_ids', 'null'), 200), 'Give what was shown, in its order.');
  elsif given ->> 'shown_at' is not null and not (pg_input_is_valid(given ->> 'shown_at', 'timestamptz') and isfinite((given ->> 'shown_at')::timestamptz)) then
    perform dynrec._reject(what || ': shown_at is not a moment', given ->> 'shown_at', 'Give a time such as 2026-01-31T12:00:00Z, or leave it out for now.');
  elsif given ->> 'first_position' is not null and not (pg_input_is_valid(given ->> 'first_position', 'integer') and (given ->> 'first_position')::int between 1 and 1000000) then
    perform dynrec._reject(what || ': first_position is out of range', given ->> 'first_position', 'Give 1 to 1000000.');
  elsif given ->> 'model_version' is not null and not pg_input_is_valid(given ->> 'model_version', 'integer') then
    perform dynrec._reject(what || ': model_version is not a number', given ->> 'model_version', 'Give the model_version that dynrec.recommend returned.');
  elsif given ->> 'arm' is not null and given ->> 'experiment' is null then
    perform dynrec._reject(what || ': an arm without an experiment', given ->> 'arm', 'Name the experiment, too.');
  elsif coalesce(given -> 'propensities', 'null') <> 'null' and (jsonb_typeof(given -> 'propensities') <> 'array'
      or jsonb_array_length(given -> 'propensities') <> jsonb_array_length(given -> 'item_ids')
      or exists (select from jsonb_array_elements(given -> 'propensities') p
                 where case when jsonb_typeof(p) = 'number' then not (p::numeric > 0 and p::numeric <= 1) else true end)) then
    perform dynrec._reject(what || ': propensities are not as many probabilities as items', given ->> 'propensities', 'Give for each item a number above 0 and up to 1.');
  end if;
  perform dynrec._check_length(what || ': user_id', given ->> 'user_id');
end
$$;
comment on function dynrec._check_impression(bigint, jsonb) is 'Internal. An error that names the field and the value unless an impression is one.';

create or replace function dynrec._arm_shown(r dynrec_data.recommender, number bigint, given jsonb, shown_at timestamptz, out experiment_id int, out arm_position smallint, out arm text)
language plpgsql stable
set search_path from current
as $$
declare
  e dynrec_data.experiment;
  assigned dynrec_data.experiment_arm;
begin
  if given ->> 'experiment' is null then
    return;
  end if;
  select x.* into e from dynrec_data.experiment x where x.recommender_id = r.id and x.name = given ->> 'experiment';
  if e.id is null then
    arm := given ->> 'arm';
    if arm is null then
      perform dynrec._reject(format('impression %s: an experiment of elsewhere without an arm', number), given ->> 'experiment',
        'Give its arm, too, or create the experiment with dynrec.create_experiment.');
    end if;
    return;
  end if;
  assigned := dynrec._arm(r, e, given ->> 'user_id', shown_at);
  if given ->> 'arm' is not null and given ->> 'arm' is distinct from assigned.name and not coalesce(e.ended_at <= shown_at, false) then
    perform dynrec._reject(format('impression %s: at %s the user was not in the arm', number, shown_at), given ->> 'arm',
      coalesce('The arm was ' || quote_literal(assigned.name), 'The user did not take part') || '; leave arm out, it is known.');
  end if;
  experiment_id := case when assigned.position is not null then e.id end;
  arm_position := assigned.position;
  arm := assigned.name;
end
$$;
comment on function dynrec._arm_shown(dynrec_data.recommender, bigint, jsonb, timestamptz) is
  'Internal. The arm that an impression belongs to: of an experiment of ours (with its id and the arm''s position) the one that the user was in, null for none; of one of elsewhere as it is given.';

create or replace function dynrec._expose(r dynrec_data.recommender, impressions jsonb, moment timestamptz) returns void
language sql
set search_path from current
as $$
  insert into dynrec_data.exposure as x (experiment_id, user_id, arm, exposed_at)
  select s.experiment_id, s.user_id, min(s.arm_position), min(s.shown_at)
  from (
    select a.experiment_id, dynrec._as_key(i.given ->> 'user_id', r.user_key_type) as user_id, a.arm_position, m.shown_at
    from jsonb_array_elements(impressions) with ordinality as i (given, number)
    cross join lateral (select coalesce((i.given ->> 'shown_at')::timestamptz, moment) as shown_at) m
    cross join lateral dynrec._arm_shown(r, i.number, i.given, m.shown_at) a
    where a.experiment_id is not null and not dynrec._is_forgotten(r, i.given ->> 'user_id')
  ) s
  -- who was exposed before is only read: nobody waits for another
  where not exists (select from dynrec_data.exposure e where e.experiment_id = s.experiment_id and e.user_id = s.user_id and e.exposed_at <= s.shown_at)
  group by s.experiment_id, s.user_id order by s.experiment_id, s.user_id
  on conflict on constraint exposure_pkey do update set exposed_at = excluded.exposed_at where excluded.exposed_at < x.exposed_at
$$;
comment on function dynrec._expose(dynrec_data.recommender, jsonb, timestamptz) is
  'Internal. Notes the first exposures of the users of lists that were shown (those without a time of their own: at moment); the lists are valid.';

create or replace function dynrec.log_impressions(recommender text, impressions jsonb) returns bigint
language plpgsql
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  moment timestamptz := clock_timestamp();
  logged bigint;
begin
  if jsonb_typeof(impressions) is distinct from 'array' then
    perform dynrec._reject('impressions: not a JSON array', left(impressions::text, 200), 'Give for example [{"user_id": "42", "item_ids": ["1", "2"], "model_version": 1}].');
  end if;
  perform dynrec._check_may_note('impressions');
  -- whoever is forgotten meanwhile is forgotten after this
  perform pg_advisory_xact_lock_shared(hashtext('dynrec.forget'), r.id);
  perform dynrec._check_impression(i.number, i.given) from jsonb_array_elements(impressions) with ordinality as i (given, number);
  insert into dynrec_data.impression
    (recommender_id, user_id, shown_at, item_ids, first_position, model_version, surface, experiment, arm, propensities)
  select r.id, dynrec._as_key(i.given ->> 'user_id', r.user_key_type), m.shown_at,
    array(select dynrec._as_key(e.item, r.item_key_type) from jsonb_array_elements_text(i.given -> 'item_ids') with ordinality as e (item, place) order by e.place),
    coalesce((i.given ->> 'first_position')::int, 1), (i.given ->> 'model_version')::int, i.given ->> 'surface',
    case when a.arm is not null then i.given ->> 'experiment' end, a.arm,
    case when coalesce(i.given -> 'propensities', 'null') <> 'null' then array(
      select p.propensity::double precision from jsonb_array_elements_text(i.given -> 'propensities') with ordinality as p (propensity, place) order by p.place) end
  from jsonb_array_elements(impressions) with ordinality as i (given, number)
  cross join lateral (select coalesce((i.given ->> 'shown_at')::timestamptz, moment) as shown_at) m
  cross join lateral dynrec._arm_shown(r, i.number, i.given, m.shown_at) a
  where (select not exists (select from dynrec_data.forgotten_user f where f.recommender_id = r.id)) or not dynrec._is_forgotten(r, i.given ->> 'user_id');
  get diagnostics logged = row_count;
  if exists (select from jsonb_array_elements(impressions) i where i ->> 'experiment' is not null) then
    -- a statement of its own: who names no experiment needs no right on exposures
    perform dynrec._check_sees_all(array[r.interactions], 'exposures are not for it');
    perform dynrec._expose(r, impressions, moment);
  end if;
  return logged;
end
$$;
comment on function dynrec.log_impressions(text, jsonb) is
  'Notes lists that were shown, many in one call: an array of objects with user_id, item_ids (in the order shown) and, where known, model_version, '
  'shown_at (default: now), first_position (default 1; 11 for a second page of ten), surface (where), experiment, arm (only of experiments of elsewhere: of ours it is known, and a user who does '
  'not take part is noted without), propensities (with which probability each item was shown where it was, above 0 and up to 1). Returns how many. Nothing is noted if one of them is wrong. '
  'One row and one index entry a list; kept for the option retention. The first list of an experiment that a user is shown is the exposure to it. Lists of users who were forgotten are left out.';

create or replace function dynrec.log_impressions(
  recommender text, user_id text, item_ids text[], model_version int default null, surface text default null,
  experiment text default null, arm text default null)
returns bigint
language sql
set search_path from current
as $$
  select dynrec.log_impressions(recommender, jsonb_build_array(jsonb_build_object('user_id', user_id, 'item_ids', item_ids,
    'model_version', model_version, 'surface', surface, 'experiment', experiment, 'arm', arm)))
$$;
comment on function dynrec.log_impressions(text, text, text[], int, text, text, text) is 'Notes one list that was shown just now; fields as in dynrec.log_impressions(text, jsonb).';

create or replace function dynrec.attributed_impressions(recommender text, "from" timestamptz, "to" timestamptz, within interval default '1 day')
returns table (list_id uuid, shown_at timestamptz, user_id text, item_id text, "position" int, model_version int, surface text, experiment text, arm text,
  propensity double precision, kinds text[], event_values double precision[], value double precision, satisfaction double precision, first_at timestamptz)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  until timestamptz;
begin
  if r.interactions is null then
    perform dynrec._reject('a recommender without interactions cannot say what users did', r.name, 'Declare one with interactions => ….');
  elsif "from" is null or "to" is null or not isfinite("from") or not isfinite("to") or "from" >= "to" then
    perform dynrec._reject('the period is not one', format('%s to %s', coalesce("from"::text, 'null'), coalesce("to"::text, 'null')), 'Give two moments, the earlier first.');
  elsif within is null or not isfinite(within) or not dynrec._seconds(within) between 1 and 31536000 then
    perform dynrec._reject('within is out of range', within::text, 'Give how long after it was shown an interaction counts: 1 second to 365 days.');
  end if;
  -- no time lies beyond the calendar's end
  until := case when "to" < '294000-01-01' then "to" + within else 'infinity' end;
  return query execute format($query$
    with shown as materialized (
      select l.list_id, l.shown_at, l.user_id, i.item_id, l.first_position + i.place::int - 1 as position, l.model_version, l.surface, l.experiment, l.arm,
        l.propensities[i.place] as propensity
      from dynrec_data.impression l, unnest(l.item_ids) with ordinality as i (item_id, place)
      where l.recommender_id = %1$s and l.shown_at >= $1 and l.shown_at < $4
    ), event as materialized (
      select row_number() over () as event, i.* from dynrec_data.interactions_all_%1$s() i where i.occurred_at >= $1 and i.occurred_at < $4
    ), attributed as (
      select distinct on (e.event) e.*, s.list_id, s.position
      from event e join shown s on s.user_id = e.user_id and s.item_id = e.item_id and s.shown_at <= e.occurred_at and s.shown_at > e.occurred_at - $3
      order by e.event, s.shown_at desc, s.position, s.list_id
    ), summed as (
      select a.list_id, a.position, array_agg(a.kind order by a.occurred_at, a.kind) as kinds,
        array_agg(a.value order by a.occurred_at, a.kind) as event_values, sum(a.value) as value,
        sum(dynrec_data.kind_weight_%1$s(a.kind, a.value)) as satisfaction, min(a.occurred_at) as first_at
      from attributed a group by a.list_id, a.position
    )
    select s.list_id, s.shown_at, s.user_id, s.item_id, s.position, s.model_version, s.surface, s.experiment, s.arm, s.propensity,
      coalesce(x.kinds, '{}'), coalesce(x.event_values, '{}'), x.value, coalesce(x.satisfaction, 0), x.first_at
    from shown s left join summed x on x.list_id = s.list_id and x.position = s.position
    where s.shown_at < $2
    $query$, r.id) using "from", "to", within, until;
end
$$;
comment on function dynrec.attributed_impressions(text, timestamptz, timestamptz, interval) is
  'Each item of the lists that were shown in [from, to), with what its user did about it: an interaction counts for the last time that the item was'
  ' shown to the user before it, if that was less than within ago. kinds: of these interactions, in the order of time, event_values: their values in that order; value: the sum of these '
  'values, null where none has one; satisfaction: the sum of their weights as the recommender declares them, by which a return counts against a '
  'list; first_at: the first of them. That a user acts after seeing an item does not say that seeing it was the reason.';

create or replace function dynrec._check_kind_weights(kind_weights jsonb) returns void
language plpgsql immutable
set search_path from current
as $$
declare
  wrong record;
begin
  if kind_weights is not null and jsonb_typeof(kind_weights) <> 'object' then
    perform dynrec._reject('kind_weights: not a JSON object', left(kind_weights::text, 200), 'Give for example {"purchase": 5, "return": -8}.');
  end if;
  select w.key, w.value into wrong from jsonb_each(kind_weights) w
  where case when jsonb_typeof(w.value) = 'number' then abs((w.value #>> '{}')::numeric) > 1000000 else true end limit 1;
  if found then
    perform dynrec._reject(format('kind_weights.%s: not a number in range', left(wrong.key, 200)), wrong.value #>> '{}', 'Give a number from -1000000 to 1000000.');
  end if;
end
$$;
comment on function dynrec._check_kind_weights(jsonb) is 'Internal. An error unless it is null or an object of numbers.';

create or replace function dynrec._weighed(kinds text[], kind_weights jsonb) returns double precision
language sql immutable parallel safe
as $$
  select coalesce(sum(coalesce(kind_weights ->> k.kind, kind_weights ->> '*', '0')::double precision), 0) from unnest(kinds) as k (kind)
$$;
comment on function dynrec._weighed(text[], jsonb) is 'Internal. The sum of the weights of kinds.';

create or replace function dynrec.online_metrics(
  recommender text, "from" timestamptz, "to" timestamptz, by text[] default '{model_version}', within interval default '1 day',
  click_kinds text[] default null, conversion_kinds text[] default null, kind_weights jsonb default null)
returns table (model_version int, surface text, experiment text, arm text, "position" int, day date, lists bigint, users bigint, impressions bigint,
  click_through double precision, click_through_error double precision, conversion double precision, conversion_error double precision,
  value_per_impression double precision, satisfaction double precision, mean_value double precision)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  unknown text;
begin
  perform dynrec._check_kind_weights(kind_weights);
  select b into unknown from unnest(by) b where b is null or b not in ('model_version', 'surface', 'experiment', 'arm', 'position', 'day') limit 1;
  if found then
    perform dynrec._reject('by: unknown name', unknown, 'Lists can be told apart by: model_version, surface, experiment, arm, position, day.');
  end if;
  return query
    with item as (
      select i.list_id, i.user_id, case when 'model_version' = any (by) then i.model_version end as model_version, case when 'surface' = any (by) then i.surface end as surface,
        case when 'experiment' = any (by) then i.experiment end as experiment, case when 'arm' = any (by) then i.arm end as arm,
        case when 'position' = any (by) then i.position end as position, case when 'day' = any (by) then (i.shown_at at time zone 'UTC')::date end as day,
        (case when click_kinds is null then cardinality(i.kinds) > 0 else i.kinds && click_kinds end)::int as clicked,
        (case when conversion_kinds is not null then i.kinds && conversion_kinds end)::int as converted, coalesce(i.value, 0) as value,
        case when kind_weights is null then i.satisfaction else dynrec._weighed(i.kinds, kind_weights) end as satisfaction,
        cardinality(array_remove(i.event_values, null)) as valued
      from dynrec.attributed_impressions(recommender, "from", "to", within) i
    ), one as (
      -- users are the unit: what one of them does with several items is not independent
      select i.model_version, i.surface, i.experiment, i.arm, i.position, i.day, i.user_id, count(*) as shown, sum(i.clicked) as clicked, sum(i.converted) as converted,
        sum(i.value) as value, sum(i.satisfaction) as satisfaction, sum(i.valued) as valued, count(distinct i.list_id) as lists
      from item i group by i.model_version, i.surface, i.experiment, i.arm, i.position, i.day, i.user_id
    ), total as (
      select o.model_version, o.surface, o.experiment, o.arm, o.position, o.day, sum(o.lists)::bigint as lists, count(*) as users, sum(o.shown)::double precision as shown,
        sum(o.clicked)::double precision as clicked, sum(o.converted)::double precision as converted, sum(o.value) as value, sum(o.satisfaction) as satisfaction, sum(o.valued) as valued,
        regr_syy(o.clicked, o.shown) as clicked_squares, regr_sxx(o.clicked, o.shown) as shown_squares, regr_sxy(o.clicked, o.shown) as clicked_products,
        regr_syy(o.converted, o.shown) as converted_squares, regr_sxy(o.converted, o.shown) as converted_products
      from one o group by o.model_version, o.surface, o.experiment, o.arm, o.position, o.day
    )
    select t.model_version, t.surface, t.experiment, t.arm, t.position, t.day, t.lists, t.users, t.shown::bigint,
      t.clicked / t.shown, dynrec._ratio_error(t.clicked / t.shown, t.users, t.shown, t.clicked_squares, t.shown_squares, t.clicked_products),
      t.converted / t.shown, dynrec._ratio_error(t.converted / t.shown, t.users, t.shown, t.converted_squares, t.shown_squares, t.converted_products),
      t.value / t.shown, t.satisfaction / t.lists, t.value / nullif(t.valued, 0)
    from total t
    order by t.model_version, t.surface, t.experiment, t.arm, t.position, t.day;
end
$$;
comment on function dynrec.online_metrics(text, timestamptz, timestamptz, text[], interval, text[], text[], jsonb) is
  'How users took to what they were shown in [from, to), by the dimensions that by names (model_version, surface, experiment, arm, position, day in'
  ' UTC; the others are null). impressions: items shown. click_through: the share of them that their user met within the time (by one of '
  'click_kinds, default any); conversion: by one of conversion_kinds (null without); value_per_impression: the sum of the values of these '
  'interactions, divided by impressions; satisfaction: the sum of their weights as the recommender declares its kinds (times the value, such as a '
  'rating), or by kind_weights, such as {"purchase": 5, "return": -8, "*": 0} (* is every other kind, 0 if it is not there), divided by lists; mean_value: the mean of the values, such as ratings, of those of them that have one. The errors are standard errors with users as the unit, by the delta method for a ratio (Deng, Knoblich & Lu, KDD '
  '2018); null for one user. Attribution as in dynrec.attributed_impressions.';

create or replace function dynrec._ratio_error(
  ratio double precision, n bigint, total double precision, yy double precision, xx double precision, xy double precision) returns double precision
language sql immutable parallel safe
as $$ select case when n > 1 then sqrt(greatest(yy - 2 * ratio * xy + ratio * ratio * xx, 0) / (n - 1) * n) / nullif(total, 0) end $$;
comment on function dynrec._ratio_error(double precision, bigint, double precision, double precision, double precision, double precision) is
  'Internal. The standard error of sum(y) / sum(x) over n independent units: sqrt(n * var(y - ratio * x)) / sum(x), from the sums of squares and '
  'products about the means.';
