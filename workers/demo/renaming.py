"""A product changes: its vector follows within milliseconds, and its past stays readable."""

import time
from statistics import median
from typing import LiteralString

from workers.demo.lists import Remembered, compare, names, now
from workers.demo.stage import ClaimError, Stage, duration

PRODUCT = 926597  # canned milk, 14 oz, store brand
NAMES = (
    "Condensed milk",
    "Evaporated milk",
    "Lactose free milk",
    "Almond drink",
    "Oat drink",
    "Oat milk",
    "Oat milk for coffee",
)
CATEGORY = "Coffee"  # where it stands in the end
PATIENCE = 30.0  # seconds to wait for a vector
POLL = 0.001  # seconds between looks at it

SIMILAR: LiteralString = """
    select r.rank, r.item_id, p.name, p.package_size as size, p.category, r.score
    from dynrec.similar_items('shop', %(product)s, k => 6, diversity => 0.3) r
      join shop.products p on p.product_id = r.item_id::integer
    order by r.rank
"""


def rename(stage: Stage) -> Remembered:
    """Rename a product a few times, measure from commit to vector; returns what was similar before."""
    stage.part("A change in a row is a fresh vector, milliseconds later")
    before = Remembered(now(stage), stage.ask(SIMILAR, product=str(PRODUCT)))
    stage.say(f"Marketing is not sure what product {PRODUCT}, canned milk, should become. It tries {len(NAMES)} names:")
    times = [_rename_once(stage, name) for name in NAMES]
    stage.show_rows(
        [
            {"new name": name, "from commit to fresh vector": duration(seconds)}
            for name, seconds in zip(NAMES, times, strict=True)
        ]
    )
    stage.say(f"Median: [bold]{duration(median(times))}[/], as an application sees it that asks every millisecond.")
    stage.say("What is similar to it now:")
    after = stage.show(SIMILAR, product=str(PRODUCT))
    stage.say("What was similar to the canned milk, and what is to the oat milk:")
    compare(stage, before.rows, after)
    new = set(names(after)) - set(names(before.rows))
    stage.claim(f"{len(new)} of {len(after)} similar products are new", holds=len(new) >= 3)
    _show_history(stage)
    stage.end_part()
    return before


def _rename_once(stage: Stage, name: str) -> float:
    """Seconds from the commit of a new name to the first read that sees its vector."""
    stage.ask("select dynrec.wait_until_fresh('shop')")
    old = _vector(stage)
    update: LiteralString = (
        "update shop.products set name = %(name)s, category = %(category)s where product_id = %(product)s"
    )
    if name == NAMES[0]:
        stage.announce(update, name=name, category=CATEGORY, product=PRODUCT)
    stage.ask(update, name=name, category=CATEGORY, product=PRODUCT)
    committed = time.perf_counter()
    while _vector(stage) == old:
        if time.perf_counter() - committed > PATIENCE:
            raise ClaimError(f"the vector of product {PRODUCT} was not fresh {PATIENCE:.0f} s after its change")
        time.sleep(POLL)
    return time.perf_counter() - committed


def _vector(stage: Stage) -> object:
    [row] = stage.ask("select dynrec.item_vector_at('shop', %(product)s) as vector", product=str(PRODUCT))
    return row["vector"]


def _show_history(stage: Stage) -> None:
    stage.say("Every version is kept, with the time when it held and how far the vector moved:")
    versions = stage.show(
        """
        select h.version, to_char(h.valid_from, 'HH24:MI:SS.MS') as valid_from,
          to_char(h.valid_to, 'HH24:MI:SS.MS') as valid_to,
          h.created_at - h.valid_from as stored_after, left(h.content_hash, 8) as text_hash,
          d.cosine_distance as moved_by
        from dynrec.item_history('shop', %(product)s) h join dynrec.drift('shop', %(product)s) d using (version)
        order by h.version
        """,
        product=str(PRODUCT),
    )
    stage.claim(f"{len(versions)} versions: the first and one for each name", holds=len(versions) == 1 + len(NAMES))
