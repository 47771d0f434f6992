"""What a benchmark shows: progress while it runs, then a table or lines of JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from workers.bench.files import write
from workers.bench.measure import Figure, Growth, Measure, machine, p50

Advance = Callable[[], object]


@contextmanager
def progress(what: str, steps: int) -> Iterator[Advance]:
    """A progress bar on stderr, where stdout may be JSON; call what it yields after each step."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=steps)
        yield lambda: bar.advance(task)


def show(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print a table, or one JSON object a line, and leave them where `keep` said."""
    write(figures)
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
            f"{_ratio(figure.ratio)} [dim]({_ratio(min(figure.ratios))}-{_ratio(max(figure.ratios))})[/dim]",
            "" if figure.target is None else f"{'≥' if figure.higher_is_better else '≤'} {figure.target:g}",
            {None: "", True: "[green]met[/green]", False: "[red]missed[/red]"}[figure.met],
        )
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def show_measures(measures: Iterable[Measure], *, as_json: bool) -> None:
    """Print one JSON object a line, each when it is there, or a table with a column for each catalogue."""
    if as_json:
        for measure in measures:
            print(json.dumps({**asdict(measure), "machine": machine()}), flush=True)  # noqa: T201 - this is the output
        return
    taken = list(measures)
    places = list(dict.fromkeys((m.items, m.dimension) for m in taken))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for items, dimension in places:
        table.add_column(f"{items:,} of {dimension}", justify="right")
    for name, unit in dict.fromkeys((m.name, m.unit) for m in taken):
        of_place = {(m.items, m.dimension): _number(m.value) + _processor(m) for m in taken if m.name == name}
        table.add_row(f"[bold]{name}[/bold], {unit}", *(of_place.get(place, "") for place in places))
    console = Console()
    console.print(table)
    console.print(f"in brackets: seconds that the server's process computed. {machine()}", style="dim")


def _processor(measure: Measure) -> str:
    return "" if measure.processor is None else f" ({measure.processor:,.3g} s)"


def show_growth(growths: Iterable[Growth], *, as_json: bool) -> None:
    """Print one JSON object a line, each when it is there, or a table for each thing that grows."""
    if as_json:
        for growth in growths:
            exponents = {"of_time": round(growth.of_time, 2), "of_pages": round(growth.of_pages, 2)}
            values = {**exponents, "points": [asdict(point) for point in growth.points], "machine": machine()}
            print(json.dumps(values), flush=True)  # noqa: T201 - this is the output
        return
    console = Console()
    for what, steps in groupby(growths, lambda growth: growth.points[0].what):
        console.print(_growth_table(what, list(steps)))
        console.print()
    console.print(
        "ms, and pages of 8 kB looked at. Exponents at the right end of the table: 1 is linear.",
        style="dim",
    )


def _growth_table(what: str, steps: Sequence[Growth]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(what)
    for heading in (*(f"{point.size:,}" for point in steps[0].points), "of time", "of pages"):
        table.add_column(heading, justify="right")
    for growth in steps:
        cells = (f"{_number(point.milliseconds)} ms, {point.pages:,}" for point in growth.points)
        table.add_row(growth.points[0].step, *cells, f"{growth.of_time:.2f}", f"{growth.of_pages:.2f}")
    return table
