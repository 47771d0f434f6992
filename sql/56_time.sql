-- Point-in-time reads of vectors and their versions.

create or replace function dynrec.item_vector_at(recommender text, item_id text, as_of timestamptz default now()) returns vector
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  return (dynrec._vectors_of(dynrec._answering(r, as_of, null), array[dynrec._as_key(item_id, r.item_key_type)], as_of))[1];
end
$$;
comment on function dynrec.item_vector_at(text, text, timestamptz) is 'The vector of an item as known at a moment; null if it had none then.';

create or replace function dynrec.user_vector_at(recommender text, user_id text, as_of timestamptz default null) returns vector
language plpgsql stable
set search_path from current
as $$
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
begin
  if r.interactions is null or not dynrec._is_key(user_id, r.user_key_type) then
    return null;
  end if;
  return (dynrec._asked(dynrec._answering(r, as_of, null), user_id, as_of)).query;
end
$$;
comment on function dynrec.user_vector_at(text, text, timestamptz) is
  'The vector of a user as known at a moment (null: now, with the last committed interaction); null if nothing was known. In a content space of unit length; '
  'of a learned model the query whose inner product with an item''s vector is the personal part of its score.';

create or replace function dynrec.item_history(recommender text, item_id text)
returns table (version int, valid_from timestamptz, valid_to timestamptz, created_at timestamptz, replaced_at timestamptz, embedding vector,
  content_hash text, features jsonb, is_current boolean)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  r dynrec_data.recommender := dynrec._recommender(recommender);
  key text := dynrec._as_key(item_history.item_id, r.item_key_type);
begin
  return query
    with made as (
      select h.valid_from, h.valid_to, h.created_at, h.replaced_at, dynrec._vector(h.embedding, h.half) as embedding from dynrec_data.item_vector_history h
      where h.model_id = r.active_model_id and h.item_id = key
      union all
      select v.valid_from, null, v.created_at, null, dynrec._vector(v.embedding, v.half) from dynrec_data.item_vector v
      where v.model_id = r.active_model_id and v.item_id = key
    ), content as (
      select h.valid_from, h.valid_to, h.content_hash, h.features from dynrec_data.item_content_history h
      where h.recommender_id = r.id and h.item_id = key
      union all
      select c.valid_from, null, c.content_hash, c.features from dynrec_data.item_content c
      where c.recommender_id = r.id and c.item_id = key
    )
    select (row_number() over (order by m.valid_from))::int, m.valid_from, m.valid_to, m.created_at, m.replaced_at, m.embedding,
      encode(c.content_hash, 'hex'), c.features, m.valid_to is null
    from made m left join lateral (
      select * from content c where c.valid_from <= m.valid_from and (c.valid_to is null or c.valid_to > m.valid_from)
      order by c.valid_from desc limit 1
    ) c on true
    order by m.valid_from;
end
$$;
comment on function dynrec.item_history(text, text) is
  'Every kept version of an item''s vector, oldest first: valid_from to valid_to when it was true in the world, created_at to replaced_at when the system '
  'knew it (null: still), with the hash of the text and the features it began with.';

create or replace function dynrec.drift(recommender text, item_id text)
returns table (version int, valid_from timestamptz, cosine_distance double precision)
language sql stable
set search_path from current
as $$
  select h.version, h.valid_from, h.embedding <=> lag(h.embedding) over (order by h.version)
  from dynrec.item_history(recommender, item_id) h order by h.version
$$;
comment on function dynrec.drift(text, text) is
  'How far an item''s vector moved: the cosine distance (0 to 2) of each version from the one before; null for the first.';
