"""dynrec train, models, promote, rollback."""

import json
from typing import Annotated, Any

import typer

from dynrec_store.cli.options import DatabaseUrl, DataDir, Device, Json, LogFormat, LogLevel, settings_of
from dynrec_store.cli.output import print_rows, quoted, say, stages, working
from dynrec_store.cli.reading import Recommender, opened
from dynrec_store.extras import load_extra
from dynrec_store.logs import configure_logging
from dynrec_store.target import target_database

Version = Annotated[int | None, typer.Argument(help="Its number.", show_default="the newest that is complete")]

Continue = Annotated[
    bool,
    typer.Option(
        "--continue", help="Go on from the active model, with what came since.", envvar="DYNREC_CONTINUE_ACTIVE"
    ),
]
BaseModel = Annotated[
    int | None,
    typer.Option(
        help="The model version of the encoder whose vectors it is made of, such as one in the shadow.",
        show_default="the encoder in use",
        envvar="DYNREC_BASE_MODEL",
    ),
]
Promote = Annotated[
    bool | None,
    typer.Option(
        "--promote/--no-promote",
        help="Let it answer as soon as it is complete; with --continue, unless it loses against the active one.",
        show_default="with --continue",
        envvar="DYNREC_PROMOTE",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(help="A hyper-parameter, NAME=VALUE in JSON; again for others.", envvar="DYNREC_OPTION"),
]


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{quoted(text)} is not NAME=VALUE, such as epochs=4")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def train(
    recommender: Recommender,
    continue_active: Continue = False,
    base_model: BaseModel = None,
    promote: Promote = None,
    option: Options = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    device: Device = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Train a model on a recommender's interactions, here; workers then fill in its vectors.

    Until it is promoted the recommender answers as before.
    """
    settings = settings_of(
        database_url=database_url, data_dir=data_dir, device=device, log_level=log_level, log_format=log_format
    )
    options: dict[str, Any] = dict(_option(text) for text in option or [])
    if continue_active if promote is None else promote:
        options["promote"] = True
    run = load_extra("workers.learning.run:train", "worker")
    configure_logging(settings)
    with target_database(settings) as url, stages() as progress:
        version = run(
            settings,
            url,
            recommender,
            options=options,
            continue_active=continue_active,
            base_model=base_model,
            progress=progress,
        )
    say(f"model version {version} is trained; `dynrec models` shows its figures, and how far its backfill is")


def models(as_json: Json = False, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Print every model version: what it is, its state, how far its backfill is, how well it foresaw."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Looking"):
        versions = store.model_versions()
    print_rows(versions, none="no recommender is declared: see dynrec.create_recommender", as_json=as_json)


def promote(
    recommender: Recommender,
    model_version: Version = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also if it lost against the active one.", envvar="DYNREC_FORCE")
    ] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Let a complete model version answer. The one before stays up to date, to be gone back to."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Promoting"):
        promoted = store.promote_model(recommender, model_version, force=force)
    say(f"model version {promoted} answers for {recommender!r}")


def rollback(recommender: Recommender, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Go back to the model version that answered before."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Going back"):
        version = store.rollback_model(recommender)
    say(f"model version {version} answers for {recommender!r}")
