-- Users who were forgotten: of them only a hash is kept, and generated code leaves them out.

create or replace function dynrec._user_hash(recommender_id int, user_id text) returns bytea
language sql immutable parallel safe
as $$ select sha256(convert_to(recommender_id || ':' || user_id, 'UTF8')) $$;
comment on function dynrec._user_hash(int, text) is
  'Internal. What is kept of a user who was forgotten: the SHA-256 of the number of the recommender and the key.';

create or replace function dynrec._known_user(r dynrec_data.recommender, key text) returns text
language sql stable
set search_path from current
as $$
  select case when exists (select from dynrec_data.forgotten_user f where f.recommender_id = r.id)
    -- triggers outlive schema dynrec while a database is migrated: nothing of it is named here
    then format('not exists (select from dynrec_data.forgotten_user f where f.recommender_id = %s and f.user_hash = sha256(convert_to(%L || %s, ''UTF8'')))',
      r.id, r.id || ':', key)
    else 'true' end
$$;
comment on function dynrec._known_user(dynrec_data.recommender, text) is
  'Internal. The condition in generated code that the user of an expression was not forgotten; nothing is asked where nobody was.';

create or replace function dynrec._is_forgotten(r dynrec_data.recommender, user_id text) returns boolean
language sql stable
set search_path from current
as $$
  select exists (select from dynrec_data.forgotten_user f
    where f.recommender_id = r.id and f.user_hash = dynrec._user_hash(r.id, dynrec._as_key(user_id, r.user_key_type)))
$$;
comment on function dynrec._is_forgotten(dynrec_data.recommender, text) is 'Internal. Whether a user was forgotten.';
