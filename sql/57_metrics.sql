-- Metrics of recommendations: of one user's list against what turned out relevant, and of many lists against the catalogue.

create or replace function dynrec._first_ranks(recommended text[], k int) returns table (item_id text, rank bigint)
language sql immutable parallel safe
as $$
  select r.item_id, min(r.rank) from unnest(recommended) with ordinality as r (item_id, rank)
  where r.item_id is not null and (k is null or r.rank <= k) group by r.item_id
$$;
comment on function dynrec._first_ranks(text[], int) is
  'Internal. The items in the first k positions of a list (null: in all), each at its first; positions of nulls and repetitions stay taken.';

create or replace function dynrec._different(items text[]) returns bigint
language sql immutable parallel safe
as $$ select count(distinct i.item) from unnest(items) as i (item) $$;
comment on function dynrec._different(text[]) is 'Internal. The number of different elements; nulls do not count.';

create or replace function dynrec._hit_ranks(recommended text[], relevant text[], k int) returns bigint[]
language sql immutable parallel safe
as $$
  select case when exists (select from unnest(relevant) as v (item) where v.item is not null)
    then array(
      select r.rank from dynrec._first_ranks(recommended, k) r
      where r.item_id in (select v.item from unnest(relevant) as v (item)) order by r.rank)
  end
$$;
comment on function dynrec._hit_ranks(text[], text[], int) is
  'Internal. The positions of relevant items among the first k (null: among all), ascending; null where nothing is relevant.';

create or replace function dynrec._check_gains(relevant text[], gains double precision[]) returns double precision[]
language plpgsql immutable parallel safe
set search_path from current
as $$
declare
  remedy constant text := format('Give one gain for each relevant item; relevant has %s elements, gains %s.',
    coalesce(cardinality(relevant)::text, 'null'), coalesce(cardinality(gains)::text, 'null'));
  wrong record;
begin
  select g.item, g.gain, g.position into wrong
  from unnest(relevant, gains) with ordinality as g (item, gain, position)
  where g.gain is null or g.gain < 0 or g.gain >= 'infinity' or g.position > coalesce(cardinality(relevant), 0)
  order by g.position limit 1;
  if not found then
    return gains;
  elsif wrong.position > coalesce(cardinality(relevant), 0) then
    perform dynrec._reject('gain without a relevant item', wrong.gain::text, remedy);
  elsif wrong.position > coalesce(cardinality(gains), 0) then
    perform dynrec._reject('relevant item without a gain', wrong.item, remedy);
  end if;
  perform dynrec._reject('gain is out of range', wrong.gain::text, 'Gains are finite numbers from 0 up.');
end
$$;
comment on function dynrec._check_gains(text[], double precision[]) is
  'Internal. gains themselves, or an error unless there is one for each relevant item, each a finite number from 0 up.';

create or replace function dynrec._check_user_counts(item_ids text[], user_counts bigint[], users bigint) returns boolean
language plpgsql immutable parallel safe
set search_path from current
as $$
declare
  wrong record;
begin
  if users < 1 then
    perform dynrec._reject('users is out of range', users::text, 'Give the number of users that the user_counts are of, from 1 up.');
  end if;
  if item_ids is null or user_counts is null then
    return null;
  end if;
  select c.item_id, c.user_count, c.position into wrong from unnest(item_ids, user_counts) with ordinality as c (item_id, user_count, position)
  where c.position > cardinality(item_ids) or c.position > cardinality(user_counts) or c.user_count < 0 or c.user_count > users
  order by c.position limit 1;
  if not found then
    return true;
  elsif wrong.position > cardinality(item_ids) then
    perform dynrec._reject('user_count without an item', wrong.user_count::text, 'Give one of user_counts for each of item_ids.');
  elsif wrong.position > cardinality(user_counts) then
    perform dynrec._reject('item without a user_count', wrong.item_id, 'Give one of user_counts for each of item_ids.');
  end if;
  perform dynrec._reject('user_count is out of range', wrong.user_count::text,
    format('The count of item %s must be from 0 to the number of users%s.', dynrec._quoted(wrong.item_id), ', ' || users));
end
$$;
comment on function dynrec._check_user_counts(text[], bigint[], bigint) is
  'Internal. True, or null where an array is null; an error unless they pair up and each count is from 0 to users (null: to any number).';

create or replace function dynrec._check_catalogue(catalogue_size bigint, items_shown bigint) returns bigint
language plpgsql immutable parallel safe
set search_path from current
as $$
begin
  if catalogue_size < greatest(items_shown, 1) then
    perform dynrec._reject('catalogue_size is out of range', catalogue_size::text,
      format('Count every item that can be shown; %s different ones were.', items_shown));
  end if;
  return catalogue_size;
end
$$;
comment on function dynrec._check_catalogue(bigint, bigint) is
  'Internal. catalogue_size itself, null for null; an error unless it is at least 1 and at least the number of different items shown.';

create or replace function dynrec._user_counts(item_ids text[], user_counts bigint[]) returns table (item_id text, user_count bigint)
language sql immutable parallel safe
as $$
  select c.item_id, max(c.user_count) from unnest(item_ids, user_counts) as c (item_id, user_count) where c.item_id is not null group by c.item_id
$$;
comment on function dynrec._user_counts(text[], bigint[]) is 'Internal. The pairs as rows: each item once, with its highest count.';

create or replace function dynrec.precision_at_k(recommended text[], relevant text[], k int) returns double precision
language sql immutable parallel safe
as $$ select cardinality(dynrec._hit_ranks(recommended, relevant, dynrec._check_k(k))) / k::double precision $$;
comment on function dynrec.precision_at_k(text[], text[], int) is
  'Precision: relevant items among the first k, divided by k (Herlocker et al., TOIS 2004). 0 to 1. '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once. '
  'A list shorter than k is judged as if filled with misses: it is divided by k all the same (as in trec_eval; lenskit divides by its length).';

create or replace function dynrec.recall_at_k(recommended text[], relevant text[], k int) returns double precision
language sql immutable parallel safe
as $$ select cardinality(dynrec._hit_ranks(recommended, relevant, dynrec._check_k(k))) / nullif(dynrec._different(relevant), 0)::double precision $$;
comment on function dynrec.recall_at_k(text[], text[], int) is
  'Recall: relevant items among the first k, divided by the number of relevant items (Herlocker et al., TOIS 2004). 0 to 1; '
  'with more than k relevant items 1 is out of reach (lenskit divides by the lesser of both). '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once; a list shorter than k is judged as if '
  'filled with misses.';

create or replace function dynrec.hit_rate_at_k(recommended text[], relevant text[], k int) returns double precision
language sql immutable parallel safe
as $$ select (cardinality(dynrec._hit_ranks(recommended, relevant, dynrec._check_k(k))) > 0)::int::double precision $$;
comment on function dynrec.hit_rate_at_k(text[], text[], int) is
  'Hit: 1 if a relevant item is among the first k, else 0; its average over users is the hit rate (Deshpande & Karypis, TOIS 2004). '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once; a list shorter than k is judged as if '
  'filled with misses.';

create or replace function dynrec.reciprocal_rank(recommended text[], relevant text[], k int default null) returns double precision
language sql immutable parallel safe
as $$
  select coalesce(1 / h.ranks[1]::double precision, cardinality(h.ranks))  -- the latter is 0, or null where nothing is relevant
  from dynrec._hit_ranks(recommended, relevant, case when k is not null then dynrec._check_k(k) end) as h (ranks)
$$;
comment on function dynrec.reciprocal_rank(text[], text[], int) is
  'Reciprocal rank: 1 / the position of the first relevant item among the first k, in the whole list if k is null; 0 if there is none. '
  'Its average over users is the MRR (Kantor & Voorhees, TREC-5, 1996). 0 to 1. '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once; a list shorter than k is judged as if '
  'filled with misses.';

create or replace function dynrec.average_precision_at_k(recommended text[], relevant text[], k int) returns double precision
language sql immutable parallel safe
as $$
  select coalesce(sum(h.hits / h.rank::double precision order by h.rank), 0) / nullif(least(dynrec._check_k(k), dynrec._different(relevant)), 0)
  from unnest(dynrec._hit_ranks(recommended, relevant, k)) with ordinality as h (rank, hits)
$$;
comment on function dynrec.average_precision_at_k(text[], text[], int) is
  'Average precision: the sum of the precision at the position of each relevant item among the first k, divided by the lesser of k and the number '
  'of relevant items, so that the best list of k has 1; its average over users is the MAP (Buckley & Voorhees, SIGIR 2000; they, trec_eval and ranx '
  'divide by the number of relevant items, lenskit by the lesser of it and the length of the list). 0 to 1. '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once; a list shorter than k is judged as if '
  'filled with misses.';

create or replace function dynrec.ndcg_at_k(recommended text[], relevant text[], k int) returns double precision
language sql immutable parallel safe
as $$
  select coalesce(sum(1 / ln(h.rank + 1::double precision) order by h.rank), 0)
    / (
      select sum(1 / ln(i.rank + 1::double precision) order by i.rank)
      from generate_series(1, least(dynrec._check_k(k), dynrec._different(relevant))) as i (rank))
  from unnest(dynrec._hit_ranks(recommended, relevant, k)) as h (rank)
$$;
comment on function dynrec.ndcg_at_k(text[], text[], int) is
  'nDCG of relevant or not: the sum of 1 / log2(position + 1) over relevant items among the first k, divided by that sum of a list that begins '
  'with all '
  'relevant items, cut at k too (Jarvelin & Kekalainen, TOIS 2002, with the discount of Burges et al., ICML 2005; lenskit has the older one by '
  'default, '
  'which does not discount position 2). 0 to 1. '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once; a list shorter than k is judged as if '
  'filled with misses.';

create or replace function dynrec.ndcg_at_k(recommended text[], relevant text[], gains double precision[], k int) returns double precision
language sql immutable parallel safe
as $$
  with worth as materialized (
    select g.item_id, max(g.gain) as gain from unnest(relevant, dynrec._check_gains(relevant, gains)) as g (item_id, gain)
    where g.item_id is not null group by g.item_id
  )
  select coalesce(
    (select sum(w.gain / ln(r.rank + 1::double precision) order by r.rank) from dynrec._first_ranks(recommended, k) r join worth w using (item_id)), 0)
    / nullif((
      select sum(i.gain / ln(i.rank + 1::double precision) order by i.rank)
      from (select w.gain, row_number() over (order by w.gain desc) as rank from worth w) i where i.rank <= c.k), 0)
  from dynrec._check_k(k) as c (k)
$$;
comment on function dynrec.ndcg_at_k(text[], text[], double precision[], int) is
  'nDCG with degrees of relevance: the sum of gain / log2(position + 1) over the first k, divided by that sum of the list in order of gain, '
  'cut at k too '
  '(Jarvelin & Kekalainen, TOIS 2002, with the discount of Burges et al., ICML 2005). gains[i], finite and from 0 up, is the gain of '
  'relevant[i]; other items have 0. '
  'The gain is linear: for the exponential one pass 2^gain - 1, as array(select 2 ^ g - 1 from unnest(gains) g). 0 to 1. '
  'Null where relevant is null or empty or all gains are 0: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, an item twice in relevant has its highest gain; '
  'a list shorter than k is judged as if filled with misses.';

create or replace function dynrec.serendipity_at_k(recommended text[], relevant text[], expected text[], k int) returns double precision
language sql immutable parallel safe
as $$
  select (cardinality(dynrec._hit_ranks(recommended, relevant, dynrec._check_k(k))) - coalesce(cardinality(dynrec._hit_ranks(
    recommended, array(select r.item from unnest(relevant) as r (item) intersect select e.item from unnest(expected) as e (item)), k)), 0))
    / k::double precision
$$;
comment on function dynrec.serendipity_at_k(text[], text[], text[], int) is
  'Serendipity: items among the first k that are relevant and not among expected, which is what a plain method such as a list of the most '
  'popular shows, '
  'divided by k (Ge et al., RecSys 2010). 0 to the precision, which it equals where expected is null or empty. '
  'Null where relevant is null or empty: there is nothing to find, the user does not count. 0 where recommended is null or empty. '
  'A repeated item counts at its first position only, nulls are misses, relevant items count once; a list shorter than k is judged as if '
  'filled with misses.';

create or replace function dynrec.novelty_at_k(recommended text[], item_ids text[], user_counts bigint[], users bigint, k int)
returns double precision
language sql immutable parallel safe
as $$
  select case when dynrec._check_user_counts(item_ids, user_counts, users) then (
    select avg(ln(users / greatest(u.user_count, 1)::double precision) / ln(2::double precision))
    from dynrec._first_ranks(recommended, k) r left join dynrec._user_counts(item_ids, user_counts) u using (item_id)) end
  from dynrec._check_k(k) c
$$;
comment on function dynrec.novelty_at_k(text[], text[], bigint[], bigint, int) is
  'Novelty: the mean of -log2(users who met the item / users), its self-information in bits, over the first k (Zhou et al., PNAS 2010; Vargas '
  '& Castells, RecSys 2011). '
  'user_counts[i] is how many met item_ids[i]; only the items recommended matter, and those that are missing, null or 0 count as met by one user. '
  '0, where everybody met everything, to log2(users). Null where recommended has no items or an argument other than k is null: there is '
  'nothing to average. '
  'A repeated item counts once, at its first position, and nulls not at all; a list shorter than k is averaged over what it has. An item twice '
  'in item_ids has its highest count.';

create or replace function dynrec.popularity_bias_at_k(recommended text[], item_ids text[], user_counts bigint[], k int) returns double precision
language sql immutable parallel safe
as $$
  select case when dynrec._check_user_counts(item_ids, user_counts, null) then (
    select avg(coalesce(u.user_count, 0)::double precision)
    from dynrec._first_ranks(recommended, k) r left join dynrec._user_counts(item_ids, user_counts) u using (item_id))
    / nullif((select avg(coalesce(u.user_count, 0)::double precision) from dynrec._user_counts(item_ids, user_counts) u), 0) end
  from dynrec._check_k(k) c
$$;
comment on function dynrec.popularity_bias_at_k(text[], text[], bigint[], int) is
  'Popularity bias: the mean user_count of the first k (the average recommendation popularity of Yin et al., VLDB 2012), divided by the mean '
  'over all item_ids. '
  '0 up; 1 is as popular as the catalogue, 3 three times as popular. user_counts[i] is how many users met item_ids[i]; missing and null count as 0. '
  'Null where recommended has no items, an argument other than k is null, or nobody met anything. '
  'A repeated item counts once, at its first position, and nulls not at all; a list shorter than k is averaged over what it has. An item twice '
  'in item_ids has its highest count.';

create or replace function dynrec.catalogue_coverage(shown text[], catalogue_size bigint) returns double precision
language sql immutable parallel safe
as $$ select d.items / dynrec._check_catalogue(catalogue_size, d.items)::double precision from dynrec._different(shown) as d (items) $$;
comment on function dynrec.catalogue_coverage(text[], bigint) is
  'Coverage of the catalogue: different items shown, divided by catalogue_size (Ge et al., RecSys 2010). shown is all lists one after another. '
  '0 to 1. '
  '0 where shown is null or empty; null where catalogue_size is null. Nulls in shown do not count. '
  'A catalogue_size below 1 or below the number of different items shown is an error.';

create or replace function dynrec.user_coverage(list_lengths int[], k int) returns double precision
language sql immutable parallel safe
as $$
  select case when dynrec._check_k(k) is not null then (
    select avg((coalesce(l.length, 0) >= k)::int::double precision) from unnest(list_lengths) as l (length)) end
$$;
comment on function dynrec.user_coverage(int[], int) is
  'Coverage of users: the share of users whose list has k items or more (Shani & Gunawardana, Recommender Systems Handbook, 2011). '
  'list_lengths has the length of each user''s list; a null is a user without one. 0 to 1. Null where list_lengths is null or empty: there are '
  'no users.';

create or replace function dynrec.gini_of_exposure(shown text[], catalogue_size bigint) returns double precision
language sql immutable parallel safe
as $$
  select case when dynrec._check_catalogue(catalogue_size, d.items) is not null then (
    select sum((2 * (c.size - d.items + e.rank) - c.size - 1) * e.times order by e.rank) / (max(c.size) * sum(e.times))
    from (
      select count(*)::double precision as times, row_number() over (order by count(*)) as rank
      from unnest(shown) as i (item) where i.item is not null group by i.item
    ) e, (select catalogue_size::double precision as size) c) end
  from dynrec._different(shown) as d (items)
$$;
comment on function dynrec.gini_of_exposure(text[], bigint) is
  'Gini coefficient of how often items are shown: sum of (2i - n - 1) x_i / (n * sum of x_i) over the n = catalogue_size items in order of '
  'x_i, the times shown, '
  '0 for items never shown (Shani & Gunawardana, Recommender Systems Handbook, 2011; ListGini of lenskit). shown is all lists one after another. '
  '0, where all are shown equally often, to 1 - 1 / n, where one alone is shown. Null where shown is null or empty or catalogue_size is null. '
  'Nulls in shown do not count. '
  'A catalogue_size below 1 or below the number of different items shown is an error.';

create or replace function dynrec.shannon_of_exposure(shown text[]) returns double precision
language sql immutable parallel safe
as $$
  select sum(e.share * ln(1 / e.share)) / ln(2::double precision)
  from (
    select count(*) / (sum(count(*)) over ())::double precision as share from unnest(shown) as i (item) where i.item is not null group by i.item
  ) e
$$;
comment on function dynrec.shannon_of_exposure(text[]) is
  'Shannon entropy of how often items are shown: the sum of -p log2 p in bits, p an item''s share of what is shown (Shani & Gunawardana, '
  'Recommender Systems Handbook, 2011). '
  'shown is all lists one after another. 0, where one item alone is shown, to log2(number of different items). Null where shown is null or '
  'empty; nulls in it do not count.';

create or replace function dynrec.intra_list_diversity(vectors vector[]) returns double precision
language sql immutable parallel safe
set search_path from current
as $$
  select avg(coalesce(nullif(a.embedding <=> b.embedding, 'NaN'), 1))
  from unnest(vectors) with ordinality as a (embedding, position) join unnest(vectors) with ordinality as b (embedding, position)
    on a.position < b.position and a.embedding is not null and b.embedding is not null
$$;
comment on function dynrec.intra_list_diversity(vector[]) is
  'Diversity inside a list: the mean cosine distance over all pairs of its items'' vectors (Ziegler et al., WWW 2005, who sum similarities '
  'instead). 0 to 2. '
  'Null for fewer than two vectors; nulls do not count. A zero vector has no direction: its distance to every other is 1. Vectors of different '
  'dimensions are an error. '
  'In single precision, as pgvector computes it.';

create or replace function dynrec.intra_list_diversity(categories text[]) returns double precision
language sql immutable parallel safe
as $$
  select 1 - sum(case when c.category is not null then c.items * (c.items - 1) else 0 end) / nullif(sum(c.items) * (sum(c.items) - 1), 0)
  from (select i.category, count(*)::double precision as items from unnest(categories) as i (category) group by i.category) c
$$;
comment on function dynrec.intra_list_diversity(text[]) is
  'Diversity inside a list: the share of pairs of its items that are of different categories (Ziegler et al., WWW 2005, with the distance 0 or 1). '
  'categories has one for each item; a null is unknown, and different from everything. 0 to 1. Null for fewer than two items.';
