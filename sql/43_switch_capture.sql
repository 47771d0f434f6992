-- From one way of keeping up to another: while no transaction writes to the sources, one ends and the other begins.

create or replace function dynrec._lock_sources(r dynrec_data.recommender) returns void
language plpgsql
set search_path from current
as $$
declare
  source regclass;
begin
  foreach source in array array_remove(array[r.items, r.interactions], null) loop
    execute format('lock table %s in share row exclusive mode', dynrec._qualified(source));
  end loop;
end
$$;
comment on function dynrec._lock_sources(dynrec_data.recommender) is
  'Internal. Waits for the transactions that write to the sources, and lets none begin before this one ends.';

create or replace function dynrec._begin_batches(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$
  update dynrec_data.recommender x set events_since = 'infinity', batched_at = now() where x.id = r.id and r.options ->> 'capture' = 'batch'
$$;
comment on function dynrec._begin_batches(dynrec_data.recommender) is 'Internal. Of a recommender that is declared with batches: its backfill stands for the first one.';

create or replace function dynrec._switch_capture(before dynrec_data.recommender, r dynrec_data.recommender) returns void
language plpgsql
set search_path from current
as $$
declare
  was text := before.options ->> 'capture';
  wanted text := r.options ->> 'capture';
begin
  if was <> wanted then
    -- publishes end first: they hold leases and then read the sources, from which triggers are dropped here
    lock table dynrec_data.lease in share row exclusive mode;
    perform dynrec._lock_sources(r);
    -- what is committed up to here comes by the stream still
    update dynrec_data.stream_span s set ends_at = pg_current_wal_insert_lsn()::text where s.recommender_id = r.id and s.ends_at is null;
  end if;
  perform dynrec._install_triggers(r);
  if was <> wanted and 'batch' in (was, wanted) then
    delete from dynrec_data.user_fingerprint f where f.recommender_id = r.id;
    update dynrec_data.recommender x set events_since = case wanted when 'batch' then 'infinity' else clock_timestamp() end where x.id = r.id;
    if wanted = 'batch' then
      perform dynrec._queue_batch(r);
    else
      perform dynrec._queue_backfill(r);
    end if;
  end if;
end
$$;
comment on function dynrec._switch_capture(dynrec_data.recommender, dynrec_data.recommender) is
  'Internal. Installs or removes triggers as the option capture says. From and to batches everything is compared with the source; '
  'between triggers and stream nothing needs to be: each commit is seen by exactly one of them.';
