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
