"""Lists side by side."""

from collections.abc import Sequence
from typing import LiteralString

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workers.demo.stage import Row, Stage

LIST: LiteralString = """
    select r.rank, r.item_id, p.name, p.package_size as size, r.score
    from dynrec.recommend('shop', %(household)s, k => 8, diversity => 0.5) r
      join shop.products p on p.product_id = r.item_id::integer
    order by r.rank
"""


def names(rows: Sequence[Row]) -> list[str]:
    """Products as a reader knows them, by name and size."""
    return [", ".join(filter(None, (row["name"], row["size"]))) for row in rows]


def compare(stage: Stage, before: Sequence[Row], after: Sequence[Row]) -> None:
    """Show two lists of the same length side by side; what is new is marked."""
    table = Table(header_style="bold", border_style="dim")
    for heading in ("rank", "before", "after", ""):
        table.add_column(heading)
    known = names(before)
    for rank, (was, now) in enumerate(zip(known, names(after), strict=True), start=1):
        new = now not in known
        table.add_row(str(rank), was, Text(now, style="green" if new else ""), "new" if new else "")
    stage.console.print(Padding(table, (1, 0, 0, 2)))


def score_distance(one: Sequence[Row], other: Sequence[Row]) -> float:
    """How far two lists are apart: the largest difference between the scores at a rank."""
    return max(abs(float(a["score"]) - float(b["score"])) for a, b in zip(one, other, strict=True))
