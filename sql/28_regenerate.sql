-- Making the generated code of a recommender, and removing it.

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
  execute dynrec._render_code(dynrec._item_capture(), names);
  execute dynrec._render_code(dynrec._nearest_reader(), names);
  execute dynrec._render_code(dynrec._item_publisher(), names);
  if r.interactions is not null then
    execute dynrec._render_code(dynrec._interaction_reader(), names);
    execute dynrec._render_code(dynrec._interaction_capture(), names);
    execute dynrec._render_code(dynrec._profile_reader(), names);
    execute dynrec._render_code(dynrec._user_publisher(), names);
    execute dynrec._render_code(dynrec._recommend_reader(), names);
  end if;
end
$$;
comment on function dynrec._execute_templates(int) is 'Internal. Creates or replaces the functions of one recommender.';

create or replace function dynrec._generate(recommender_id int) returns void
language plpgsql
set search_path from current
as $$
begin
  -- replaced functions keep their identity, so that whoever is calling one now goes on undisturbed
  perform dynrec._execute_templates(_generate.recommender_id);
exception when invalid_function_definition then
  -- a new template names its parameters otherwise, which cannot be replaced; triggers hold on to their functions
  perform dynrec._degenerate(_generate.recommender_id, but_triggers => true);
  perform dynrec._execute_templates(_generate.recommender_id);
end
$$;
comment on function dynrec._generate(int) is 'Internal. (Re-)creates the functions of one recommender in dynrec_data from the templates.';

create or replace function dynrec._degenerate(recommender_id int, but_triggers boolean default false) returns void
language plpgsql
set search_path from current
as $$
declare
  generated regprocedure;
begin
  for generated in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'dynrec_data'::regnamespace and p.proname ~ format('_%s$', recommender_id)
      and not (but_triggers and p.prorettype = 'trigger'::regtype)
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
as $$
declare
  r dynrec_data.recommender;
begin
  for r in select * from dynrec_data.recommender order by id loop
    perform dynrec._generate(r.id);
    perform dynrec._install_triggers(r);
  end loop;
end
$$;
comment on function dynrec._regenerate() is 'Internal. Brings the generated code and the triggers of every recommender to the state of sql/; run by dynrec migrate.';
