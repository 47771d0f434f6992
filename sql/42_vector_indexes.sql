-- The indexes of the item vectors: when they are built and rebuilt, when their tables are vacuumed, and how seldom.

create or replace function dynrec._since(counted bigint, noted bigint) returns bigint
language sql immutable
as $$ select counted - case when noted > counted then 0 else noted end $$;
comment on function dynrec._since(bigint, bigint) is
  'Internal. How much a counter of the server has counted since it was noted; after a crash or a restore counters begin at nothing again. Null: it never was.';

create or replace function dynrec._is_worked_on(relation regclass) returns boolean
language sql stable
set search_path from current
as $$
  select exists (
    select from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
    where l.locktype = 'relation' and l.relation = _is_worked_on.relation and l.granted and l.pid <> pg_backend_pid()
      and l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'AccessExclusiveLock'))
$$;
comment on function dynrec._is_worked_on(regclass) is
  'Internal. Whether somebody else is building an index of a table, or vacuums it: what is invalid may be about to stand, and who waits for a build can end it.';

create or replace function dynrec._index_memory(items double precision, dimension int) returns double precision
language sql immutable
as $$ select items * (4 * dimension + 720) $$;
comment on function dynrec._index_memory(double precision, int) is 'Internal. About how many bytes an HNSW index takes in the memory of its builder.';

create or replace function dynrec._index_state()
returns table (
  recommender text, model_id int, dimension int, relation regclass, wanted text, index_name text, items double precision, replaced bigint, churn bigint, dead bigint,
  stands boolean, reads_another boolean, converting boolean, fillable boolean, resting boolean, failing boolean, vacuum_due boolean)
language sql stable
set search_path from current
as $$
  select r.name, m.id, m.dimension, l.relation, i.wanted, dynrec._index_name(m.id, i.wanted), s.n_live_tup, c.replaced,
    coalesce(dynrec._since(c.replaced, v.built_from), s.n_dead_tup), coalesce(dynrec._since(c.replaced, v.cleaned_from), s.n_dead_tup),
    dynrec._index_stands(m.id, i.wanted), m.vector_index <> i.wanted, m.vector_storage = 'mixed',
    exists (select from dynrec_data.item_vector i where i.model_id = m.id)
      and not exists (select from dynrec_data.task t where t.recommender_id = r.id and t.action in ('scan_items', 'scan_derived'))
      and not exists (select from dynrec_data.change x where x.recommender_id = r.id and x.kind = k.kind and x.lane = 1)
      and not exists (select from dynrec_data.lease x where x.recommender_id = r.id and x.kind = k.kind and x.lane = 1),
    coalesce(case
      when v.begun_at > clock_timestamp() then false  -- the clock was set back
      when v.attempts > 0 then clock_timestamp() < greatest(v.not_before, v.begun_at + least(interval '10 seconds' * power(4, least(v.attempts, 9) - 1), interval '1 hour'))
      else clock_timestamp() < v.not_before end, false),
    coalesce(v.attempts > 0, false),
    coalesce(v.built_at > coalesce(v.vacuumed_at, '-infinity'), false)
  from dynrec_data.recommender r join dynrec_data.model_version m on m.recommender_id = r.id and dynrec._is_live(m)
  cross join lateral (select format('dynrec_data.item_vector_%s', m.id)::regclass as relation) l
  cross join lateral (select dynrec._wanted_index(r, m) as wanted) i
  cross join lateral (select case when m.id = r.content_model_id then 'item' else 'derived' end as kind) k
  join pg_stat_all_tables s on s.relid = l.relation
  cross join lateral (select s.n_tup_upd - s.n_tup_hot_upd + s.n_tup_del as replaced) c
  left join dynrec_data.vector_index v on v.model_id = m.id
  where not dynrec._is_worked_on(l.relation)
$$;
comment on function dynrec._index_state() is
  'Internal. How the vector indexes are that nobody works on. index_name: that of the kind that is wanted; stands: it does; reads_another: reads go through another kind so far; churn: vectors replaced or deleted since the index was built; dead: those that still have entries in '
  'other indexes; replaced: the counter that both are taken from; fillable: there are vectors and no backfill is going on; resting: it is too early for another build; failing: the last one did not succeed.';

create or replace function dynrec._broken_indexes(model_id int) returns setof text
language sql stable
set search_path from current
as $$
  select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
  where i.indrelid = format('dynrec_data.item_vector_%s', model_id)::regclass and not i.indisvalid and starts_with(c.relname, dynrec._index_name(model_id, 'full'))
$$;
comment on function dynrec._broken_indexes(int) is
  'Internal. HNSW indexes of a model version that were not finished: of whatever kind, or what an interrupted rebuild left; every write to the table goes into them in vain.';

create or replace function dynrec._other_indexes(model_id int, wanted text) returns setof text
language sql stable
set search_path from current
as $$
  select n.name from unnest(array['full', 'half', 'binary']) h (holds) cross join lateral (select dynrec._index_name(model_id, h.holds) as name) n
  where h.holds <> wanted and dynrec._index_stands(model_id, h.holds)
$$;
comment on function dynrec._other_indexes(int, text) is 'Internal. The complete HNSW indexes of a model version of other kinds than the one that is wanted.';

create or replace function dynrec._index_work() returns table (recommender text, model_id int, relation regclass, step int, statement text)
language sql stable security definer
set search_path from current
as $$
  with judged as (
    select s.*, s.stands and not s.converting and s.churn > 1000 and s.churn > 0.1 * s.items as churned,
      to_regclass('dynrec_data.' || s.index_name) is null and s.fillable and not (s.failing and s.resting) as creating,
      s.churn > greatest(1000, 0.01 * s.items) and s.dead <= 2 * s.items as stained
    from dynrec._index_state() s
  )
  select j.recommender, j.model_id, j.relation, 1, format('drop index concurrently if exists dynrec_data.%I', b.broken)
  from judged j cross join lateral dynrec._broken_indexes(j.model_id) b (broken)
  union all
  select j.recommender, j.model_id, j.relation, w.step, w.statement
  from judged j cross join lateral (values
    (2, j.creating, format('create index concurrently %I on %s using %s', j.index_name, j.relation, dynrec._index_method(j.wanted, j.dimension))),
    -- reindex before vacuum: vacuuming a churned HNSW index takes longer than building it
    (3, j.churned and not j.resting, format('reindex index concurrently dynrec_data.%I', j.index_name)),
    -- what died since the build is in the new index, too, and from two or three hundredths on taking it out costs as much as a build: then the entries
    -- stay until less follows a build, or until there are two for each item
    (4, j.creating or j.churned and not j.resting or j.vacuum_due and not j.stained, format('vacuum (analyze) %s', j.relation)),
    (5, j.vacuum_due and j.stained and (not j.churned or j.resting), format('vacuum (analyze, index_cleanup off) %s', j.relation)),
    (6, j.reads_another and (j.stands or j.creating), format('select dynrec._use_index(%s)', j.model_id)),
    (8, j.converting and not j.reads_another and (j.stands or j.items = 0), format('select dynrec._convert_vectors(%s)', j.model_id))
  ) w (step, needed, statement)
  where w.needed
  union all
  select j.recommender, j.model_id, j.relation, 7, format('drop index concurrently if exists dynrec_data.%I', o.other)
  from judged j cross join lateral dynrec._other_indexes(j.model_id, j.wanted) o (other)
  where j.stands and not j.reads_another
$$;
comment on function dynrec._index_work() is
  'Internal. What the vector indexes need now, in steps: 1 drop a broken one or what an interrupted rebuild left, 2 create after a backfill, or of another kind, 3 reindex and 4 vacuum after churn; or, in place of 4, '
  '5 vacuum but for the entries in the indexes; 6 read through another kind, 7 drop those of other kinds, once nobody reads through them, 8 convert stored vectors.';

create or replace function dynrec._build_vector_index(model_id int) returns void
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
declare
  state record;
  outdated text;
begin
  select s.* into state from dynrec._index_state() s where s.model_id = _build_vector_index.model_id;
  if state is null then
    return;
  end if;
  -- what is written meanwhile waits, and with it the vectors of this model; the application and, but for drops, the reads do not
  for outdated in
    select * from dynrec._broken_indexes(state.model_id)
    union all
    select * from dynrec._other_indexes(state.model_id, state.wanted) where state.stands and not state.reads_another
  loop
    execute format('drop index dynrec_data.%I', outdated);
  end loop;
  if to_regclass('dynrec_data.' || state.index_name) is null and state.fillable then
    execute format('create index %I on %s using %s', state.index_name, state.relation, dynrec._index_method(state.wanted, state.dimension));
  end if;
end
$$;
comment on function dynrec._build_vector_index(int) is
  'Internal. Drops HNSW indexes of a model version that are broken or of another kind than the one that is read, and makes a missing one, for workers that do not own the table and cannot do so concurrently.';

create or replace function dynrec._may_maintain(relation regclass) returns boolean
language sql stable
set search_path from current
as $$
  select case when current_setting('server_version_num')::int >= 170000 then has_table_privilege(relation::oid, 'maintain') else false end
$$;
comment on function dynrec._may_maintain(regclass) is 'Internal. Whether the caller may rebuild the indexes of a table that belongs to another role, and vacuum it (PostgreSQL 17).';

create or replace function dynrec._index_statements() returns table (recommender text, model_id int, step int, statement text)
language sql stable
set search_path from current
as $$
  select w.recommender, w.model_id, w.step, case when o.owns or w.step not in (1, 2, 7) then w.statement else format('select dynrec._build_vector_index(%s)', w.model_id) end
  from dynrec._index_work() w, lateral (select pg_has_role(c.relowner, 'usage') as owns from pg_class c where c.oid = w.relation) o
  where o.owns or w.step not in (3, 4, 5) or dynrec._may_maintain(w.relation)
  -- what may wait for the application's transactions goes last: nothing else depends on it, but for the building of that index
  order by w.step in (1, 7), w.recommender, w.model_id, w.step, w.statement
$$;
comment on function dynrec._index_statements() is
  'Internal. Statements that the vector indexes need now and the caller may execute, to be run one by one outside a transaction.';

create or replace function dynrec._note_index_begins(model_id int, step int) returns bigint
language plpgsql security definer
set search_path from current
as $$
declare
  counted bigint := (select s.replaced from dynrec._index_state() s where s.model_id = _note_index_begins.model_id);
begin
  if step in (2, 3) then
    insert into dynrec_data.vector_index as v (model_id, begun_at, attempts, memory)
    values (_note_index_begins.model_id, clock_timestamp(), 1, pg_size_bytes(current_setting('maintenance_work_mem')))
    on conflict on constraint vector_index_pkey do update set begun_at = excluded.begun_at, attempts = v.attempts + 1, memory = excluded.memory;
  elsif step in (4, 5) then
    update dynrec_data.vector_index v set vacuumed_at = clock_timestamp() where v.model_id = _note_index_begins.model_id;
  end if;
  return counted;
end
$$;
comment on function dynrec._note_index_begins(int, int) is
  'Internal. A step of the work on an index begins: an attempt, until it is noted that it succeeded. Returns the counter of replaced vectors.';

create or replace function dynrec._begin_index_work() returns table (recommender text, model_id int, step int, statement text, replaced bigint)
language sql
set search_path from current
as $$
  select s.recommender, s.model_id, s.step, s.statement, dynrec._note_index_begins(s.model_id, s.step) from (
    select * from dynrec._index_statements() limit 1
  ) s
$$;
comment on function dynrec._begin_index_work() is 'Internal. The next statement that an index needs; it is noted that it begins. Nothing: no index needs anything now.';

create or replace function dynrec._end_index_work(model_id int, step int, replaced bigint, succeeded boolean) returns void
language sql security definer
set search_path from current
as $$
  -- a quarter of the time at most goes into rebuilds and vacuums, whatever is replaced meanwhile; the first index counts where it failed
  update dynrec_data.vector_index v set
    not_before = case when step = 2 and succeeded then v.not_before
      else greatest(v.not_before, clock_timestamp()) + 3 * (clock_timestamp() - case when step > 3 then v.vacuumed_at else v.begun_at end) end,
    attempts = case when step < 4 and succeeded then 0 else v.attempts end,
    built_at = case when step < 4 and succeeded then clock_timestamp() else v.built_at end,
    built_from = case when step < 4 and succeeded then _end_index_work.replaced else v.built_from end,
    cleaned_from = case when step = 4 and succeeded then _end_index_work.replaced else v.cleaned_from end
  where v.model_id = _end_index_work.model_id and step between 2 and 5
$$;
comment on function dynrec._end_index_work(int, int, bigint, boolean) is
  'Internal. A step of the work on an index has ended; replaced is what _begin_index_work gave. The next build has to wait for three times as long as the step took.';
