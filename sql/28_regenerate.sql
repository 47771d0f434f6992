-- Making the generated code of a recommender and of its live model versions, and removing it.

create or replace function dynrec._execute_templates(recommender_id int) returns void
language plpgsql
set search_path from current
as $$
declare
  r dynrec_data.recommender;
  names jsonb;
begin
  select rec.* into strict r from dynrec_data.recommender rec where rec.id = _execute_templates.recommender_id;
  names := dynrec._names(r);
  execute dynrec._render_code(dynrec._item_reader(), names);
  execute dynrec._render_code(dynrec._load_capture(), names);
  execute dynrec._render_code(dynrec._item_capture(), names);
  execute dynrec._render_code(dynrec._streamed_item_capture(), names);
  execute dynrec._render_code(dynrec._item_publisher(), names);
  if r.interactions is not null then
    execute dynrec._render_code(dynrec._interaction_reader(), names);
    execute dynrec._render_code(dynrec._interaction_capture(), names);
    execute dynrec._render_code(dynrec._streamed_interaction_capture(), names);
  end if;
  perform dynrec._execute_model_templates(r, m) from dynrec_data.model_version m where m.recommender_id = r.id and dynrec._is_live(m);
  execute dynrec._feature_reader(r);
  if r.interactions is not null then
    execute dynrec._render_code(dynrec._user_publisher(r), names);
  end if;
end
$$;
comment on function dynrec._execute_templates(int) is 'Internal. Creates or replaces the functions of one recommender and of its live model versions.';

create or replace function dynrec._execute_model_templates(r dynrec_data.recommender, m dynrec_data.model_version) returns void
language plpgsql
set search_path from current
as $$
declare
  names jsonb := dynrec._model_names(r, m);
begin
  execute dynrec._render_code(dynrec._nearest_reader(), names);
  execute dynrec._render_code(dynrec._derived_publisher(), names);
  execute dynrec._render_code(dynrec._plain_similar_items(m.kind), names);
  if m.kind = 'content' then
    execute dynrec._render_code(dynrec._content_session_reader(), names);
    execute dynrec._render_code(dynrec._plain_session(), names);
  end if;
  if r.interactions is null then
    return;
  end if;
  execute dynrec._render_code(dynrec._past_reader(), names);
  if m.kind = 'content' then
    execute dynrec._render_code(dynrec._content_query_reader(), names);
    execute dynrec._render_code(dynrec._plain_recommendations(), names);
  else
    execute dynrec._render_code(dynrec._learned_query_reader(), names);
    execute dynrec._render_code(dynrec._learned_transitions(), names);
    execute dynrec._render_code(dynrec._learned_ranker(), names);
    execute dynrec._render_code(dynrec._learned_recommend_reader(), names);
  end if;
end
$$;
comment on function dynrec._execute_model_templates(dynrec_data.recommender, dynrec_data.model_version) is
  'Internal. Creates or replaces the functions of one live model version.';

create or replace function dynrec._user_publisher(r dynrec_data.recommender) returns text
language plpgsql stable
set search_path from current
as $$
begin
  return dynrec._user_publisher_begins() || string_agg(dynrec._render(
      case m.kind when 'content' then dynrec._content_user_publisher() else dynrec._learned_user_publisher() end || dynrec._user_storer(),
      dynrec._model_names(r, m)), '' order by m.id)
      || case when r.options ->> 'capture' = 'batch' then dynrec._fingerprint_keeper() else '' end || dynrec._user_publisher_ends()
    from dynrec_data.model_version m where m.recommender_id = r.id and dynrec._is_live(m);
end
$$;
comment on function dynrec._user_publisher(dynrec_data.recommender) is
  'Internal. Template of the publisher of users: its parts, one for each live model version.';

create or replace function dynrec._write_code(recommender_id int) returns void
language plpgsql
set search_path from current
as $$
begin
  -- replaced functions keep their identity, so that whoever is calling one now goes on undisturbed
  perform dynrec._execute_templates(_write_code.recommender_id);
exception when invalid_function_definition then
  -- a new template names its parameters otherwise, which cannot be replaced; triggers hold on to their functions
  perform dynrec._degenerate(_write_code.recommender_id, but_triggers => true);
  perform dynrec._execute_templates(_write_code.recommender_id);
end
$$;
comment on function dynrec._write_code(int) is 'Internal. (Re-)creates the functions of one recommender in dynrec_data from the templates.';

create or replace function dynrec._generate(recommender_id int) returns void
language plpgsql
set search_path from current
as $$
begin
  perform dynrec._write_code(recommender_id);
  perform dynrec._note_storage(recommender_id);
  perform dynrec._grant_generated(recommender_id);
  perform dynrec._generate_sees_item();
end
$$;
comment on function dynrec._generate(int) is 'Internal. Brings the code of one recommender to its declaration and its model versions, and gives the rights to call it.';

create or replace function dynrec._generated(recommender_id int) returns table (oid regprocedure, written tid, is_trigger boolean)
language sql stable
set search_path from current
as $$
  select p.oid::regprocedure, p.ctid, p.prorettype = 'trigger'::regtype from pg_proc p
  where p.pronamespace = 'dynrec_data'::regnamespace and case when recommender_id is null then p.proname ~ '_m?\d+$'
    -- with a thousand recommenders there are twenty thousand functions to look at
    else split_part(p.proname, '_', -1) = any (recommender_id::text
      || array(select 'm' || m.id from dynrec_data.model_version m where m.recommender_id = _generated.recommender_id)) end
$$;
comment on function dynrec._generated(int) is
  'Internal. The generated functions of one recommender and of its model versions (null: of all), and which writing of each this is.';

create or replace function dynrec._degenerate(recommender_id int, but_triggers boolean default false) returns void
language plpgsql
set search_path from current
as $$
declare
  generated regprocedure;
begin
  for generated in
    select g.oid from dynrec._generated(_degenerate.recommender_id) g where not (but_triggers and g.is_trigger)
  loop
    execute format('drop function %s', generated);
  end loop;
end
$$;
comment on function dynrec._degenerate(int, boolean) is
  'Internal. Drops the functions of one recommender: all, once its triggers are gone, or all but those of the triggers.';

create or replace function dynrec._regenerate() returns void
language plpgsql
set search_path from current
-- looking into functions takes a lock on every table that they name: of a thousand recommenders more than there is room for
set check_function_bodies = off
as $$
declare
  r dynrec_data.recommender;
  known tid[] := array(select g.written from dynrec._generated(null) g);
  obsolete regprocedure;
begin
  update dynrec_data.recommender set options = dynrec._option_defaults() || options
  where not options ?& array(select jsonb_object_keys(dynrec._option_defaults()));
  for r in select * from dynrec_data.recommender order by id loop
    perform dynrec._write_code(r.id);
    perform dynrec._install_triggers(r);
  end loop;
  -- what the templates did not write again is an earlier version's
  for obsolete in select g.oid from dynrec._generated(null) g where g.written = any (known) loop
    execute format('drop function %s', obsolete);
  end loop;
  perform dynrec._generate_sees_item();
  perform dynrec._grant_rights();
end
$$;
comment on function dynrec._regenerate() is 'Internal. Brings the options, the generated code and the triggers of every recommender, and the rights, to the state of sql/; run by dynrec migrate.';
