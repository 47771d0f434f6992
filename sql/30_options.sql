-- The options of a recommender and the kinds of its interactions: defaults and validation.

create or replace function dynrec._option_defaults() returns jsonb
language sql immutable
as $$
  select '{"half_life": "30 days", "exclude_seen": true, "trending_half_life": "7 days", "retention": "365 days",
    "item_refresh": "1 day", "train_every": null, "measure_every": "1 day", "popularity_epsilon": null, "popularity_bound": 10, "text_search_config": "english", "max_attempts": 5,
    "capture": "incremental", "batch_every": "1 hour", "stream_max_lag_bytes": 10737418240, "publish": null, "vector_index": "full", "vector_storage": "full", "vector_probe": 100}'::jsonb
$$;
comment on function dynrec._option_defaults() is
  'Internal. Every option with its default: half_life (of an interaction''s weight), exclude_seen, trending_half_life, retention (of history), '
  'item_refresh (how often a learned model reads the features of all items that move with time), train_every (null: only when asked), '
  'measure_every (how often dynrec.watch measures; null: only when asked), '
  'popularity_epsilon (of differential privacy; null: counters are exact), popularity_bound (the weight that a user can add in a day, if they are private), '
  'text_search_config (of search), max_attempts (before a dead letter), capture (incremental, batch or stream: how changes are noticed), '
  'batch_every (how often a batch looks for them), stream_max_lag_bytes (of WAL that the stream may hold back before it gives its slot up), '
  'publish (to others, by dynrec publish: changes, or vectors with them; null: nobody is told), '
  'vector_index (what the index holds: full vectors, half precision, or binary, three bits of each number), vector_storage (of items: full or half precision), '
  'vector_probe (how many places of the index a read looks at, at least).';

create or replace function dynrec._positive_interval(what text, given text, at_least interval, at_most interval) returns interval
language plpgsql stable
set search_path from current
as $$
begin
  -- a bare number would be seconds: nobody's intention
  if given is null or given ~ '^[-+.\s\d]*$' or not pg_input_is_valid(given, 'interval')
    or dynrec._seconds(given::interval) not between dynrec._seconds(at_least) and dynrec._seconds(at_most) then
    perform dynrec._reject(what || ': not an interval in range', given, format('Give an interval from %s to %s, for example "30 days".', at_least, at_most));
  end if;
  return given::interval;
end
$$;
comment on function dynrec._positive_interval(text, text, interval, interval) is 'Internal. The interval, or an error that names the range.';

create or replace function dynrec._check_capture(options jsonb) returns void
language plpgsql stable
set search_path from current
as $$
begin
  if coalesce(options ->> 'capture', '') not in ('incremental', 'batch', 'stream') then
    perform dynrec._reject('options.capture: no way to keep up', options ->> 'capture',
      'Give incremental (triggers), batch (what differs is looked for every batch_every) or stream (a logical replication slot).');
  end if;
  perform dynrec._positive_interval('options.batch_every', options ->> 'batch_every', '1 minute', '100 years');
  if jsonb_typeof(options -> 'stream_max_lag_bytes') <> 'number'
    or (options ->> 'stream_max_lag_bytes')::numeric not between 1048576 and 1e15 or (options ->> 'stream_max_lag_bytes')::numeric % 1 <> 0 then
    perform dynrec._reject('options.stream_max_lag_bytes: not a whole number in range', left(options ->> 'stream_max_lag_bytes', 200),
      'Give 1048576 (1 MiB) to 1000000000000000.');
  end if;
end
$$;
comment on function dynrec._check_capture(jsonb) is 'Internal. An error for an option of capture with a bad value.';

create or replace function dynrec._options(given jsonb, base jsonb default '{}') returns jsonb
language plpgsql stable
set search_path from current
as $$
declare
  unknown text;
  merged jsonb := dynrec._option_defaults() || base;
begin
  if jsonb_typeof(coalesce(given, '{}')) <> 'object' then
    perform dynrec._reject('options: not a JSON object', given::text, 'Give for example {"half_life": "30 days"}.');
  end if;
  merged := merged || coalesce(given, '{}');
  select k into unknown from jsonb_object_keys(merged) k where not dynrec._option_defaults() ? k limit 1;
  if found then
    perform dynrec._reject('options: unknown option', unknown,
      'Options are: ' || (select string_agg(k, ', ' order by k) from jsonb_object_keys(dynrec._option_defaults()) k) || '.');
  end if;
  perform dynrec._positive_interval('options.half_life', merged ->> 'half_life', '1 second', '100 years');
  perform dynrec._positive_interval('options.trending_half_life', merged ->> 'trending_half_life', '1 hour', '100 years');
  perform dynrec._positive_interval('options.retention', merged ->> 'retention', '1 day', '1000 years');
  perform dynrec._positive_interval('options.item_refresh', merged ->> 'item_refresh', '1 minute', '100 years');
  if merged ->> 'train_every' is not null then
    perform dynrec._positive_interval('options.train_every', merged ->> 'train_every', '1 minute', '100 years');
  end if;
  if merged ->> 'measure_every' is not null then
    perform dynrec._positive_interval('options.measure_every', merged ->> 'measure_every', '1 minute', '100 years');
  end if;
  if jsonb_typeof(merged -> 'popularity_epsilon') not in ('null', 'number') or (merged ->> 'popularity_epsilon')::numeric not between 0.001 and 100 then
    perform dynrec._reject('options.popularity_epsilon: not a number in range', left(merged ->> 'popularity_epsilon', 200), 'Give 0.001 to 100, less is more private; null for exact counters.');
  end if;
  if jsonb_typeof(merged -> 'popularity_bound') <> 'number' or (merged ->> 'popularity_bound')::numeric not between 0.001 and 1000000 then
    perform dynrec._reject('options.popularity_bound: not a number in range', left(merged ->> 'popularity_bound', 200), 'Give 0.001 to 1000000: the weight of interactions that a user can add in a day.');
  end if;
  perform dynrec._check_capture(merged);
  if coalesce(merged ->> 'publish', 'changes') not in ('changes', 'vectors') then
    perform dynrec._reject('options.publish: nothing that can be told', left(merged ->> 'publish', 200),
      'Give changes (which vector changed), vectors (the vector with it), or null: nobody is told.');
  end if;
  if coalesce(merged ->> 'vector_index', '') not in ('full', 'half', 'binary') then
    perform dynrec._reject('options.vector_index: nothing that an index can hold', left(merged ->> 'vector_index', 200),
      'Give full (vectors as they are stored), half (in half precision) or binary (three bits of each number).');
  end if;
  if coalesce(merged ->> 'vector_storage', '') not in ('full', 'half') then
    perform dynrec._reject('options.vector_storage: no way to store vectors', left(merged ->> 'vector_storage', 200), 'Give full (4 bytes a number) or half (2 bytes).');
  end if;
  if jsonb_typeof(merged -> 'vector_probe') <> 'number' or (merged ->> 'vector_probe')::numeric not between 100 and 1000 or (merged ->> 'vector_probe')::numeric % 1 <> 0 then
    perform dynrec._reject('options.vector_probe: not a whole number in range', left(merged ->> 'vector_probe', 200),
      'Give 100 to 1000: more finds more of the nearest, and takes longer.');
  end if;
  if merged ->> 'vector_storage' = 'half' and merged ->> 'vector_index' = 'full' then
    perform dynrec._reject('options.vector_index: an index over full vectors has nothing to be made of where they are stored in half precision', 'full',
      'Give vector_index half or binary with vector_storage half.');
  end if;
  if jsonb_typeof(merged -> 'exclude_seen') <> 'boolean' then
    perform dynrec._reject('options.exclude_seen: not a boolean', merged ->> 'exclude_seen', 'Give true or false.');
  end if;
  if jsonb_typeof(merged -> 'max_attempts') <> 'number' or (merged ->> 'max_attempts')::numeric not between 1 and 100
    or (merged ->> 'max_attempts')::numeric % 1 <> 0 then
    perform dynrec._reject('options.max_attempts: not a whole number in range', merged ->> 'max_attempts', 'Give 1 to 100.');
  end if;
  if not exists (select from pg_ts_config c where c.cfgname = merged ->> 'text_search_config' and pg_ts_config_is_visible(c.oid)) then
    perform dynrec._reject('options.text_search_config: unknown text search configuration', merged ->> 'text_search_config',
      'There are: ' || (select string_agg(c.cfgname, ', ' order by c.cfgname) from pg_ts_config c where pg_ts_config_is_visible(c.oid)) || '.');
  end if;
  return merged;
end
$$;
comment on function dynrec._options(jsonb, jsonb) is 'Internal. The options, completed from a base and from the defaults; an error for an unknown name or a bad value.';

create or replace function dynrec._kinds(given jsonb, kind_column text, default_half_life interval)
returns table (kind text, weight double precision, half_life double precision)
language plpgsql stable
set search_path from current
as $$
declare
  entry record;
  unknown text;
begin
  if jsonb_typeof(coalesce(given, '{}')) <> 'object' then
    perform dynrec._reject('kinds: not a JSON object', given::text, 'Give for example {"purchase": {"weight": 1, "half_life": "30 days"}}.');
  end if;
  if kind_column is null and exists (select from jsonb_object_keys(coalesce(given, '{}')) k where k <> '*') then
    perform dynrec._reject('kinds: given without a kind_column', given::text, 'Name the column that holds the kind, or use "*" for all interactions.');
  end if;
  for entry in select * from jsonb_each('{"*": {}}'::jsonb || coalesce(given, '{}')) loop
    perform dynrec._check_length('kinds: a name', entry.key);
    if jsonb_typeof(entry.value) <> 'object' then
      perform dynrec._reject(format('kinds.%s: not a JSON object', entry.key), entry.value::text, 'Give for example {"weight": 1, "half_life": "30 days"}.');
    end if;
    select k into unknown from jsonb_object_keys(entry.value) k where k not in ('weight', 'half_life') limit 1;
    if found then
      perform dynrec._reject(format('kinds.%s: unknown setting', entry.key), unknown, 'A kind has a weight and a half_life.');
    end if;
    if entry.value ? 'weight' and (jsonb_typeof(entry.value -> 'weight') <> 'number'
        or (entry.value ->> 'weight')::numeric <> 0 and abs((entry.value ->> 'weight')::numeric) not between 1e-12 and 1000000) then
      perform dynrec._reject(format('kinds.%s.weight: not a number in range', entry.key), entry.value ->> 'weight',
        'Give a number from -1000000 to 1000000, not nearer to 0 than 1e-12 unless it is 0.');
    end if;
    return query select entry.key, coalesce((entry.value ->> 'weight')::double precision, 1),
      dynrec._seconds(case when entry.value ? 'half_life'
        then dynrec._positive_interval(format('kinds.%s.half_life', entry.key), entry.value ->> 'half_life', '1 second', '100 years')
        else default_half_life end);
  end loop;
end
$$;
comment on function dynrec._kinds(jsonb, text, interval) is
  'Internal. Weight and half-life (seconds) of every declared kind, and of "*", which stands for every other kind.';
