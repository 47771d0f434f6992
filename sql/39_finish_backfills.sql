-- The end of a backfill: model versions become complete in the shadow, and those that were to be promoted are.

create or replace function dynrec._finish_backfills() returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  finished bigint;
begin
  update dynrec_data.model_version m set state = 'shadow'
  where m.state = 'backfilling'
    and not exists (select from dynrec_data.task t where t.recommender_id = m.recommender_id and t.action in ('scan_derived', 'fill_users', 'popularity'))
    and not exists (select from dynrec_data.change c where c.recommender_id = m.recommender_id and c.kind in ('derived', 'user') and c.lane = 1)
    and not exists (select from dynrec_data.lease l where l.recommender_id = m.recommender_id and l.kind in ('derived', 'user') and l.lane = 1)
    and (dynrec._has_vector_index(m.id) or not exists (select from dynrec_data.item_vector v where v.model_id = m.id));
  get diagnostics finished = row_count;
  perform dynrec.promote_model(r.name, m.id)
  from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id
  where m.state = 'shadow' and m.options -> 'promote' = 'true' and m.id > r.active_model_id and not dynrec._loses(m)
    -- one that goes on from another was compared with that one
    and coalesce(m.parent_model_id = r.active_model_id, true)
    -- nobody asked to go back to an encoder that was left since
    and exists (select from dynrec_data.model_version b where b.id = m.base_model_id and (b.id = r.content_model_id or b.state = 'shadow'))
  order by m.id;
  insert into dynrec_data.task (recommender_id, action, entity)
  select m.recommender_id, 'retire', m.id::text from dynrec_data.model_version m
  where m.state in ('shadow', 'standby') and dynrec._is_superseded(m) and not exists (
    select from dynrec_data.task t where t.recommender_id = m.recommender_id and t.action = 'retire' and t.entity = m.id::text);
  return finished;
end
$$;
comment on function dynrec._finish_backfills() is
  'Internal. Model versions whose items and users are all there, with their index, answer in the shadow from now on; those that were to be promoted are, unless they lost, '
  'or go on from a model that no longer answers. Of those that lost the newest stays; what an experiment or a training needed goes once they have ended.';

create or replace function dynrec._has_vector_index(model int) returns boolean
language sql stable
set search_path from current
as $$
  select coalesce((select dynrec._index_stands(m.id, m.vector_index) from dynrec_data.model_version m where m.id = model), false)
$$;
comment on function dynrec._has_vector_index(int) is 'Internal. Whether the HNSW index that the reads of a model version use stands.';
