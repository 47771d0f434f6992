"""The same questions, as of moments before the changes."""

from workers.demo.grocery import HOUSEHOLD
from workers.demo.lists import Remembered, names, score_distance
from workers.demo.renaming import PRODUCT
from workers.demo.stage import Row, Stage


def read_the_past(stage: Stage, household_before: Remembered, product_before: Remembered) -> None:
    """Ask what was answered before the purchase and before the new names."""
    stage.part("The past can still be asked")
    stage.say(f"What was similar to product {PRODUCT} just before its first new name:")
    similar = stage.show(
        """
        select r.rank, r.item_id, p.name, p.package_size as size, p.category, r.score
        from dynrec.similar_items('shop', %(product)s, k => 6, diversity => 0.3,
            as_of => %(moment)s) r
          join shop.products p on p.product_id = r.item_id::integer
        order by r.rank
        """,
        product=str(PRODUCT),
        moment=product_before.moment,
    )
    _claim_same(stage, similar, product_before.rows)
    stage.say(f"What household {HOUSEHOLD} was recommended before it got a dog:")
    recommended = stage.show(
        """
        select r.rank, r.item_id, p.name, p.package_size as size, r.score
        from dynrec.recommend('shop', %(household)s, k => 8, diversity => 0.5,
            as_of => %(moment)s) r
          join shop.products p on p.product_id = r.item_id::integer
        order by r.rank
        """,
        household=str(HOUSEHOLD),
        moment=household_before.moment,
    )
    _claim_same(stage, recommended, household_before.rows)
    stage.end_part()


def _claim_same(stage: Stage, now: list[Row], then: list[Row]) -> None:
    # products of the same text have the same vector, and may take each other's place
    distance = score_distance(now, then)
    stage.claim(
        f"rank by rank what was answered then: the same products, scores apart by {distance:.6f} at most",
        holds=names(now) == names(then) and distance < 0.0001,
    )
