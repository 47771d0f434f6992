-- Validating what a declaration names: relations, columns, keys.

create or replace function dynrec._source_relation(role text, given text) returns regclass
language plpgsql stable
set search_path from current
as $$
declare
  relation regclass;
  relation_kind "char";
  choices text;
begin
  begin
    relation := to_regclass(given);
  exception when syntax_error or invalid_name or feature_not_supported then
    relation := null;
  end;
  if relation is null then
    select string_agg(format('%I.%I', n.nspname, c.relname), ', ' order by n.nspname, c.relname) into choices
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition
      and n.nspname not in ('pg_catalog', 'information_schema', 'dynrec', 'dynrec_data') and n.nspname not like 'pg\_%';
    perform dynrec._reject(role || ': no such relation', given,
      coalesce('Give schema.table, quoted where the name is mixed-case. There are: ' || choices || '.', 'The database has no tables yet.'));
  end if;
  select c.relkind into relation_kind from pg_class c where c.oid = relation;
  if relation_kind not in ('r', 'p') then
    perform dynrec._reject(role || ': not a table', given,
      'Row changes can be captured on tables and partitioned tables only: name the table below the view.');
  end if;
  if relation_kind = 'r' and exists (select from pg_inherits i where i.inhparent = relation) then
    perform dynrec._reject(role || ': an inheritance parent', given, 'Use declarative partitioning, or name one child table.');
  end if;
  if (select c.relpersistence from pg_class c where c.oid = relation) = 't' then
    perform dynrec._reject(role || ': a temporary table', given, 'Name a permanent table.');
  end if;
  return relation;
end
$$;
comment on function dynrec._source_relation(text, text) is
  'Internal. The table a declaration names (role says which argument); an error that lists the tables there are otherwise.';

create or replace function dynrec._column_type(role text, relation regclass, column_name text) returns text
language plpgsql stable
set search_path from current
as $$
declare
  attribute pg_attribute;
begin
  select a.* into attribute from pg_attribute a
  where a.attrelid = relation and a.attname = column_name and a.attnum > 0 and not a.attisdropped;
  if not found then
    perform dynrec._reject(format('%s: %s has no column', role, relation), column_name,
      'Its columns are: ' || (select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute a
        where a.attrelid = relation and a.attnum > 0 and not a.attisdropped) || '.');
  end if;
  if attribute.attgenerated = 'v' then
    perform dynrec._reject(format('%s: a virtual generated column of %s', role, relation), column_name,
      'Triggers see virtual columns as null: name its base columns, or make it stored.');
  end if;
  return format_type(attribute.atttypid, null);
end
$$;
comment on function dynrec._column_type(text, regclass, text) is
  'Internal. A column''s type; an error that lists the columns if there is none of that name.';

create or replace function dynrec._key_type(role text, relation regclass, column_name text) returns text
language plpgsql stable
set search_path from current
as $$
declare
  type text := dynrec._column_type(role, relation, column_name);
begin
  if type not in ('smallint', 'integer', 'bigint', 'uuid', 'text', 'character varying') then
    perform dynrec._reject(format('%s: %s.%s has a type that cannot be a key', role, relation, column_name), type,
      'Keys are smallint, integer, bigint, uuid, text or varchar.');
  end if;
  return case type when 'character varying' then 'text' else type end;
end
$$;
comment on function dynrec._key_type(text, regclass, text) is 'Internal. The type of a key column; an error if it cannot be a key.';

create or replace function dynrec._item_key(relation regclass, given text) returns text
language plpgsql stable
set search_path from current
as $$
declare
  column_name text := given;
begin
  if column_name is null then
    select min(a.attname) into column_name
    from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
    where i.indrelid = relation and i.indisprimary having count(*) = 1;
    if column_name is null then
      perform dynrec._reject('item_key: no single-column primary key on', relation::text, 'Name the key column with item_key.');
    end if;
  end if;
  perform dynrec._key_type('item_key', relation, column_name);
  if not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = relation and a.attname = column_name and i.indnkeyatts = 1 and i.indisunique
      and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
  ) then
    perform dynrec._reject(format('item_key: %s has no unique index on', relation), column_name,
      coalesce('Unique columns are: ' || (
        select string_agg(distinct a.attname, ', ') from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = relation and i.indnkeyatts = 1 and i.indisunique and i.indpred is null) || '.',
        format('Add one: create unique index on %s (%I).', relation, column_name)));
  end if;
  if not (select a.attnotnull from pg_attribute a where a.attrelid = relation and a.attname = column_name) then
    perform dynrec._reject(format('item_key: a nullable column of %s', relation), column_name,
      format('alter table %s alter column %I set not null', relation, column_name));
  end if;
  return column_name;
end
$$;
comment on function dynrec._item_key(regclass, text) is
  'Internal. The item key column (the primary key where none is given); an error unless it is unique and not null.';

create or replace function dynrec._watched_columns(role text, relation regclass, columns text[]) returns text[]
language plpgsql stable
set search_path from current
as $$
declare
  column_name text;
begin
  if columns is null or array_ndims(columns) > 1 or exists (select from unnest(columns) c where c is null) then
    perform dynrec._reject(role || ': not a list of column names', columns::text, 'Give an array of names, for example array[''title''].');
  end if;
  if (select count(*) <> count(distinct c) from unnest(columns) c) then
    perform dynrec._reject(role || ': a column is named twice', columns::text, 'Name each column once.');
  end if;
  foreach column_name in array columns loop
    perform dynrec._column_type(role, relation, column_name);
  end loop;
  return columns;
end
$$;
comment on function dynrec._watched_columns(text, regclass, text[]) is 'Internal. The columns themselves, each checked to exist once.';

create or replace function dynrec._numeric_columns(relation regclass, columns text[]) returns text[]
language plpgsql stable
set search_path from current
as $$
declare
  column_name text;
  type text;
begin
  foreach column_name in array dynrec._watched_columns('numeric_columns', relation, columns) loop
    type := dynrec._column_type('numeric_columns', relation, column_name);
    if type not in ('smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision', 'money') then
      perform dynrec._reject(format('numeric_columns: %s.%s is not a number but', relation, column_name), type,
        'Put it into text_columns or categorical_columns.');
    end if;
  end loop;
  return columns;
end
$$;
comment on function dynrec._numeric_columns(regclass, text[]) is 'Internal. The columns themselves, each checked to be a number.';

create or replace function dynrec._source_tables(source regclass) returns setof regclass
language sql stable
set search_path from current
as $$
  select source where source is not null
  union select p.relid::regclass from pg_class c, lateral pg_partition_tree(source) p where c.oid = source and c.relkind = 'p'
$$;
comment on function dynrec._source_tables(regclass) is 'Internal. A source with its partitions.';
