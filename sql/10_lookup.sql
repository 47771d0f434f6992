-- Finding a recommender by name, or saying which ones exist.

create or replace function dynrec._quoted(given text) returns text
language sql immutable parallel safe
as $$ select coalesce(quote_literal(case when length(given) > 200 then left(given, 200) || '…' else given end), 'null') $$;
comment on function dynrec._quoted(text) is 'Internal. A value as errors show it: quoted, and its first 200 characters where it is longer.';

create or replace function dynrec._recommender(name text) returns dynrec_data.recommender
language plpgsql stable
set search_path from current
as $$
declare
  found_row dynrec_data.recommender;
begin
  select r.* into found_row from dynrec_data.recommender r where r.name = _recommender.name;
  if not found then
    raise exception 'no recommender named %', dynrec._quoted(name)
      using errcode = 'undefined_object',
        hint = coalesce(
          'Declared are: ' || (select string_agg(quote_literal(r.name), ', ' order by r.name) from dynrec_data.recommender r) || '.',
          'None is declared yet: see dynrec.create_recommender.');
  end if;
  return found_row;
end
$$;
comment on function dynrec._recommender(text) is
  'Internal. The recommender of that name; an error that lists the declared names if there is none.';

create or replace function dynrec._model_version(r dynrec_data.recommender, model_version int) returns dynrec_data.model_version
language plpgsql stable
set search_path from current
as $$
declare
  found_row dynrec_data.model_version;
begin
  select m.* into found_row from dynrec_data.model_version m where m.recommender_id = r.id and m.id = model_version;
  if not found then
    perform dynrec._reject('no such model version', model_version::text, format('There are: %s.',
      (select string_agg(m.id::text, ', ' order by m.id) from dynrec_data.model_version m where m.recommender_id = r.id)));
  end if;
  return found_row;
end
$$;
comment on function dynrec._model_version(dynrec_data.recommender, int) is
  'Internal. The model version of that number, if it is the recommender''s; an error that lists its model versions otherwise.';

create or replace function dynrec._check_sees_all(sources regclass[], why text) returns void
language plpgsql stable
set search_path from current
as $$
declare
  hidden regclass;
begin
  select s.source into hidden from unnest(sources) as s (source)
  where s.source is not null and (row_security_active(s.source::oid) or not has_table_privilege(s.source::oid, 'select'))
    and not coalesce((select pg_has_role(a.oid, 'usage') from pg_roles a where a.rolname = 'dynrec_admin'), false)
  limit 1;
  if hidden is not null then
    raise exception '% hides rows of % from role %: %', case when row_security_active(hidden::oid) then 'row-level security' else 'a missing right' end, hidden, current_user, why
      using errcode = 'insufficient_privilege', hint = 'Ask as a role that sees all of them.';
  end if;
end
$$;
comment on function dynrec._check_sees_all(regclass[], text) is
  'Internal. insufficient_privilege unless the caller sees all rows of these tables (null: no table), or is an administrator.';

create or replace function dynrec._check_may_note(what text) returns void
language plpgsql stable
set search_path from current
as $$
begin
  if pg_is_in_recovery() then
    raise exception '% cannot be noted on a standby', what
      using errcode = 'read_only_sql_transaction', hint = 'Connect to the primary for it, for example with target_session_attrs=read-write.';
  elsif current_setting('transaction_read_only')::boolean then
    raise exception '% cannot be noted in a transaction that is read only', what
      using errcode = 'read_only_sql_transaction', hint = 'Begin it with read write; see the settings default_transaction_read_only and transaction_read_only.';
  end if;
end
$$;
comment on function dynrec._check_may_note(text) is 'Internal. read_only_sql_transaction, with what to do instead, where nothing can be written; what: impressions or exposures.';

create or replace function dynrec._reject(what text, given text, remedy text) returns void
language plpgsql immutable parallel safe
set search_path from current
as $$
begin
  raise exception '%: %', what, dynrec._quoted(given)
    using errcode = 'invalid_parameter_value', hint = remedy;
end
$$;
comment on function dynrec._reject(text, text, text) is
  'Internal. Raises invalid_parameter_value naming the offending value, with a remedy as the hint.';

create or replace function dynrec._check_k(k int) returns int
language plpgsql immutable parallel safe
set search_path from current
as $$
begin
  if k is null or k < 1 or k > 10000 then
    perform dynrec._reject('k is out of range', k::text, 'Ask for 1 to 10000 rows.');
  end if;
  return k;
end
$$;
comment on function dynrec._check_k(int) is 'Internal. k itself, or an error unless 1 <= k <= 10000.';

create or replace function dynrec._longest_key() returns int
language sql immutable parallel safe
as $$ select 2600 $$;
comment on function dynrec._longest_key() is
  'Internal. The most bytes of a key: an index entry has room for 2704, and the widest index has other columns beside the key.';

create or replace function dynrec._is_key(value text, type text) returns boolean
language sql stable
set search_path from current
as $$ select value is not null and octet_length(value) <= dynrec._longest_key() and pg_catalog.pg_input_is_valid(value, type) $$;
comment on function dynrec._is_key(text, text) is
  'Internal. Whether a text can be a key of that type: a value that cannot is an unknown key, not an error.';

create or replace function dynrec._check_length(what text, key text) returns void
language plpgsql immutable parallel safe
set search_path from current
as $$
begin
  if octet_length(key) > dynrec._longest_key() then
    perform dynrec._reject(format('%s is too long, with %s bytes', what, octet_length(key)), key, format('Keys and names have at most %s bytes.', dynrec._longest_key()));
  end if;
end
$$;
comment on function dynrec._check_length(text, text) is 'Internal. An error that says how long a key or name is unless it fits into an index.';

create or replace function dynrec._as_key(value text, type text) returns text
language plpgsql stable
set search_path from current
as $$
begin
  if type = 'text' or not pg_input_is_valid(value, type) then
    return value;
  elsif type = 'uuid' then
    return value::uuid;
  else
    return value::bigint;
  end if;
end
$$;
comment on function dynrec._as_key(text, text) is
  'Internal. A key as a source of that type writes it, so that A0EEBC… finds a0eebc… and 007 finds 7; what cannot be a key stays as it is.';

create or replace function dynrec._as_keys(given text[], type text) returns text[]
language plpgsql stable
set search_path from current
as $$
begin
  if given is null or type = 'text' and array_ndims(given) = 1 then
    return given;
  end if;
  return array(select dynrec._as_key(g.value, type) from unnest(given) with ordinality as g (value, position) order by g.position);
end
$$;
comment on function dynrec._as_keys(text[], text) is 'Internal. The keys, each as a source of that type writes it.';

create or replace function dynrec._short(number double precision) returns text
language sql immutable
as $$
  select case when number = 0 or number in ('NaN', 'Infinity', '-Infinity') then number::text
    else trim_scale(round(number::numeric, 2 - floor(log(abs(number)))::int))::text end
$$;
comment on function dynrec._short(double precision) is 'Internal. A number to three digits, for people.';
