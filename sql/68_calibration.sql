-- Whether scores mean what they say.

create or replace function dynrec.score_calibration(
  recommender text, "from" timestamptz, "to" timestamptz, k int default 10, bins int default 10, by_model int default null,
  users int default null, seed int default 0)
returns table (model_version int, bin int, low_score double precision, high_score double precision, expected double precision, observed double precision,
  standard_error double precision, items bigint, hits bigint)
language plpgsql stable
set search_path from current
as $$
#variable_conflict use_column
declare
  is_learned boolean;
begin
  if bins is null or bins not between 1 and 100 then
    perform dynrec._reject('bins is out of range', bins::text, 'Give into how many parts the scores are divided: 1 to 100.');
  end if;
  select m.kind = 'learned' into is_learned from dynrec_data.model_version m
  where m.id = (dynrec._answering(dynrec._recommender(recommender), least("from", clock_timestamp()), by_model)).active_model_id;
  return query
    with shown as (
      select l.user_id, s.item_id, l.model_version as model, s.score, (s.item_id = any (l.relevant))::int as hit
      from dynrec.evaluation_lists(recommender, "from", "to", k, by_model, users, seed) l, unnest(l.recommended, l.scores, l.sources) as s (item_id, score, source)
      where s.source in ('personal', 'repeat') and cardinality(l.relevant) > 0
    ), weighed as (
      select s.user_id, s.item_id, s.model, s.score, s.hit, sum(s.hit) over one as hits, exp(greatest(s.score - max(s.score) over one, -700)) as weight
      from shown s window one as (partition by s.user_id)
    ), judged as (
      -- scores of a learned model differ within a list as the logarithms of chances do
      select w.user_id, w.item_id, w.model, w.score, w.hit, w.weight / sum(w.weight) over (partition by w.user_id) as expected, w.hit / w.hits::double precision as share
      from weighed w where w.hits > 0 or not is_learned
    ), sorted as (
      select j.*, ntile(bins) over (order by case when is_learned then j.expected else j.score end, j.score, j.user_id, j.item_id) as bin from judged j
    )
    select s.model, s.bin, min(s.score), max(s.score), case when is_learned then avg(s.expected) end,
      case when is_learned then avg(s.share) else avg(s.hit)::double precision end,
      (case when is_learned then stddev_samp(s.share) else stddev_samp(s.hit)::double precision end) / sqrt(count(*)), count(*), sum(s.hit)
    from sorted s group by s.model, s.bin order by s.bin;
end
$$;
comment on function dynrec.score_calibration(text, timestamptz, timestamptz, int, int, int, int, int) is
  'Whether a higher score means more: the items of the lists of dynrec.evaluation_lists (arguments as there; paths personal and repeat, users with relevant items) in so many equal parts. In a content space by their '
  'score, a cosine: observed is the share of them that their users met in the period. Of a learned model, whose scores can be compared within a list only, by the share of a list''s hits that they promise '
  '(expected: the softmax of the scores of the list), and observed is the share that they had, over lists with a hit: the two are equal where scores are calibrated. standard_error: of observed.';
