"""What costs nothing, and what is gone at once."""

from typing import LiteralString

from workers.demo.grocery import HOUSEHOLD
from workers.demo.stage import Stage

PRODUCT = 1082185  # bananas, which half of the households buy

PLACES: LiteralString = """
    select list, min(rank) filter (where item_id = %(product)s) as place_of_bananas, count(*) as rows
    from (
      select 'recommend' as list, * from dynrec.recommend('shop', %(household)s, k => 10000)
      union all select 'similar_items', * from dynrec.similar_items('shop', %(neighbour)s, k => 10000)
      union all select 'search', * from dynrec.search('shop', 'bananas', k => 10000)
      union all select 'trending', * from dynrec.trending('shop', k => 10000)
    ) lists
    group by list order by list
"""


def remove(stage: Stage) -> None:
    """Change a column that nobody watches, then delete a product, with recomputing paused."""
    stage.part("What does not matter costs nothing; what is deleted is gone at once")
    stage.ask("select dynrec.wait_until_fresh('shop')")
    stage.ask("select dynrec.pause('shop')")
    stage.say("Recomputing is paused again. Prices are not watched (filters read them where they are):")
    stage.show("update shop.products set price = round(price * 1.03, 2)")
    [queued] = stage.show("select coalesce(sum(changes), 0)::integer as changes_queued from dynrec.queue")
    stage.claim("every product has a new price, and no change was queued", holds=queued["changes_queued"] == 0)
    [neighbour] = stage.ask(
        "select item_id from dynrec.similar_items('shop', %(product)s, k => 1)", product=str(PRODUCT)
    )
    arguments = {"product": str(PRODUCT), "household": str(HOUSEHOLD), "neighbour": neighbour["item_id"]}
    stage.say("Where bananas stand in each full list:")
    before = stage.show(PLACES, **arguments)
    stage.claim("they are in all four lists", holds=[bool(row["place_of_bananas"]) for row in before] == [True] * 4)
    stage.say("They leave the range:")
    stage.show("delete from shop.products where product_id = %(product)s", product=PRODUCT)
    after = stage.ask(PLACES, **arguments)
    stage.say("The same lists again, at once:")
    stage.show_rows(after)
    stage.claim(
        "they are in none, although no worker has run",
        holds=len(after) == 4 and not any(row["place_of_bananas"] for row in after),
    )
    stage.ask("select dynrec.resume('shop')")
    stage.say("The worker now recomputes the households that have bought bananas; answers need not wait for that.")
    stage.end_part()
