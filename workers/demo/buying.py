"""A purchase shapes the very next answer, before any worker has run."""

from workers.demo.grocery import HOUSEHOLD
from workers.demo.lists import LIST, Remembered, compare, names, now, score_distance
from workers.demo.stage import Stage, duration

BASKET = 4  # products in it


def buy(stage: Stage) -> Remembered:
    """Insert a purchase while recomputing is paused, and compare the lists; returns the one before."""
    stage.part("The next answer knows the last purchase")
    stage.say("Recomputing is paused, so that no worker can help:")
    stage.show("select dynrec.pause('shop')")
    before = Remembered(now(stage), stage.ask(LIST, household=str(HOUSEHOLD)))
    stage.say(f"Household {HOUSEHOLD} has got a dog:")
    stage.show(
        """
        insert into shop.purchases (household_id, product_id, basket_id, store_id, amount)
        select distinct on (name) %(household)s, product_id, 1, 330, price
        from shop.products where category = 'Dog foods' order by name, price desc limit %(basket)s
        """,
        household=HOUSEHOLD,
        basket=BASKET,
    )
    after, seconds = stage.timed(LIST, household=str(HOUSEHOLD))
    stage.say(f"The list before the purchase, and the one asked for right after it (in {duration(seconds)}):")
    compare(stage, before.rows, after)
    queue = stage.show("select kind, lane, changes, entities from dynrec.queue where recommender = 'shop'")
    stage.claim(
        f"the {BASKET} purchases still wait in the queue: no worker has seen them",
        holds=[(row["kind"], row["changes"]) for row in queue] == [("user", BASKET)],
    )
    new = set(names(after)) - set(names(before.rows))
    stage.claim(f"and yet {len(new)} of {len(after)} products in the list are new", holds=len(new) >= 2)
    _let_the_worker_catch_up(stage)
    stage.end_part()
    return before


def _let_the_worker_catch_up(stage: Stage) -> None:
    folded = stage.ask(LIST, household=str(HOUSEHOLD))
    stage.say("Now the worker may store what the answer has counted in already:")
    stage.show("select dynrec.resume('shop')")
    [row] = stage.show("select dynrec.wait_until_fresh('shop') as fresh")
    stored = stage.ask(LIST, household=str(HOUSEHOLD))
    distance = score_distance(folded, stored)
    stage.claim(
        f"the stored vector gives the same list: scores differ by {distance:.6f} at most",
        holds=row["fresh"] and distance < 0.001,
    )
