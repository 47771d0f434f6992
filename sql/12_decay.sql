-- Exponential decay and the vector arithmetic that pgvector does not have.

create or replace function dynrec._decay(age double precision, half_life double precision) returns double precision
language sql immutable parallel safe
as $$ select pg_catalog.power(2, -least(greatest(age / half_life, -100), 100)) $$;
comment on function dynrec._decay(double precision, double precision) is
  'Internal. 2^(-age / half_life), both in seconds; the exponent is held within +-100, where a real would over- or underflow.';

create or replace function dynrec._seconds(span interval) returns double precision
language sql immutable parallel safe
as $$ select extract(epoch from span)::double precision $$;
comment on function dynrec._seconds(interval) is 'Internal. An interval in seconds.';

create or replace function dynrec._age(later timestamptz, earlier timestamptz) returns double precision
language sql immutable parallel safe
as $$ select greatest(pg_catalog.date_part('epoch', later - earlier), 0) $$;
comment on function dynrec._age(timestamptz, timestamptz) is
  'Internal. Seconds from earlier to later, never below 0: an interaction dated in the future counts as happening now.';

create or replace function dynrec._scale(v vector, factor double precision) returns vector
language sql immutable parallel safe
as $$ select case when v is not null then v * array_fill((case when abs(factor) < 1e-12 then 0 else factor end)::real, array[vector_dims(v)])::vector end $$;
comment on function dynrec._scale(vector, double precision) is
  'Internal. factor times v; null for null. A factor below 1e-12 (forty half-lives) counts as 0: pgvector refuses products that underflow a real.';

create or replace function dynrec._tiny(dimension int) returns vector
language sql immutable parallel safe
as $$ select array_fill(8.6736174e-19::real, array[dimension])::vector $$;
comment on function dynrec._tiny(int) is 'Internal. The vector of that dimension whose components are 2^-60.';

create or replace function dynrec._flush(v vector) returns vector
language sql immutable parallel safe
as $$ select case when v is not null then v + dynrec._tiny(vector_dims(v)) - dynrec._tiny(vector_dims(v)) end $$;
comment on function dynrec._flush(vector) is
  'Internal. v with components below 1e-26 made 0, so that it can be scaled without underflow: in single precision they vanish '
  'beside 2^-60, which itself vanishes beside components above 1e-10.';

create or replace function dynrec._zero(dimension int) returns vector
language sql immutable parallel safe
as $$ select array_fill(0::real, array[dimension])::vector $$;
comment on function dynrec._zero(int) is 'Internal. The zero vector of that dimension.';

create or replace function dynrec._now() returns timestamptz
language sql stable parallel safe
as $$ select coalesce(nullif(pg_catalog.current_setting('dynrec.clock', true), '')::timestamptz, now()) $$;
comment on function dynrec._now() is
  'Internal. What readers take for now: the setting dynrec.clock where it is set, to replay a history at its own times, else the time of the transaction.';
