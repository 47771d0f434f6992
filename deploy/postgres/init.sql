-- Run once, by the superuser, when the cluster is made. app owns the application's tables and dynrec; the others have what
-- their work needs.
\set app_password `cat /run/secrets/app_password`
\set worker_password `cat /run/secrets/worker_password`
\set monitor_password `cat /run/secrets/monitor_password`

create role dynrec_reader nologin;
create role dynrec_writer nologin in role dynrec_reader;
create role dynrec_admin nologin in role dynrec_reader;
create role dynrec_worker nologin;

create role app login replication password :'app_password';  -- replication: it makes the slot of a stream
create role worker login password :'worker_password' in role dynrec_worker;
create role monitor login password :'monitor_password' in role dynrec_admin, pg_monitor;

alter database app owner to app;
create extension vector;
create extension pg_stat_statements;
grant execute on function pg_log_standby_snapshot() to app;  -- a stream reads less of the log again
