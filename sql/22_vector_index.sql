-- What the HNSW index of a model version holds: the vectors as they are, in half precision, or three bits of each number.
-- Whatever it holds, it only finds candidates: those are compared by the vectors themselves.

create or replace function dynrec._index_name(model int, holds text) returns text
language sql immutable
as $$ select format('item_vector_%s_hnsw%s', model, case when holds <> 'full' then '_' || holds else '' end) $$;
comment on function dynrec._index_name(int, text) is 'Internal. The name of the index of a model version that holds full, half or binary vectors.';

create or replace function dynrec._vector_schema() returns text
language sql stable
as $$ select quote_ident(n.nspname) from pg_extension x join pg_namespace n on n.oid = x.extnamespace where x.extname = 'vector' $$;
comment on function dynrec._vector_schema() is 'Internal. The schema of pgvector, quoted.';

create or replace function dynrec._stored(holds text, prefix text) returns text
language sql stable
set search_path from current
as $$
  select format(case holds
    when 'full' then '%1$sembedding'
    when 'half' then 'coalesce(%1$shalf, %1$sembedding::%2$s.halfvec)'
    when 'binary' then 'coalesce(%1$sembedding, %1$shalf::%2$s.vector)'
  end, prefix, dynrec._vector_schema())
$$;
comment on function dynrec._stored(text, text) is 'Internal. The expression of a row''s vector, in whichever of its columns it is, that an index is made of.';

create or replace function dynrec._indexed(holds text, dimension int, embedding text) returns text
language sql stable
set search_path from current
as $$
  select case holds
    when 'full' then format('%s::%s.vector(%s)', embedding, s.name, dimension)
    when 'half' then format('%s::%s.halfvec(%s)', embedding, s.name, dimension)
    -- in which quarter of a unit vector's numbers each number lies: the distance of two is how many quarters they are apart
    when 'binary' then format('(%2$s.binary_quantize(%1$s operator(%2$s.-) %3$s) || %2$s.binary_quantize(%1$s) || %2$s.binary_quantize(%1$s operator(%2$s.+) %3$s))::bit(%4$s)',
      embedding, s.name, format('array_fill(%s::real, array[%s])::%s.vector', round((0.67 / sqrt(dimension))::numeric, 6), dimension, s.name), 3 * dimension)
  end
  from dynrec._vector_schema() s (name)
$$;
comment on function dynrec._indexed(text, int, text) is
  'Internal. The expression of an embedding that the index holds, literally alike in the index and in every read, or Postgres would not use it.';

create or replace function dynrec._index_method(holds text, dimension int) returns text
language sql stable
set search_path from current
as $$
  select format('hnsw ((%s) %s.%s) with (ef_construction = 128)', dynrec._indexed(holds, dimension, dynrec._stored(holds, '')), dynrec._vector_schema(),
    case holds when 'full' then 'vector_ip_ops' when 'half' then 'halfvec_ip_ops' when 'binary' then 'bit_hamming_ops' end)
$$;
comment on function dynrec._index_method(text, int) is 'Internal. What stands behind "using" in the statement that creates the index.';

create or replace function dynrec._distance(holds text, dimension int, query text) returns text
language sql stable
set search_path from current
as $$
  select dynrec._indexed(holds, dimension, dynrec._stored(holds, 'v.')) || case holds
    when 'full' then ' <#> ' || query
    -- of length 1: the order is the same, and nothing is beyond the range of half precision
    when 'half' then ' <#> ' || dynrec._indexed(holds, dimension, format('l2_normalize(%s)', query))
    when 'binary' then ' <~> ' || dynrec._indexed(holds, dimension, query)
  end
$$;
comment on function dynrec._distance(text, int, text) is 'Internal. The expression by which a read orders the vectors v, through the index, from a query.';

create or replace function dynrec._reach(holds text, n int) returns int
language sql immutable parallel safe
as $$ select case holds when 'full' then n when 'half' then n + n / 5 + 10 when 'binary' then least(10 * n + 50, n + 2000) end $$;
comment on function dynrec._reach(text, int) is
  'Internal. How many candidates the index is asked for, so that the n best are among them. In half precision a few change places; by three bits of each number, the nearest are among a few times as many (docs/scale.md).';

create or replace function dynrec._index_scan(holds text) returns text
language sql immutable
as $$ select case holds when 'full' then 'strict_order' else 'relaxed_order' end $$;
comment on function dynrec._index_scan(text) is
  'Internal. hnsw.iterative_scan of a read: candidates that are put into order afterwards may come out of it.';

create or replace function dynrec._probe(holds text, n int, left_out bigint, at_least int) returns int
language sql immutable parallel safe
as $$ select least(greatest(at_least, dynrec._reach(holds, n + least(n, left_out)::int)), 1000) $$;
comment on function dynrec._probe(text, int, bigint, int) is
  'Internal. hnsw.ef_search of a read of n items: a scan that has to go on for more than that begins anew, and takes as long again. left_out: items that do not count, '
  'which may be as near as those that do; as many as n are allowed for. at_least: the option vector_probe.';

create or replace function dynrec._index_names(m dynrec_data.model_version) returns jsonb
language sql stable
set search_path from current
as $$
  select jsonb_build_object(
    'holds', quote_literal(m.vector_index),
    'distance', dynrec._distance(m.vector_index, m.dimension, 'query'),
    'scan', dynrec._index_scan(m.vector_index))
$$;
comment on function dynrec._index_names(dynrec_data.model_version) is
  'Internal. What the templates of a model version''s searches name of the index that they read.';

create or replace function dynrec._wanted_index(r dynrec_data.recommender, m dynrec_data.model_version) returns text
language sql immutable
set search_path from current
as $$
  select case
    when m.kind = 'learned' and r.options ->> 'vector_index' = 'binary' then 'half'
    -- which has to hold all vectors: not before all are full
    when r.options ->> 'vector_index' = 'full' and m.vector_storage <> 'full' then m.vector_index
    else r.options ->> 'vector_index' end
$$;
comment on function dynrec._wanted_index(dynrec_data.recommender, dynrec_data.model_version) is
  'Internal. What the index of a model version is to hold. A learned model''s vectors have lengths that count, which bits do not tell: half precision instead.';

create or replace function dynrec._index_stands(model int, holds text) returns boolean
language sql stable
set search_path from current
as $$
  select exists (select from pg_class c join pg_index i on i.indexrelid = c.oid
    where c.relname = dynrec._index_name(model, holds) and c.relnamespace = 'dynrec_data'::regnamespace and i.indisvalid)
$$;
comment on function dynrec._index_stands(int, text) is 'Internal. Whether a model version has a complete index that holds such vectors.';

create or replace function dynrec._use_index(model_id int) returns void
language plpgsql security definer
set search_path from current
set lock_timeout = '10s'
as $$
#variable_conflict use_variable
declare
  r dynrec_data.recommender;
  m dynrec_data.model_version;
begin
  -- alter_recommender begins with this row, too: the code of a recommender is written by one at a time
  select x.* into r from dynrec_data.recommender x join dynrec_data.model_version v on v.recommender_id = x.id where v.id = model_id for update of x;
  select v.* into m from dynrec_data.model_version v where v.id = model_id;
  if dynrec._is_live(m) and m.vector_index <> dynrec._wanted_index(r, m) and dynrec._index_stands(m.id, dynrec._wanted_index(r, m)) then
    update dynrec_data.model_version v set vector_index = dynrec._wanted_index(r, m) where v.id = m.id;
    perform dynrec._generate(r.id);
  end if;
end
$$;
comment on function dynrec._use_index(int) is
  'Internal. Lets the reads of a model version go through the index that is wanted, if it stands; whoever is reading goes on through the one before.';

create or replace function dynrec._recall_remedy(model_id int) returns text
language sql stable
set search_path from current
as $$
  select format('reindex index concurrently dynrec_data.%I', dynrec._index_name(m.id, m.vector_index)) || case when m.vector_index = 'full' then ''
    else format('; if it stays low: select * from dynrec.alter_recommender(%L, options => ''{"vector_index": "%s"}'')', r.name,
      case m.vector_index when 'binary' then 'half' else 'full' end) end
  from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id where m.id = _recall_remedy.model_id
$$;
comment on function dynrec._recall_remedy(int) is 'Internal. What to do where the index of a model version finds too little.';
