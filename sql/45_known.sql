-- Which interactions were known when: those of today, less what came later, with what went later.

create or replace function dynrec._known_interactions() returns text
language sql immutable
as $template$ select $query$
    interaction as materialized (
      -- one row for each span of time in which an interaction was known so many times
      select s.* from (
        select c.user_id, c.item_id, c.kind, c.value, c.occurred_at, c.at as known_from, coalesce(lead(c.at) over one, 'infinity') as known_until,
          (sum(c.times) over one)::int as times
        from (
          select f.user_id, f.item_id, f.kind, f.value, f.occurred_at, f.at, sum(f.times) as times
          from (
            select i.*, '-infinity'::timestamptz as at, 1 as times from dynrec_data.interactions_all_{id}() i
            union all
            select l.user_id, l.item_id, l.kind, l.value, l.occurred_at, x.at, x.times
            from (
              select c.entity as user_id, c.item_id, c.event_kind as kind, c.value, c.occurred_at, c.op, c.captured_at
              from dynrec_data.change c where c.recommender_id = {id} and c.kind = 'user'
              union all
              select h.user_id, c.item_id, c.event_kind, c.value, c.occurred_at, c.op, c.captured_at
              from dynrec_data.user_vector_history h, jsonb_to_recordset(h.closing_events)
                as c (op text, item_id text, event_kind text, value double precision, occurred_at timestamptz, captured_at timestamptz)
              where h.model_id = {content_model} and h.replaced_at > $1
            ) l, lateral (select case when l.op in ('delete', 'went') then 1 else -1 end as sign) s,
              -- since there is a recommender that could know, and until it was captured, the opposite held
              lateral (values ({declared_at}, s.sign), (l.captured_at, -s.sign)) x (at, times)
            where l.op <> 'refresh' and l.captured_at > $1 and not $3
          ) f
          where f.occurred_at < $2 and (f.user_id in (select k.user_id from user_moment k) or f.item_id in (select k.item_id from item_moment k))
          group by f.user_id, f.item_id, f.kind, f.value, f.occurred_at, f.at
        ) c
        window one as (partition by c.user_id, c.item_id, c.kind, c.value, c.occurred_at order by c.at)
      ) s where s.times > 0 and s.known_from < $2 and s.known_until > s.occurred_at
    )$query$ $template$;
comment on function dynrec._known_interactions() is
  'Internal. Template, part of the query of training examples: the interactions before $2 that were known at moments from $1 on, with when; all of them always if $3 (backdated), '
  'and before the recommender was declared.';

create or replace function dynrec._known_then(version text, moment text) returns text
language sql immutable
set search_path from current
as $$
  select format('case when %1$s.created_at <= %2$s then %1$s.replaced_at is null or %1$s.replaced_at > %2$s else $3 end', version, moment)
$$;
comment on function dynrec._known_then(text, text) is
  'Internal. The condition that the version of an item that has the number of a moment (dynrec._number_then) was known then; if $3 (backdated), the first one also before it was.';

create or replace function dynrec._number_then(shelf text, moment text) returns text
language sql immutable
set search_path from current
as $$
  select format('greatest(width_bucket(%2$s, %1$s.begins), $3::int)', shelf, moment)
$$;
comment on function dynrec._number_then(text, text) is
  'Internal. The number of the latest version of an item that had begun at a moment, found by halving; before the first 0, or 1 if $3 (backdated).';

create or replace function dynrec._forgotten(rates double precision[], gap double precision) returns double precision[]
language sql immutable parallel safe
as $$
  select array[
    case when rates[1] > 1e-100 then rates[1] * dynrec._decay(gap, (dynrec._rate_half_lives())[1]) else 0 end,
    case when rates[2] > 1e-100 then rates[2] * dynrec._decay(gap, (dynrec._rate_half_lives())[2]) else 0 end,
    case when rates[3] > 1e-100 then rates[3] * dynrec._decay(gap, (dynrec._rate_half_lives())[3]) else 0 end,
    case when rates[4] > 1e-100 then rates[4] * dynrec._decay(gap, (dynrec._rate_half_lives())[4]) else 0 end,
    case when rates[5] > 1e-100 then rates[5] * dynrec._decay(gap, (dynrec._rate_half_lives())[5]) else 0 end]
$$;
comment on function dynrec._forgotten(double precision[], double precision) is 'Internal. Decayed counts, gap seconds later; what is next to nothing becomes 0, before it underflows.';

create or replace function dynrec._popularity_course(
  at timestamptz[], occurred_at timestamptz[], place bigint[], times bigint[], wanted bigint[])
returns table (moment timestamptz, age double precision, rates double precision[])
language plpgsql immutable
set search_path from current
as $$
#variable_conflict use_variable
declare
  step record;
  half_lives double precision[] := dynrec._rate_half_lives();
  sums double precision[] := '{0, 0, 0, 0, 0}';  -- as at the latest interaction that is known
  latest timestamptz;
  begun timestamptz[];  -- the times at which the item was met, the earliest first
  known bigint[];  -- and how many of the interactions of each time are known
  first bigint;  -- the earliest of which any is
begin
  -- one pass in the order of time: each sum is the one before, decayed, whatever the half-lives are
  for step in select s.* from unnest(at, occurred_at, place, times, wanted) as s (at, occurred_at, place, times, wanted) loop
    if step.occurred_at is null then
      moment := step.at;
      age := case when first is not null then dynrec._age(moment, begun[first]) end;
      rates := dynrec._forgotten(sums, dynrec._age(moment, latest));
      return next;
      continue;
    end if;
    sums := dynrec._forgotten(sums, dynrec._age(step.occurred_at, latest));
    latest := greatest(latest, step.occurred_at);
    age := dynrec._age(latest, step.occurred_at);
    sums := array[sums[1] + step.wanted * dynrec._decay(age, half_lives[1]), sums[2] + step.wanted * dynrec._decay(age, half_lives[2]),
      sums[3] + step.wanted * dynrec._decay(age, half_lives[3]), sums[4] + step.wanted * dynrec._decay(age, half_lives[4]),
      sums[5] + step.wanted * dynrec._decay(age, half_lives[5])];
    begun[step.place] := step.occurred_at;
    known[step.place] := coalesce(known[step.place], 0) + step.times;
    first := least(first, step.place);
    while known[first] is null or known[first] <= 0 loop
      first := case when first < array_upper(known, 1) then first + 1 end;
      exit when first is null;
    end loop;
  end loop;
end
$$;
comment on function dynrec._popularity_course(timestamptz[], timestamptz[], bigint[], bigint[], bigint[]) is
  'Internal. The popularity of one item at the moments of `at` where occurred_at is null: its age in seconds (null: never met) and its decayed counts. Elsewhere so many '
  'interactions of occurred_at, the place-th of its times, become known (below 0: are taken back), of which `wanted` count.';

