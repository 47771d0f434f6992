select dynrec._regenerate();
insert into dynrec_data.code (hash, vector_schema)
select {hash}, n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
on conflict (id) do update set hash = excluded.hash, vector_schema = excluded.vector_schema, applied_at = excluded.applied_at;
