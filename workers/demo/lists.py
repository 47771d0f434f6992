"""Lists side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workers.demo.stage import Row, Stage


@dataclass(frozen=True)
class Remembered:
    """A list, and when it was the answer."""

    moment: datetime
    rows: list[Row]


LIST: LiteralString = """
    select r.rank, r.item_id, p.name, p.package_size as size, r.score
    from dynrec.recommend('shop', %(household)s, k => 8, diversity => 0.5) r
      join shop.products p on p.product_id = r.item_id::integer
    order by r.rank
"""


def now(stage: Stage) -> datetime:
    """What time it is for the database."""
    [row] = stage.ask("select clock_timestamp() as now")
    moment: datetime = row["now"]
    return moment


def names(rows: Sequence[Row]) -> list[str]:
    """Products as a reader knows them, by name and size."""
    return [", ".join(filter(None, (row["name"], row["size"]))) for row in rows]


def compare(stage: Stage, before: Sequence[Row], after: Sequence[Row]) -> None:
    """Show two lists of the same length side by side; what is new is marked."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", border_style="dim")
    for heading in ("rank", "before", "after", ""):
        table.add_column(heading)
    known = names(before)
    for rank, (was, is_now) in enumerate(zip(known, names(after), strict=True), start=1):
        new = is_now not in known
        table.add_row(str(rank), was, Text(is_now, style="green" if new else ""), "new" if new else "")
    stage.console.print(table)


def score_distance(one: Sequence[Row], other: Sequence[Row]) -> float:
    """How far two lists are apart: the largest difference between the scores at a rank."""
    return max(abs(float(a["score"]) - float(b["score"])) for a, b in zip(one, other, strict=True))
