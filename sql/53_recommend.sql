-- The public reads. Each says in `source` which path made the row.

create or replace function dynrec._check_read(
  r dynrec_data.recommender, k int, filter text, filter_args jsonb, diversity double precision, as_of timestamptz) returns void
language plpgsql stable
set search_path from current
as $$
begin
  perform dynrec._check_k(k);
  if diversity is null or not diversity between 0 and 1 then
    perform dynrec._reject('diversity is out of range', diversity::text, 'Give 0 (by score alone) to 1 (as different as possible).');
  end if;
  if as_of is not null and (not isfinite(as_of) or as_of > clock_timestamp()) then
    perform dynrec._reject('as_of is not a moment of the past', as_of::text, 'Leave it out for the present.');
  end if;
  if filter is not null then
    perform dynrec._check_filter(r, filter, filter_args);
  end if;
end
$$;
comment on function dynrec._check_read(dynrec_data.recommender, int, text, jsonb, double precision, timestamptz) is
  'Internal. Validates the arguments that all reads share.';

create or replace function dynrec._excluded(r dynrec_data.recommender, exclude_items text[]) returns text[]
language sql stable
set search_path from current
as $$ select coalesce(dynrec._as_keys(exclude_items, r.item_key_type), '{}') $$;
comment on function dynrec._excluded(dynrec_data.recommender, text[]) is 'Internal. The items to leave out, as the source writes their keys; none for null.';

create or replace function dynrec._plainly_excluded(exclude_items text[], key_type text) returns text[]
language sql stable
as $$ select case when cardinality(exclude_items) > 0 then dynrec._as_keys(exclude_items, key_type) else '{}' end $$;
comment on function dynrec._plainly_excluded(text[], text) is 'Internal. As _excluded, in line where it is called.';

create or replace function dynrec._recommend_plainly(recommender text, user_id text, k int, exclude_items text[], exclude_seen boolean)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  plain record;
begin
  select r.active_model_id, r.user_key_type, r.item_key_type, (r.options ->> 'exclude_seen')::boolean as exclude_seen into plain
  from dynrec_data.recommender r
  where r.name = recommender and r.interactions is not null
    and case when r.user_key_type = 'text' then user_id is not null else pg_input_is_valid(user_id, r.user_key_type) end;
  if found then
    return query execute format('select * from dynrec_data.recommend_m%s($1, $2, $3, $4)', plain.active_model_id)
      using dynrec._as_key(user_id, plain.user_key_type), k,
        dynrec._plainly_excluded(exclude_items, plain.item_key_type),
        coalesce(exclude_seen, plain.exclude_seen);
  end if;
end
$$;
comment on function dynrec._recommend_plainly(text, text, int, text[], boolean) is
  'Internal. k personal recommendations without filter, diversity or time travel; no rows if anything stands in the way.';

create or replace function dynrec._similar_plainly(recommender text, item text, k int, exclude_items text[])
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  plain record;
begin
  select r.active_model_id, r.item_key_type into plain
  from dynrec_data.recommender r where r.name = recommender and dynrec._is_key(item, r.item_key_type);
  if found then
    return query execute format('select * from dynrec_data.similar_m%s($1, $2, $3)', plain.active_model_id)
      using dynrec._as_key(item, plain.item_key_type), k, dynrec._plainly_excluded(exclude_items, plain.item_key_type);
  end if;
end
$$;
comment on function dynrec._similar_plainly(text, text, int, text[]) is
  'Internal. k items like one without filter, diversity or time travel; no rows if anything stands in the way.';

create or replace function dynrec._session_plainly(recommender text, item_ids text[], k int, exclude_items text[])
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  plain record;
begin
  select m.id as model_id, r.item_key_type into plain
  from dynrec_data.recommender r join dynrec_data.model_version m on m.id = r.active_model_id and m.kind = 'content'
  where r.name = recommender;
  if found then
    return query execute format('select * from dynrec_data.session_list_m%s($1, $2, $3)', plain.model_id)
      using dynrec._as_keys(item_ids, plain.item_key_type), k, dynrec._plainly_excluded(exclude_items, plain.item_key_type);
  end if;
end
$$;
comment on function dynrec._session_plainly(text, text[], int, text[]) is
  'Internal. k recommendations for a session from a content space without filter, diversity or time travel; no rows if anything stands in the way.';

create or replace function dynrec._arm_served(recommender text, experiment text, user_id text, moment timestamptz, by_model int) returns dynrec_data.experiment_arm
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  e dynrec_data.experiment := dynrec._experiment(r, experiment);
begin
  if by_model is not null then
    perform dynrec._reject('by_model and experiment cannot both say which model version answers', by_model::text, 'Give one of them.');
  end if;
  return dynrec._arm(r, e, user_id, moment);
end
$$;
comment on function dynrec._arm_served(text, text, text, timestamptz, int) is
  'Internal. The arm of an experiment that a call of dynrec.recommend is answered by; null for who does not take part.';

create or replace function dynrec.recommend(
  recommender text, user_id text, k int default 10, filter text default null, filter_args jsonb default '{}', exclude_items text[] default '{}',
  exclude_seen boolean default null, diversity double precision default 0, as_of timestamptz default null, by_model int default null,
  experiment text default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender;
  arm dynrec_data.experiment_arm;
begin
  if experiment is not null then
    arm := dynrec._arm_served(recommender, experiment, user_id, coalesce(as_of, clock_timestamp()), by_model);
    by_model := coalesce(arm.model_id, by_model);
    diversity := coalesce((arm.options ->> 'diversity')::double precision, diversity);
    exclude_seen := coalesce((arm.options ->> 'exclude_seen')::boolean, exclude_seen);
  end if;
  if filter is null and as_of is null and diversity = 0 and k between 1 and 10000 and by_model is null then
    -- the plain case, with nothing to validate; no rows mean that the long way has to be taken
    return query select * from dynrec._recommend_plainly(recommender, user_id, k, exclude_items, exclude_seen);
    if found then
      return;
    end if;
  end if;
  r := dynrec._recommender(recommender);
  if user_id is null then
    perform dynrec._reject('user_id is missing', user_id, 'Give the user''s key as text; for visitors without one use dynrec.recommend_for_items.');
  end if;
  perform dynrec._check_read(r, k, filter, filter_args, diversity, as_of);
  r := dynrec._answering(r, as_of, by_model);
  return query select * from dynrec._recommended(r, user_id, k, filter, filter_args, dynrec._excluded(r, exclude_items),
    case when coalesce(exclude_seen, (r.options ->> 'exclude_seen')::boolean) then dynrec._seen(r, user_id, as_of) end, diversity, as_of);
end
$$;
comment on function dynrec.recommend(text, text, int, text, jsonb, text[], boolean, double precision, timestamptz, int, text) is
  'k items for a user, best first: exactly k rows whenever k eligible items exist. score: in a content space the cosine of the user''s and the item''s vector, by a learned model '
  'the inner product plus its terms for what follows the last interactions, popularity and repeats (source personal; trending and repeat: candidates that came from there), '
  'decayed popularity (trending: nothing is known of the user, or too few vectors), 0 (fallback). The last committed interaction counts, '
  'whether a worker has run or not. filter: a predicate over the item source''s columns, run with the caller''s rights; args ->> ''name'' reads filter_args. '
  'exclude_seen: leave out what the user met (default: the recommender''s option). diversity: 0 to 1 (maximal marginal relevance). '
  'as_of: the answer as it was at that moment, by the model version that answered then. by_model: the answer of another live model version. '
  'experiment: as the arm that the user is in says (dynrec.create_experiment); who does not take part is served as without it.';

create or replace function dynrec.recommend_for_items(
  recommender text, item_ids text[], k int default 10, filter text default null, filter_args jsonb default '{}', exclude_items text[] default '{}',
  diversity double precision default 0, as_of timestamptz default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  session record;
begin
  if filter is null and as_of is null and diversity = 0 and k between 1 and 10000 then
    return query select * from dynrec._session_plainly(recommender, item_ids, k, exclude_items);
    if found then
      return;
    end if;
  end if;
  r := dynrec._recommender(recommender);
  if item_ids is null then
    perform dynrec._reject('item_ids is missing', null, 'Give the items of the session, an empty array if there are none yet.');
  end if;
  perform dynrec._check_read(r, k, filter, filter_args, diversity, as_of);
  r := dynrec._answering(r, as_of, null);
  execute format('select s.query, s.context from dynrec_data.session_m%s($1, $2) s', r.active_model_id)
    into session using dynrec._as_keys(item_ids, r.item_key_type), as_of;
  return query select * from dynrec._ranked(r, session.query, session.context, null, 'session', k,
    dynrec._excluded(r, exclude_items) || dynrec._excluded(r, item_ids), filter, filter_args, diversity, as_of,
    session => dynrec._as_keys(item_ids, r.item_key_type));
end
$$;
comment on function dynrec.recommend_for_items(text, text[], int, text, jsonb, text[], double precision, timestamptz) is
  'k items for an anonymous session, from the items it has met (in a content space each counts alike, a learned model takes the last as the latest; unknown ones are ignored), '
  'which are left out themselves. source: session, then trending and fallback as in dynrec.recommend.';

create or replace function dynrec.similar_items(
  recommender text, item text, k int default 10, filter text default null, filter_args jsonb default '{}', exclude_items text[] default '{}',
  diversity double precision default 0, as_of timestamptz default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  anchor vector;
begin
  if filter is null and as_of is null and diversity = 0 and k between 1 and 10000 then
    return query select * from dynrec._similar_plainly(recommender, item, k, exclude_items);
    if found then
      return;
    end if;
  end if;
  r := dynrec._recommender(recommender);
  perform dynrec._check_read(r, k, filter, filter_args, diversity, as_of);
  r := dynrec._answering(r, as_of, null);
  anchor := dynrec._anchor(r, item, as_of);
  return query select * from dynrec._ranked(r, dynrec._without_bias(r, anchor), null, null, 'similar', k, dynrec._excluded(r, exclude_items) || dynrec._as_key(item, r.item_key_type), filter, filter_args, diversity, as_of);
end
$$;
comment on function dynrec.similar_items(text, text, int, text, jsonb, text[], double precision, timestamptz) is
  'k items like an item, by the inner product of their vectors, in a content space the cosine (source similar); an item that has no vector yet gets trending and fallback rows. '
  'Raises no_data_found for an item that is not in the source.';

create or replace function dynrec._without_bias(r dynrec_data.recommender, embedding vector) returns vector
language sql stable
set search_path from current
as $$
  select case m.kind when 'content' then embedding else subvector(embedding, 1, m.dimension - 1) || '[0]'::vector end
  from dynrec_data.model_version m where m.id = r.active_model_id
$$;
comment on function dynrec._without_bias(dynrec_data.recommender, vector) is
  'Internal. What to ask for in order to find items like one: its own vector, of a learned model without the bias.';

create or replace function dynrec._anchor(r dynrec_data.recommender, item_id text, as_of timestamptz) returns vector
language plpgsql stable
set search_path from current
as $$
declare
  present boolean := false;
  anchor vector;
begin
  if item_id is null then
    perform dynrec._reject('item_id is missing', item_id, 'Give the item''s key as text.');
  end if;
  anchor := (dynrec._vectors_of(r, array[dynrec._as_key(item_id, r.item_key_type)], as_of))[1];
  if as_of is not null then
    present := anchor is not null;
  elsif dynrec._is_key(item_id, r.item_key_type) then
    execute format('select exists (select from dynrec_data.source_items_%s(array[$1]))', r.id) into present using item_id;
  end if;
  if not present then
    raise exception 'recommender % has no item %', quote_literal(r.name), dynrec._quoted(item_id)
      using errcode = 'no_data_found', hint = format('Give a key that is in %s.%s%s.', r.items, r.item_key,
        case when as_of is null then '' else ' and had a vector at ' || as_of end);
  end if;
  return anchor;
end
$$;
comment on function dynrec._anchor(dynrec_data.recommender, text, timestamptz) is
  'Internal. The vector of an item that must exist (null while it has none yet); no_data_found otherwise.';

create or replace function dynrec.trending(
  recommender text, k int default 10, filter text default null, filter_args jsonb default '{}', exclude_items text[] default '{}',
  as_of timestamptz default null)
returns table (item_id text, rank int, score double precision, source text, model_version int)
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  perform dynrec._check_read(r, k, filter, filter_args, 0, as_of);
  r := dynrec._answering(r, as_of, null);
  return query select * from dynrec._ranked(r, null, null, null, 'trending', k, dynrec._excluded(r, exclude_items), filter, filter_args, 0, as_of);
end
$$;
comment on function dynrec.trending(text, int, text, jsonb, text[], timestamptz) is
  'The k items of the highest popularity, each interaction weighted by its kind and halved every trending_half_life (source trending), then any item (fallback).';
