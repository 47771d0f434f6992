-- Which model version answers a read.

create or replace function dynrec._answering(r dynrec_data.recommender, as_of timestamptz, model_version int) returns dynrec_data.recommender
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_variable
declare
  m dynrec_data.model_version;
begin
  if model_version is null and as_of is null then
    return r;
  end if;
  m := dynrec._model_version(r, coalesce(model_version, (
    select a.model_id from dynrec_data.model_activation a where a.recommender_id = r.id and a.activated_at <= as_of order by a.activated_at desc limit 1), r.active_model_id));
  if m.state not in ('shadow', 'active', 'standby') then
    perform dynrec._reject(format('model version %s has no vectors to answer with: it is %s', m.id, m.state), m.id::text,
      'Choose one that is active, on standby or in the shadow: see dynrec.model_versions.');
  end if;
  r.active_model_id := m.id;
  return r;
end
$$;
comment on function dynrec._answering(dynrec_data.recommender, timestamptz, int) is
  'Internal. The recommender as it answers by a model version: the one given, the one that answered at as_of, or the active one.';
