"""What the demo speaks through: headings, the SQL that runs with its rows and its time, progress bars, and claims."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from dynrec_store.database import psycopg_url, translated_errors
from dynrec_store.exceptions import DynrecError

PIPE_WIDTH = 120  # columns, where there is no terminal

Row = dict[str, Any]
Connection = psycopg.Connection[Row]


class ClaimError(DynrecError):
    """The demo said something of dynrec_store that turned out to be wrong."""


@dataclass
class Stage:
    """One connection, as an application has it, and the screen.

    What is shown as SQL is letter by letter what the server got: parameters are bound on this side.
    """

    connection: Connection
    console: Console
    times: list[tuple[str, float]] = field(default_factory=list)  # headings, and the seconds that each part took
    _since: float = field(default_factory=time.perf_counter)

    def part(self, title: str) -> None:
        """Begin a part of the story."""
        self._since = time.perf_counter()
        self.times.append((title, 0.0))
        self.console.print()
        self.console.print(Rule(Text(f"{len(self.times)}. {title}", style="bold"), align="left", style="blue"))

    def end_part(self) -> None:
        """Note how long the part took."""
        title, _ = self.times.pop()
        self.times.append((title, time.perf_counter() - self._since))

    def say(self, text: str) -> None:
        """Say something to the reader, in Rich's markup; line breaks count as blanks."""
        self.console.print(" ".join(text.split()))

    def show(self, statement: LiteralString, *, title: str = "", **parameters: object) -> list[Row]:
        """Run a statement and show it, its rows and its time."""
        self._show_sql(statement, parameters)
        rows, seconds = self.timed(statement, **parameters)
        self.show_rows(rows, title=title)
        self.console.print(Text(f"  {_count(rows)}{milliseconds(seconds)}", style="dim"))
        return rows

    def ask(self, statement: LiteralString, **parameters: object) -> list[Row]:
        """Run a statement without showing it."""
        return self.timed(statement, **parameters)[0]

    def timed(self, statement: LiteralString, **parameters: object) -> tuple[list[Row], float]:
        """Run a statement; returns its rows and the seconds from sending it to having them."""
        started = time.perf_counter()
        with translated_errors():
            cursor = self.connection.execute(statement, parameters)
            rows = cursor.fetchall() if cursor.description else []
        return rows, time.perf_counter() - started

    def show_rows(self, rows: Sequence[Row], *, title: str = "") -> None:
        """Show rows as a table, without those columns that end in an underscore."""
        if not rows or not (names := [name for name in rows[0] if not name.endswith("_")]):
            return
        table = Table(title=title or None, title_justify="left", header_style="bold", border_style="dim")
        for name in names:
            numeric = all(isinstance(row[name], int | float) for row in rows)
            table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*(Text(_shown(row[name])) for name in names))
        self.console.print(Padding(table, (0, 0, 0, 2)))

    def claim(self, text: str, *, holds: bool) -> None:
        """Say what the reader has just seen; ClaimError if it is not so."""
        if not holds:
            raise ClaimError(
                f"the demo's claim does not hold: {text}\nThis is a bug: please report it with the output above."
            )
        self.console.print(Text.assemble(("  ✓ ", "bold green"), text))

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars for what takes longer than a reader likes to wait for."""
        columns = (TextColumn("  {task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as bars:
            yield bars

    def _show_sql(self, statement: LiteralString, parameters: dict[str, object]) -> None:
        text = psycopg.ClientCursor(self.connection).mogrify(cleandoc(statement), parameters)
        shown = Syntax(text, "postgresql", theme="ansi_dark", background_color="default", word_wrap=True)
        self.console.print(Padding(shown, (1, 0, 0, 2)))


@contextmanager
def staged(url: str) -> Iterator[Stage]:
    """Connect as an application does, and set up the screen."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    with translated_errors():
        connection = psycopg.connect(
            psycopg_url(url),
            autocommit=True,
            application_name="grocer",
            cursor_factory=psycopg.ClientCursor,
            row_factory=dict_row,
        )
    with connection:
        yield Stage(connection, console)


def advance(bars: Progress, bar: TaskID, done: int, total: int) -> None:
    """Set a bar; a total that is not known yet leaves it pulsing."""
    bars.update(bar, completed=done, total=total or None)


def milliseconds(seconds: float) -> str:
    """A duration as a reader likes it."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _count(rows: Sequence[Row]) -> str:
    return f"{len(rows)} row{'s' if len(rows) > 1 else ''}, " if rows else ""


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)
