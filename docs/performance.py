"""Write the tables of docs/performance.md from the figures in docs/performance/. Run by `make docs`.

    dynrec bench --out docs/performance recommend --items 100000

leaves figures and a plot there; `<!-- recommend -->` in the page is where the table comes, until the next line that
is empty.
"""

import json
import re
from pathlib import Path

PAGE = Path(__file__).with_name("performance.md")
FIGURES = Path(__file__).with_name("performance")
HEAD = "| | measured | reference | ratio | range | target | |\n|---|---|---|---|---|---|---|\n"
VERDICTS = {None: "", True: "met", False: "**missed**"}


def main() -> None:
    """Fill in the page."""
    page = PAGE.read_text()
    for file in sorted(FIGURES.glob("*.json")):
        table = HEAD + "".join(map(_row, map(json.loads, file.read_text().splitlines())))
        page = re.sub(rf"<!-- {file.stem} -->\n(?:\|.*\n)*", f"<!-- {file.stem} -->\n{table}", page)
    PAGE.write_text(page)


def _row(figure: dict[str, object]) -> str:
    low, high = figure["spread"]  # type: ignore[misc]
    sign = "≥" if figure["higher_is_better"] else "≤"
    target = "" if figure["target"] is None else f"{sign} {figure['target']:g}"
    cells = (
        figure["name"],
        f"{_number(figure['measured'])} {figure['unit']}".strip(),
        f"{_number(figure['reference'])} {figure['unit']}".strip(),
        f"**{_number(figure['ratio'])}**",
        "" if figure["runs"] == 1 else f"{_number(low)} to {_number(high)}",
        target,
        VERDICTS[figure["met"]],  # type: ignore[index]
    )
    return f"| {' | '.join(map(str, cells))} |\n"


def _number(value: object) -> str:
    number = float(str(value))
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


if __name__ == "__main__":
    main()
