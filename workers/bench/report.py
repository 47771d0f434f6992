"""What a benchmark shows: progress while it runs, then a table or lines of JSON."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from workers.bench.measure import Figure, machine, p50

Advance = Callable[[], object]


@contextmanager
def progress(what: str, steps: int) -> Iterator[Advance]:
    """A progress bar on stderr, where stdout may be JSON; call what it yields after each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=steps)
        yield lambda: bar.advance(task)


def show(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print a table, or one JSON object a line."""
    if as_json:
        for figure in figures:
            print(json.dumps(figure.as_json()))  # noqa: T201 - this is the output
        return
    console = Console()
    console.print(_table(figures))
    console.print()
    for figure in figures:
        console.print(f"[bold]{figure.name}[/bold]: {figure.about}")
    console.print(f"ratio: median of the runs (smallest-largest). {machine()}", style="dim")


def _table(figures: Sequence[Figure]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "measured", "reference", "ratio", "target", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    for figure in figures:
        table.add_row(
            f"[bold]{figure.name}[/bold]",
            f"{_number(p50(figure.measured))} {figure.unit}",
            f"{_number(p50(figure.reference))} {figure.unit}",
            f"{figure.ratio:.2f} [dim]({min(figure.ratios):.2f}-{max(figure.ratios):.2f})[/dim]",
            "" if figure.target is None else f"{'≥' if figure.higher_is_better else '≤'} {figure.target:g}",
            {None: "", True: "[green]met[/green]", False: "[red]missed[/red]"}[figure.met],
        )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
