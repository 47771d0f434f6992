"""What the commands print: tables or JSON on standard output, everything else on standard error."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

Record = dict[str, Any]

QUOTED = 200  # characters of a value that an error shows
PIPE_WIDTH = 1000  # columns; tables that a program reads are not folded


def out() -> Console:
    """Standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def say(message: str, *, style: str = "") -> None:
    """A line for a person, on standard error."""
    _stderr().print(Text(message, style=style), soft_wrap=True)


def quoted(text: str) -> str:
    """A value that was given, as much of it as a line holds."""
    return repr(text) if len(text) <= QUOTED else f"{text[:QUOTED]!r}… ({len(text)} characters)"


def complain(message: str) -> None:
    """An error on standard error: what is wrong in red, then the remedy."""
    wrong, _, remedy = message.partition("\n")
    say(f"error: {wrong}", style="bold red")
    if remedy:
        say(remedy)


def working(what: str) -> Status:
    """A spinner with a few words, for the length of a with block; nothing where nobody watches."""
    return _stderr().status(Text(f"{what} …"))


@contextmanager
def stages() -> Iterator[Callable[[str, float], None]]:
    """A progress bar for each stage of some work; call what it yields with the stage and its share done (0 to 1)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=_stderr(), transient=True) as progress:

        def show(stage: str, done: float) -> None:
            if stage not in bars:
                for earlier in bars.values():
                    progress.update(earlier, completed=1.0)
                bars[stage] = progress.add_task(stage, total=1.0)
            progress.update(bars[stage], completed=done)

        yield show


def print_json(value: object) -> None:
    """Dataclasses, and mappings and sequences of them, as JSON; times are ISO 8601, durations seconds."""
    out().print(json.dumps(value, default=_plain, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


def print_rows(rows: Sequence[Any], *, none: str, as_json: bool) -> None:
    """Dataclasses of one kind as a table, or as JSON; `none` is said instead of an empty table."""
    if as_json:
        print_json(rows)
    elif rows:
        out().print(table(rows))
    else:
        say(none)


def table(rows: Sequence[Any], *, title: str | None = None) -> Table:
    """A table of dataclasses of one kind, at least one: a column for each field."""
    records = [record(row) for row in rows]
    made = Table(title=title, title_justify="left", header_style="bold")
    for name in records[0]:
        numeric = all(isinstance(one[name], int | float) and not isinstance(one[name], bool) for one in records)
        made.add_column(name.replace("_", " "), justify="right" if numeric else "left")
    for one in records:
        made.add_row(*(Text(shown(value)) for value in one.values()))
    return made


def record(row: Any) -> Record:  # noqa: ANN401 - any dataclass
    """The fields of a dataclass by name; a record stays as it is."""
    return row if isinstance(row, dict) else {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


def shown(value: object) -> str:
    """A value as a person reads it."""
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.4g}"
        case timedelta():
            text = _duration(value)
        case datetime():
            text = value.astimezone().isoformat(sep=" ", timespec="seconds")
        case list():
            text = "; ".join(map(shown, value))
        case _:
            text = str(value)
    return text


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return record(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)
