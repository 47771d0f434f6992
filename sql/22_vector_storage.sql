-- Changing how the item vectors of a model version are stored.

create or replace function dynrec._note_storage(recommender_id int) returns void
language sql
set search_path from current
as $$
  update dynrec_data.model_version m set vector_storage = 'mixed' from dynrec_data.recommender r
  where r.id = _note_storage.recommender_id and m.recommender_id = r.id and dynrec._is_live(m)
    and m.vector_storage not in (case when dynrec._in_half(r, m) then 'half' else 'full' end, 'mixed')
$$;
comment on function dynrec._note_storage(int) is 'Internal. Notes of which model versions vectors have to be converted, as others are stored from now on.';

create or replace function dynrec._convert_vectors(model_id int, at_most int default 5000) returns bigint
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender;
  m dynrec_data.model_version;
  leaf text := format('dynrec_data.item_vector_%s', model_id);
  in_half boolean;
  converted bigint;
  left_over boolean;
begin
  select v.* into m from dynrec_data.model_version v where v.id = model_id;
  if not dynrec._is_live(m) or m.vector_storage <> 'mixed' then
    return 0;
  end if;
  select dynrec._in_half(x, m) into in_half from dynrec_data.recommender x where x.id = m.recommender_id;
  -- what is being published at the moment is stored as it should be
  execute format($query$
    update %1$s v set embedding = %2$s, half = %3$s
    from (select x.item_id from %1$s x where x.%4$s is null limit $1 for update skip locked) o where v.item_id = o.item_id
    $query$, leaf,
    case when in_half then 'null' else 'v.half::vector' end, case when in_half then 'v.embedding::halfvec' else 'null' end,
    case when in_half then 'half' else 'embedding' end) using at_most;
  get diagnostics converted = row_count;
  if converted = 0 then
    -- nobody alters the recommender, and nobody is left who has begun to store by the code of before
    select x.* into r from dynrec_data.recommender x where x.id = m.recommender_id for update;
    select v.* into m from dynrec_data.model_version v where v.id = model_id;
    in_half := dynrec._in_half(r, m);
    execute format('lock table %s in share row exclusive mode', leaf);
    execute format('select exists (select from %s x where x.%s is null)', leaf, case when in_half then 'half' else 'embedding' end) into left_over;
    update dynrec_data.model_version v set vector_storage = case when in_half then 'half' else 'full' end where v.id = model_id and not left_over;
  end if;
  return converted;
end
$$;
comment on function dynrec._convert_vectors(int, int) is
  'Internal. Stores so many vectors of a model version as they are wanted now; how many there were. What is converted to half precision is rounded, and stays so when it is converted back.';
