"""One call declares a recommender; the worker backfills the vectors."""

import time
from collections.abc import Callable
from typing import LiteralString

from workers.context import Tally
from workers.demo.stage import ClaimError, Row, Stage, advance, duration

PATIENCE = 900.0  # seconds until a backfill counts as stuck
POLL = 0.2  # seconds between looks

RECOMMENDER: LiteralString = """
select * from dynrec.create_recommender(
  'shop',
  items               => 'shop.products',
  text_columns        => array['name', 'category', 'package_size'],
  categorical_columns => array['department', 'brand'],
  interactions        => 'shop.purchases',
  user_column         => 'household_id',
  item_column         => 'product_id',
  time_column         => 'bought_at',
  options             => '{"half_life": "3 days", "exclude_seen": false}')
"""


def declare(stage: Stage, work_done: Callable[[], Tally]) -> None:
    """Declare recommender shop and watch its backfill; `work_done` is what the worker has done so far."""
    stage.part("One call declares a recommender")
    stage.show(RECOMMENDER)
    stage.say(
        """
        Triggers now note every change of these columns. A purchase counts half after three days, and what was bought
        may be recommended again, as groceries are. The worker, in this process, fills in the vectors:
        """
    )
    before, started = work_done(), time.perf_counter()
    _watch_backfill(stage)
    seconds = time.perf_counter() - started
    texts = stage.show(
        """
        select count(*) as products, count(distinct (name, category, package_size, department, brand)) as distinct_texts
        from shop.products
        """
    )[0]
    _count_model_calls(stage, texts, before, work_done(), seconds)
    stage.end_part()


def _watch_backfill(stage: Stage) -> None:
    [wanted] = stage.ask(
        "select (select count(*) from shop.products) as item, (select count(*) from shop.households) as user"
    )
    deadline = time.monotonic() + PATIENCE
    with stage.progress() as bars:
        bar_of = {
            "item": bars.add_task("vectors of products", total=wanted["item"]),
            "user": bars.add_task("vectors of households", total=wanted["user"]),
        }
        done = dict.fromkeys(bar_of, 0)
        while done != wanted or not _is_at_rest(stage):
            for row in stage.ask("select kind, entities - stale as fresh from dynrec.freshness"):
                done[row["kind"]] = row["fresh"]
                advance(bars, bar_of[row["kind"]], row["fresh"], wanted[row["kind"]])
            _check_progress(stage, deadline)
            time.sleep(POLL)


def _is_at_rest(stage: Stage) -> bool:
    [row] = stage.ask(
        """
        select s.queued + s.leased + s.tasks = 0 and m.indexed as yes
        from dynrec.status s join dynrec.model_versions m using (recommender, model_version)
        """
    )
    return bool(row["yes"])


def _check_progress(stage: Stage, deadline: float) -> None:
    failures = stage.ask("select kind, entity, error from dynrec.failures limit 1")
    if failures:
        raise ClaimError("the backfill fails at {kind} {entity}: {error}".format(**failures[0]))
    if time.monotonic() > deadline:
        raise ClaimError(f"the backfill was not done after {PATIENCE:.0f} s: is the machine overloaded?")


def _count_model_calls(stage: Stage, texts: Row, before: Tally, after: Tally, seconds: float) -> None:
    products, encoded, calls = texts["products"], after.encoded - before.encoded, after.calls - before.calls
    stage.say(
        f"""
        Products of the same text share a vector: the model (all-MiniLM-L6-v2) computed {encoded:,} texts in {calls}
        calls. With the vectors of all households and the index the backfill took {duration(seconds)}.
        """
    )
    stage.claim(
        f"each distinct text was encoded once: {products - encoded:,} of {products:,} products cost the model nothing",
        holds=encoded == texts["distinct_texts"],
    )
