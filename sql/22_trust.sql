-- Whose tables are read. Reading a table runs code of who owns it: Postgres runs functions of an index's or a statistics' expressions
-- while it plans, and those of casts, policies and views later, with the rights of the reader. Workers, administrators and triggers read with
-- the rights of dynrec's owner, so that they read tables of those alone who have these rights anyway, or whom that owner trusts by name.

create or replace function dynrec._owners(relation regclass) returns setof oid
language sql stable
set search_path from current
as $$
  select c.relowner from pg_class c where c.oid = relation
  union
  select c.relowner from pg_partition_tree(relation) p join pg_class c on c.oid = p.relid
  union
  select c.relowner from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = relation
$$;
comment on function dynrec._owners(regclass) is 'Internal. Who owns a table, or a part of it: whose code runs when it is read.';

create or replace function dynrec._untrusted_owner(relation regclass) returns name
language sql stable
set search_path from current
as $$
  select min(pg_get_userbyid(o.owner)) from dynrec._owners(relation) as o (owner)
  where not pg_has_role(o.owner, (select n.nspowner from pg_namespace n where n.nspname = 'dynrec'), 'member')
    and not exists (select from dynrec_data.trusted_owner t where t.owner = pg_get_userbyid(o.owner))
$$;
comment on function dynrec._untrusted_owner(regclass) is
  'Internal. An owner of a table who may not do what the owner of dynrec may, and is not trusted either; null if there is none.';

create or replace function dynrec._hold_source(relation regclass) returns void
language plpgsql
set search_path from current
as $$
declare
  named text := dynrec._qualified(relation);
  untrusted name;
begin
  if named is null then
    raise exception 'the table with oid % was dropped', relation::oid using errcode = 'undefined_table',
      hint = 'Drop the recommender with dynrec.drop_recommender, and declare it anew.';
  end if;
  -- until the end of the transaction nobody puts something else in its place, or gives it to somebody
  execute format('lock table only %s in access share mode', named);
  if to_regclass(named) is distinct from relation then
    raise exception '% was replaced by another relation', named using errcode = 'undefined_table', hint = 'Try again.';
  end if;
  untrusted := dynrec._untrusted_owner(relation);
  if untrusted is not null then
    raise exception '% belongs to %, whom the owner of dynrec does not trust', named, quote_ident(untrusted) using errcode = 'insufficient_privilege',
      detail = 'Reading a table runs code of its owner: here with the rights of the owner of dynrec.',
      hint = format('Let the owner of dynrec own the table, or have that role, if it trusts the owner of the table with all its rights: select dynrec.trust_owner(%L).', untrusted);
  end if;
end
$$;
comment on function dynrec._hold_source(regclass) is
  'Internal. Locks a table against being replaced, and an error unless its owners are trusted: to be called before it is read as the owner of dynrec.';

create or replace function dynrec._hold_read(r dynrec_data.recommender, relation regclass, reader text, alias text) returns void
language plpgsql
set search_path from current
as $$
declare
  code text := (select p.prosrc from pg_proc p where p.oid = to_regprocedure(format('dynrec_data.%s_%s()', reader, r.id)));
begin
  perform dynrec._hold_source(relation);
  -- the code names the table as it was called: by now something else may have that name
  if code !~ format('from %s %s\s', regexp_replace(dynrec._qualified(relation), '(\W)', '\\\1', 'g'), alias) then
    raise exception '% was renamed', dynrec._qualified(relation) using errcode = 'undefined_table', hint = format('select dynrec.alter_recommender(%L)', r.name);
  end if;
end
$$;
comment on function dynrec._hold_read(dynrec_data.recommender, regclass, text, text) is
  'Internal. As _hold_source; also an error if the code of a recommender reads something else. reader: a function that reads the table, under an alias.';

create or replace function dynrec._hold_items(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$ select dynrec._hold_read(r, r.items, 'source_keys', 'i') $$;
comment on function dynrec._hold_items(dynrec_data.recommender) is 'Internal. Before the items are read as the owner of dynrec: see _hold_source.';

create or replace function dynrec._hold_interactions(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$ select dynrec._hold_read(r, r.interactions, 'interactions_all', 'e') where r.interactions is not null $$;
comment on function dynrec._hold_interactions(dynrec_data.recommender) is 'Internal. Before the interactions are read as the owner of dynrec: see _hold_source.';

create or replace function dynrec._hold_sources(r dynrec_data.recommender) returns void
language sql
set search_path from current
as $$ select dynrec._hold_items(r); select dynrec._hold_interactions(r) $$;
comment on function dynrec._hold_sources(dynrec_data.recommender) is 'Internal. Before both sources are read as the owner of dynrec: see _hold_source.';

create or replace function dynrec._may_be_read(recommender_id int) returns boolean
language plpgsql
set search_path from current
as $$
declare
  untrusted text;
begin
  select format('%s belongs to %I', s.relation, dynrec._untrusted_owner(s.relation)) into untrusted
  from dynrec_data.recommender r cross join lateral (values (r.items), (r.interactions)) s (relation)
  where r.id = _may_be_read.recommender_id and dynrec._untrusted_owner(s.relation) is not null limit 1;
  if untrusted is null then
    return true;
  end if;
  raise warning 'recommender % is paused: %, whom the owner of dynrec does not trust',
    (select r.name from dynrec_data.recommender r where r.id = _may_be_read.recommender_id), untrusted;
  update dynrec_data.recommender r set paused = true where r.id = _may_be_read.recommender_id;
  return false;
end
$$;
comment on function dynrec._may_be_read(int) is
  'Internal. Whether the owners of the sources of a recommender are trusted. If not, it is paused, so that it does not keep workers busy.';

create or replace function dynrec.trust_owner(owner text) returns void
language plpgsql
set search_path from current
as $$
begin
  if to_regrole(quote_ident(owner)) is null then
    perform dynrec._reject('owner: no such role', owner, 'Name the role that owns the tables.');
  end if;
  insert into dynrec_data.trusted_owner (owner) values (trust_owner.owner) on conflict do nothing;
end
$$;
comment on function dynrec.trust_owner(text) is
  'Lets dynrec read tables of a role that has not the rights of the owner of dynrec anyway. Whoever owns a table can make those who read it run code, so that '
  'this gives the role all rights of that owner: of a superuser, if it is one. Only the owner of dynrec may call it. A recommender that was paused for it goes on after dynrec.resume, and finds what has changed.';

create or replace function dynrec.distrust_owner(owner text) returns void
language plpgsql
set search_path from current
as $$
begin
  delete from dynrec_data.trusted_owner t where t.owner = distrust_owner.owner;
  if not found then
    perform dynrec._reject('owner: not among the trusted ones', owner, coalesce('There are: '
      || (select string_agg(quote_literal(t.owner), ', ' order by t.owner) from dynrec_data.trusted_owner t) || '.', 'There are none.'));
  end if;
end
$$;
comment on function dynrec.distrust_owner(text) is
  'Takes dynrec.trust_owner back: recommenders over tables of that role are paused when a worker next looks at them; what changes meanwhile is looked for when the role is trusted again. Only the owner of dynrec may call it.';
