"""The command line: `dynrec`."""

from collections.abc import Callable
from typing import Annotated

import typer

from dynrec_store.cli import (
    encoders,
    evaluating,
    exporting,
    extending,
    migrating,
    operating,
    reading,
    running,
    training,
)
from dynrec_store.cli.commands import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _dynrec(
    *,
    debug: Annotated[  # read by Commands, where errors arrive
        bool, typer.Option("--debug", help="Show where in the code an error arose.", envvar="DYNREC_DEBUG")
    ] = False,
) -> None:
    """Recommendations inside PostgreSQL, kept up to date by a dispatcher and workers.

    Settings come from variables DYNREC_… and from a file .env; the options of a command take their place.
    """


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start here": (running.demo, running.up),
    "Run": (running.dispatcher, running.worker, running.stream, running.publish, exporting.metrics),
    "Look after": (operating.status, operating.doctor, operating.alerts, operating.health),
    "Learn": (training.train, training.models, training.promote, training.rollback),
    "Read": (reading.recommend, reading.similar, reading.search),
    "Judge": (evaluating.evaluate, evaluating.compare, evaluating.experiments, evaluating.report),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(migrating.app, name="migrate", rich_help_panel="Run")
app.add_typer(extending.app, name="extension", rich_help_panel="Run")
app.add_typer(encoders.app, name="encoder", rich_help_panel="Look after")
app.command(
    rich_help_panel="Look after",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(running.bench)
