-- As dynrec migrate does: nothing of the users' schemas can take the place of what the script names.
select set_config('search_path', format('pg_catalog, %I, pg_temp', n.nspname), true)
from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector';
-- Loads the library: until then only a superuser may make functions that carry a setting of pgvector.
select '[1]'::vector;
