"""What the demo speaks through: headings, the SQL that runs with its rows and its time, progress bars, and claims."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import cleandoc
from numbers import Number
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from rich.box import SIMPLE_HEAD
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

    def announce(self, statement: LiteralString, **parameters: object) -> None:
        """Show a statement that is about to run."""
        self.show_sql(psycopg.ClientCursor(self.connection).mogrify(cleandoc(statement), parameters))

    def show(self, statement: LiteralString, **parameters: object) -> list[Row]:
        """Run a statement and show it, its rows and its time."""
        self.announce(statement, **parameters)
        rows, seconds, outcome = self._run(statement, parameters)
        self.show_rows(rows)
        self.console.print(Text(f"  {outcome}, {duration(seconds)}", style="dim"))
        return rows

    def ask(self, statement: LiteralString, **parameters: object) -> list[Row]:
        """Run a statement without showing it."""
        return self._run(statement, parameters)[0]

    def timed(self, statement: LiteralString, **parameters: object) -> tuple[list[Row], float]:
        """Run a statement; returns its rows and the seconds from sending it to having them."""
        return self._run(statement, parameters)[:2]

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show rows as a table; nothing for those of a function that returns void."""
        if not any(value != "" for row in rows for value in row.values()):
            return
        table = Table(box=SIMPLE_HEAD, header_style="bold", border_style="dim")
        for name in rows[0]:
            numeric = all(isinstance(row[name], Number) for row in rows)
            table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*(Text(_shown(row[name])) for name in rows[0]))
        self.console.print(table)

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

    def _run(self, statement: LiteralString, parameters: dict[str, object]) -> tuple[list[Row], float, str]:
        started = time.perf_counter()
        with translated_errors():
            cursor = self.connection.execute(statement, parameters)
            rows = cursor.fetchall() if cursor.description else []
        return rows, time.perf_counter() - started, _outcome(rows, cursor.statusmessage)

    def show_sql(self, statement: str) -> None:
        """Show SQL."""
        shown = Syntax(statement, "postgresql", theme="ansi_dark", background_color="default", word_wrap=True)
        self.console.print(Padding(shown, (1, 0, 0, 2)))


def make_console() -> Console:
    """The screen, or a wide page where nobody watches."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


@contextmanager
def staged(url: str, console: Console) -> Iterator[Stage]:
    """Connect as an application does."""
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


def duration(seconds: float) -> str:
    """A duration as a reader likes it."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _outcome(rows: Sequence[Row], status: str | None) -> str:
    """What psql says: the number of rows, or the command with what it counted."""
    if status is not None and not status.startswith("SELECT"):
        return status
    return f"{len(rows) or 'no'} row{'' if len(rows) == 1 else 's'}"


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case timedelta():
            return duration(value.total_seconds())
        case _:
            return str(value)
