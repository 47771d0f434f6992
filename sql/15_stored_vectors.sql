-- How the item vectors of a model version are stored: in full, or in half precision, in another column of the same row.

create or replace function dynrec._vector(embedding vector, half halfvec) returns vector
language sql immutable parallel safe
-- parsed once, whatever the search path of whoever calls, and still inlined
begin atomic
  select coalesce(embedding, half::vector);
end;
comment on function dynrec._vector(vector, halfvec) is 'Internal. The vector of a row, in whichever of its columns it is.';

create or replace function dynrec._rounded(embedding vector, in_half boolean) returns vector
language sql immutable parallel safe
set search_path from current
as $$ select case when in_half then embedding::halfvec::vector else embedding end $$;
comment on function dynrec._rounded(vector, boolean) is 'Internal. A vector as it will be stored: whatever is made of it is made of that.';

create or replace function dynrec._in_half(r dynrec_data.recommender, m dynrec_data.model_version) returns boolean
language sql immutable
set search_path from current
as $$ select r.options ->> 'vector_storage' = 'half' and m.vector_index <> 'full' $$;
comment on function dynrec._in_half(dynrec_data.recommender, dynrec_data.model_version) is
  'Internal. Whether vectors of a model version are stored in half precision from now on: not while reads go through an index over full ones, which would miss them.';
