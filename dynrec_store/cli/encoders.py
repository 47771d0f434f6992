"""dynrec encoder: add, list."""

from typing import Annotated

import typer

from dynrec_store.cli.options import DatabaseUrl, DataDir, Json, settings_of
from dynrec_store.cli.output import print_rows, say, working
from dynrec_store.cli.reading import opened
from dynrec_store.extras import load_extra, needs_extra
from dynrec_store.logs import configure_logging

app = typer.Typer(help="The models that turn an item's text into a vector.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="For create_recommender(encoder => …).", show_default=False)],
    model: Annotated[
        str,
        typer.Argument(help="A sentence-transformers model: its name or path, for every worker.", show_default=False),
    ],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", envvar="DYNREC_INT8", help="With weights of 8 bits: faster on CPUs, with vectors of its own."
        ),
    ] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Load a model, find the dimension of its vectors, and make it known."""
    settings = settings_of(database_url=database_url, data_dir=data_dir)
    configure_logging(settings)
    with opened(settings) as store:
        with working(f"Loading {model}"), needs_extra("worker"):
            dimension = load_extra("workers.encoders:probe_dimension", "worker")(model)
        family = "sentence-transformers-int8" if int8 else "sentence-transformers"
        store.register_encoder(name, family=family, model=model, dimension=dimension)
    say(f"encoder {name!r}: {model}, {dimension} dimensions{', 8 bits' if int8 else ''}")


@app.command("list")
def list_(as_json: Json = False, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Print the encoders that are known."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Looking"):
        encoders = store.encoders()
    print_rows(encoders, none="no encoder is known", as_json=as_json)
