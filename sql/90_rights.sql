-- Who may do what. Functions run with the caller's rights, and the policies of the tables say which rows that reaches; those that
-- administrators and workers call run as the owner instead, because nobody else can change vectors, queue, tables or generated code.

do $$
declare
  wanted text;
begin
  foreach wanted in array array['dynrec_reader', 'dynrec_writer', 'dynrec_worker', 'dynrec_admin'] loop
    continue when to_regrole(wanted) is not null;
    begin
      execute format('create role %I nologin', wanted);
    exception
      when duplicate_object or unique_violation then
        null;  -- another database of the cluster has just made it
      when insufficient_privilege then
        raise notice 'role % is missing and % may not create it', wanted, current_user
          using hint = format('Have a superuser run: create role %I nologin. Then: select dynrec._grant_rights().', wanted);
    end;
  end loop;
end
$$;

create or replace function dynrec._grant_membership(of_role text, to_role text) returns void
language plpgsql
set search_path from current
as $$
begin
  if to_regrole(of_role) is null or to_regrole(to_role) is null or pg_has_role(to_role, of_role, 'member') then
    return;
  end if;
  execute format('grant %I to %I', of_role, to_role);
exception when insufficient_privilege then
  raise notice '% may not make % a member of %', current_user, to_role, of_role using hint = format('Have a superuser run: grant %I to %I.', of_role, to_role);
end
$$;
comment on function dynrec._grant_membership(text, text) is 'Internal. Lets one of the roles do what another one may, too.';

create or replace function dynrec._role_functions() returns table (role text, name text)
language sql immutable
set search_path from current
as $$
  select r.role, unnest(r.names) from (values
    ('dynrec_reader', array['recommend', 'recommend_for_items', 'similar_items', 'trending', 'search', 'explain',
      'item_vector_at', 'user_vector_at', 'item_history', 'drift', 'item_features_at', 'user_features_at', 'training_examples',
      'precision_at_k', 'recall_at_k', 'hit_rate_at_k', 'reciprocal_rank', 'average_precision_at_k', 'ndcg_at_k', 'serendipity_at_k',
      'novelty_at_k', 'popularity_bias_at_k', 'catalogue_coverage', 'user_coverage', 'gini_of_exposure', 'shannon_of_exposure', 'intra_list_diversity',
      'evaluation_lists', 'evaluate', 'evaluate_users', 'compare_models', 'counterfactual_metrics', 'score_calibration',
      'attributed_impressions', 'online_metrics', 'experiment_arm', 'experiment_results', 'data_drift', 'index_recall', 'wait_until_fresh', 'doctor', '_metric_catalogue']),
    ('dynrec_writer', array['log_impressions', 'log_exposure']),
    ('dynrec_admin', array['register_encoder', 'create_recommender', 'alter_recommender', 'drop_recommender', 'pause', 'resume', 'refresh', 'retry_failed',
      'stage_model', 'promote_model', 'rollback_model', 'retire_model', 'create_experiment', 'alter_experiment', 'stop_experiment',
      'watch', 'export_user', 'forget_user', 'verify_forgotten', 'readmit_user']),
    ('dynrec_worker', array['_pending_work', '_next_due', '_claim', '_claim_batch', '_claim_items', '_leased_entities', '_recommender_encoder', '_encoders_in_use', '_read_items',
      '_publish_items', '_publish_adopted', '_publish_users', '_derived_models', '_read_derived', '_publish_derived', '_release_derived', '_fail',
      '_expire_leases', '_release_retries', '_run_task', '_maintain', '_finish_backfills', '_take_profiles', '_watch_next', '_beat', '_last_beat', '_wake_key',
      '_queue_batches', '_tend_stream', '_drop_stream_slot', '_make_stream_slot', '_stream_stands', '_stream_lag', '_stream_end', '_read_stream', '_apply_stream',
      '_stream_applied', '_advance_stream', '_outbox_lanes', '_outbox_read', '_outbox_settle', '_index_work', '_index_statements', '_begin_index_work', '_end_index_work', '_may_maintain', '_build_vector_index', '_use_index', '_convert_vectors',
      '_staged_models', '_training_begins', '_training_interactions', '_training_unusable', '_training_items', '_training_items_then', '_training_kinds', '_feature_names', '_item_features',
      '_model_artefacts', '_store_model', '_training_failed', '_training_interrupted'])
  ) r (role, names)
$$;
comment on function dynrec._role_functions() is
  'Internal. The functions that each role is there to call. A writer and an administrator may read, too; what these call in turn follows from their code.';

create or replace function dynrec._callable() returns table (role text, function regprocedure)
language sql stable
set search_path from current
as $$
  with recursive code (name, function, runs_as_owner, source) as (
    select p.proname::text, p.oid, p.prosecdef, p.prosrc from pg_proc p where p.pronamespace = 'dynrec'::regnamespace
  ), called (name, by_name) as materialized (
    select distinct m.found[1], c.name from code c cross join lateral regexp_matches(c.source, 'dynrec\.(_\w+)', 'g') as m (found)
    where not c.runs_as_owner and m.found[1] !~ '^_grant_'  -- which the doctor recommends, and does not call
    union
    select distinct m.found[1], 'a view' from pg_views v cross join lateral regexp_matches(v.definition, 'dynrec\.(_\w+)', 'g') as m (found)
    where v.schemaname = 'dynrec'
  ), needed (role, name) as (
    select f.role, f.name from dynrec._role_functions() f
    union
    -- views and generated code are for whoever reads
    select 'dynrec_reader', c.name from called c join code o on o.name = c.by_name where o.source ~ '\$body\$' and o.name !~ 'capture|publish|storer'
    union
    select 'dynrec_reader', c.name from called c where c.by_name = 'a view'
    union
    select n.role, c.name from needed n join called c on c.by_name = n.name
  )
  select distinct n.role, c.function::regprocedure from needed n join code c on c.name = n.name
$$;
comment on function dynrec._callable() is
  'Internal. Which functions of schema dynrec each role may call: those that it is there to call, and what they and the views call with the rights of the caller.';

create or replace function dynrec._keep_callers() returns void
language plpgsql
set search_path from current
as $$
declare
  caller text;
begin
  for caller in
    select r.rolname from pg_namespace n cross join lateral aclexplode(n.nspacl) a join pg_roles r on r.oid = a.grantee
    where n.nspname = 'dynrec' and a.privilege_type = 'USAGE' and r.oid <> n.nspowner and r.rolname not in (select f.role from dynrec._role_functions() f)
  loop
    perform dynrec._grant_membership(case when has_table_privilege(caller, 'dynrec_data.impression', 'insert') then 'dynrec_writer' else 'dynrec_reader' end, caller);
  end loop;
end
$$;
comment on function dynrec._keep_callers() is
  'Internal. Before there were roles, everybody who could use schema dynrec could call its functions: such a role becomes a reader, or a writer if it could log.';

create or replace function dynrec._grant_functions() returns void
language plpgsql
set search_path from current
as $$
declare
  one record;
begin
  if has_function_privilege('public', 'dynrec._recommender(text)', 'execute') then
    perform dynrec._keep_callers();
  end if;
  revoke execute on all functions in schema dynrec from public;
  for one in
    select f.role, string_agg(f.function::text, ', ') as functions from dynrec._callable() f where to_regrole(f.role) is not null group by f.role
  loop
    execute format('revoke execute on all functions in schema dynrec from %I', one.role);
    execute format('grant execute on function %s to %I', one.functions, one.role);
  end loop;
end
$$;
comment on function dynrec._grant_functions() is 'Internal. The right to call functions of schema dynrec: of the roles, and of nobody else but the owner.';

create or replace function dynrec._grant_generated(recommender_id int) returns void
language plpgsql
set search_path from current
as $$
declare
  one record;
begin
  for one in
    select g.oid as function, p.proname ~ '^(capture|publish)_' as is_internal
    from dynrec._generated(recommender_id) g join pg_proc p on p.oid = g.oid
    -- each takes a lock: what is right already is left alone
    where has_function_privilege('public', p.oid, 'execute')
      or p.proname !~ '^(capture|publish)_' and to_regrole('dynrec_reader') is not null and not has_function_privilege('dynrec_reader', p.oid, 'execute')
  loop
    execute format('revoke execute on function %s from public', one.function);
    if not one.is_internal and to_regrole('dynrec_reader') is not null then
      execute format('grant execute on function %s to dynrec_reader', one.function);
    end if;
  end loop;
end
$$;
comment on function dynrec._grant_generated(int) is 'Internal. The generated functions of a recommender (null: of all) are for readers, but for those that capture and publish.';

create or replace function dynrec._readable_tables() returns text[]
language sql stable
set search_path from current
as $$
  select array['recommender', 'interaction_kind', 'model_version', 'model_activation', 'encoder', 'item_content', 'item_content_history', 'item_popularity',
      'item_popularity_history', 'item_transition', 'item_vector', 'item_vector_history', 'user_vector', 'user_vector_history', 'change', 'task', 'retry', 'dead_letter',
      'forgotten_user', 'impression', 'experiment', 'experiment_arm', 'experiment_traffic', 'exposure', 'measurement', 'counter', 'code', 'stream_span', 'outbox', 'trusted_owner', 'vector_index']
    || array(select c.relname::text from pg_class c where c.relnamespace = 'dynrec_data'::regnamespace and c.relname ~ '^(item|user)_vector_\d+$' order by c.relname)
$$;
comment on function dynrec._readable_tables() is 'Internal. The tables of dynrec_data that reads need, with the partitions of model versions; policies say which rows.';

create or replace function dynrec._grant_on(privilege text, tables text[], to_role text) returns void
language plpgsql
set search_path from current
as $$
declare
  lacking text;
begin
  -- a thousand recommenders have two thousand tables here: what is right already is left alone
  select string_agg(format('dynrec_data.%I', c.relname), ', ') into lacking from pg_class c
  where c.relnamespace = 'dynrec_data'::regnamespace and c.relname = any (tables)
    and not exists (select from aclexplode(c.relacl) a where a.grantee = to_regrole(to_role) and a.privilege_type = upper(privilege));
  if lacking is not null then
    execute format('grant %s on %s to %I', privilege, lacking, to_role);
  end if;
end
$$;
comment on function dynrec._grant_on(text, text[], text) is 'Internal. Gives a role a privilege on those of these tables on which it has not got it.';

create or replace function dynrec._grant_tables() returns void
language plpgsql
set search_path from current
as $$
declare
  readable text[] := dynrec._readable_tables();
  one text;
begin
  if to_regrole('dynrec_reader') is not null then
    perform dynrec._grant_on('select', readable, 'dynrec_reader');
    grant select (recommender_id, kind, entity, lane, captured_at, deadline) on dynrec_data.lease to dynrec_reader;
    grant select on dynrec_data.heartbeat to dynrec_reader;
  end if;
  if to_regrole('dynrec_writer') is not null then
    grant insert on dynrec_data.impression, dynrec_data.exposure to dynrec_writer;
    grant update (exposed_at) on dynrec_data.exposure to dynrec_writer;
  end if;
  if to_regrole('dynrec_admin') is not null then
    for one in
      select c.relname from pg_class c where c.relnamespace = 'dynrec_data'::regnamespace and c.relrowsecurity
        and not exists (select from pg_policy p where p.polrelid = c.oid and p.polname = 'administrator')
    loop
      execute format('create policy administrator on dynrec_data.%I for select to dynrec_admin using (true)', one);
    end loop;
    perform dynrec._grant_on('select', readable || '{lease,heartbeat}'::text[], 'dynrec_admin');
  end if;
  if to_regrole('dynrec_worker') is not null and current_setting('server_version_num')::int >= 170000 then
    perform dynrec._grant_on('maintain', array(select t from unnest(readable) t where t ~ '^item_vector(_\d+)?$'), 'dynrec_worker');
  end if;
end
$$;
comment on function dynrec._grant_tables() is 'Internal. The rights of the roles on tables; workers have none but to rebuild and vacuum vector indexes.';

create or replace function dynrec._grant_rights() returns void
language plpgsql
set search_path from current
as $$
declare
  one text;
begin
  foreach one in array array['dynrec_reader', 'dynrec_writer', 'dynrec_worker', 'dynrec_admin'] loop
    continue when to_regrole(one) is null;
    execute format('grant usage on schema dynrec to %I', one);
    -- workers reach everything through functions
    if one <> 'dynrec_worker' then
      execute format('grant usage on schema dynrec_data to %I', one);
      execute format('grant select on dynrec.queue, dynrec.failures, dynrec.model_versions, dynrec.freshness, dynrec.status, dynrec.features, dynrec.encoders, '
        'dynrec.experiments, dynrec.experiment_arms, dynrec.measurements, dynrec.alerts, dynrec.metrics to %I', one);
    end if;
  end loop;
  perform dynrec._grant_membership('dynrec_reader', 'dynrec_writer');
  perform dynrec._grant_membership('dynrec_reader', 'dynrec_admin');
  perform dynrec._secure_partitions(m.id) from dynrec_data.model_version m where to_regclass(format('dynrec_data.item_vector_%s', m.id)) is not null;
  perform dynrec._grant_tables();
  perform dynrec._grant_functions();
  perform dynrec._grant_generated(null);
end
$$;
comment on function dynrec._grant_rights() is
  'Internal. Gives the roles dynrec_reader, dynrec_writer, dynrec_worker and dynrec_admin, those that exist, their rights, and takes from everybody what CREATE FUNCTION gave. Run by dynrec migrate.';
