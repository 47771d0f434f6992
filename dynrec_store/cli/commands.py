# ruff: noqa: ANN401 - overridden methods keep the types of their base
"""The group of all commands: errors leave it as one red line and an exit status."""

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from dynrec_store.cli.output import complain, quoted
from dynrec_store.exceptions import DynrecError

FAILURE = 1
USAGE = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """Status 1: what was asked for failed. Status 2: the command line says something that cannot be."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Parse and run, as the base class does."""
        try:
            status = super().main(
                args, prog_name, complete_var, standalone_mode=False, windows_expand_args=windows_expand_args, **extra
            )
        except typer.TyperException as error:
            if message := error.format_message():  # none: nothing was given, and the help was printed
                complain(f"{message}\n`dynrec COMMAND --help` says what can be given")
            status = USAGE
        except typer.Abort:
            status = INTERRUPTED
        if standalone_mode:
            raise SystemExit(status)
        return status

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # the base names the same class otherwise
        """Run the command; with --debug errors pass as they are."""
        try:
            return super().invoke(ctx)
        except (typer.TyperException, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except DynrecError as error:
            if ctx.params["debug"]:
                raise
            complain(str(error))
        except OSError as error:  # of the machine: a name, a right, a full disk
            if ctx.params["debug"]:
                raise
            complain(f"{error.strerror or error}: {quoted(str(error.filename))}" if error.filename else str(error))
        except Exception as error:
            if ctx.params["debug"]:
                raise
            complain(f"{type(error).__name__}: {error}\nThis is a mistake in dynrec: `dynrec --debug …` shows where")
        raise typer.Exit(FAILURE)
