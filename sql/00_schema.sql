-- The public face of dynrec_store. Tables live in dynrec_data and are private.
create schema if not exists dynrec;
comment on schema dynrec is
  'dynrec_store: recommendations inside Postgres. Functions and views; names that start with an underscore are internal.';
