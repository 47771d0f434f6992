"""dynrec extension: build."""

from pathlib import Path
from typing import Annotated

import typer

from dynrec_store import extension

app = typer.Typer(help="The same schema by CREATE EXTENSION, where that is how a server is looked after.")


@app.callback()
def _extension() -> None:
    """Keep `build` a sub-command while it is the only one."""


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Older scripts in it are kept, and updates begin at their versions.")],
    before: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="Another version that an update is to begin at.", metavar="VERSION", envvar="DYNREC_BEFORE"
        ),
    ] = None,
) -> None:
    """Write control file, install script, update scripts and the form for pg_tle."""
    for file in extension.build(folder, before=before or ()):
        print(file)
