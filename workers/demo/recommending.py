"""Recommendations for a household, in one statement."""

from statistics import median

from workers.demo.grocery import HOUSEHOLD
from workers.demo.stage import Stage, duration

TIMES = 50  # calls for a median


def recommend(stage: Stage) -> None:
    """Show what a household bought and what it is recommended, with reasons."""
    stage.part("Recommendations are a select")
    stage.say(f"What household {HOUSEHOLD} bought lately:")
    stage.show(
        """
        select u.bought_at::date as day, p.name, p.category, p.package_size as size, u.amount
        from shop.purchases u join shop.products p using (product_id)
        where u.household_id = %(household)s
        order by u.bought_at desc, p.name limit 8
        """,
        household=HOUSEHOLD,
    )
    stage.say(
        "What it is recommended, joined with the application's own columns, with the purchase that speaks most for it:"
    )
    rows = stage.show(
        """
        select r.rank, p.name, p.package_size as size, p.price, r.score, r.source,
          b.name as because_of, e.occurred_at::date as bought_on, e.similarity as alike
        from dynrec.recommend('shop', %(household)s, k => 8, diversity => 0.5) r
          join shop.products p on p.product_id = r.item_id::integer
          cross join lateral dynrec.explain('shop', %(household)s, r.item_id, k => 1) e
          join shop.products b on b.product_id = e.because_item_id::integer
        order by r.rank
        """,
        household=str(HOUSEHOLD),
    )
    stage.claim(
        "eight rows, all of them personal, each with a reason",
        holds=len(rows) == 8 and all(row["source"] == "personal" and row["because_of"] for row in rows),
    )
    stage.show(
        """
        select e.reason
        from dynrec.recommend('shop', %(household)s, k => 1) r
          cross join lateral dynrec.explain('shop', %(household)s, r.item_id, k => 3) e
        """,
        household=str(HOUSEHOLD),
    )
    times = [
        stage.timed("select * from dynrec.recommend('shop', %(household)s)", household=str(HOUSEHOLD))[1]
        for _ in range(TIMES)
    ]
    stage.say(
        f"[bold]dynrec.recommend('shop', '{HOUSEHOLD}')[/] alone, {TIMES} times: median {duration(median(times))}."
    )
    stage.end_part()
