-- Which encoder a worker has to load.

create or replace function dynrec._recommender_encoder(recommender text)
returns table (encoder text, family text, model text, dimension int, adopted boolean)
language sql stable security definer
set search_path from current
as $$
  select e.name, e.family, e.model, m.dimension, e.name is null
  from dynrec._recommender(recommender) r
  join dynrec_data.model_version m on m.id = r.content_model_id
  left join dynrec_data.encoder e on e.name = m.encoder
$$;
comment on function dynrec._recommender_encoder(text) is
  'Internal. The encoder of a recommender''s content space; adopted: its vectors come from a column of the source, so there is none.';

create or replace function dynrec._encoders_in_use()
returns table (encoder text, family text, model text, dimension int, adopted boolean)
language sql stable security definer
set search_path from current
as $$
  select distinct e.name, e.family, e.model, m.dimension, false
  from dynrec_data.model_version m join dynrec_data.encoder e on e.name = m.encoder where m.kind = 'content' and dynrec._is_live(m)
$$;
comment on function dynrec._encoders_in_use() is 'Internal. The encoders of all recommenders, for workers to load before the first change comes.';

create or replace function dynrec._claim_items(recommender text, batch_size int, lease interval, live_only boolean default false)
returns table (
  encoder text, family text, model text, dimension int, adopted boolean,
  token uuid, entities bigint, first_change bigint, last_change bigint, captured_at timestamptz, live_ages double precision[], backfill_ages double precision[])
language plpgsql
set search_path from current
as $$
#variable_conflict use_column
declare
  batch record;
begin
  select b.* into batch from dynrec._claim_batch(recommender, 'item', batch_size, lease, live_only) b;
  -- looked up after the claim, by a snapshot of its own: who switches to another encoder takes back what was claimed until then, and lets no one claim meanwhile
  return query
    select e.*, batch.token, batch.entities, batch.first_change, batch.last_change, batch.captured_at, batch.live_ages, batch.backfill_ages
    from dynrec._recommender_encoder(recommender) e;
end
$$;
comment on function dynrec._claim_items(text, int, interval, boolean) is
  'Internal. _claim_batch for items, with what they are to be encoded by, as of _recommender_encoder; a token of null: nothing to claim.';
