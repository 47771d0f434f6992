-- The encoders that can be named in create_recommender.

create or replace view dynrec.encoders with (security_invoker = true) as
select e.name as encoder, e.family, e.model, e.dimension, e.created_at,
  (select count(*) from dynrec_data.recommender r join dynrec_data.model_version m on m.id = r.active_model_id where m.encoder = e.name) as recommenders
from dynrec_data.encoder e;
comment on view dynrec.encoders is
  'Every encoder that create_recommender(encoder => …) can name, its model and dimension, and how many recommenders use it; dynrec.register_encoder adds one.';
