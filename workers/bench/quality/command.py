"""The command line: dynrec bench quality."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import load_extra
from dynrec_store.settings import load_settings

File = Annotated[Path | None, typer.Option(exists=True, dir_okay=False)]
Columns = Annotated[str, typer.Option(metavar="COLUMNS", help="Attributes that are such, separated by commas.")]


class Known(StrEnum):
    """Data sets that can be named."""

    ONLINE_RETAIL = "online-retail"
    MOVIELENS = "movielens"
    COMPLETE_JOURNEY = "complete-journey"


class Protocol(StrEnum):
    """What is asked, and when."""

    FIXED = "fixed"
    LIVE = "live"
    BOTH = "both"


def quality(
    *,
    interactions: File = None,
    items: File = None,
    history: File = None,
    dataset: Annotated[Known | None, typer.Option(help="A known data set instead of files.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the known ones lie.")] = Path("../shared/data"),
    text: Columns = "",
    categorical: Columns = "",
    numeric: Columns = "",
    protocol: Protocol = Protocol.BOTH,
    models: Annotated[str, typer.Option(help="Names, separated by semicolons.")] = "all",
    repeat: Annotated[bool, typer.Option("--repeat", help="Live: what a user has met may come again.")] = False,
    retrain_every: Annotated[
        float | None, typer.Option(min=0.01, help="Live: train on after so many days (default: never).")
    ] = None,
    live_events: Annotated[int, typer.Option(min=1, help="Test events that are foreseen; all are inserted.")] = 6000,
    users: Annotated[int | None, typer.Option(min=1, help="Users in the fixed protocol (default: all).")] = None,
    seed: int = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of tables.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw into this file, such as quality.png.")] = None,
) -> None:
    """Quality: lists of dynrec_store beside those of strong baselines, which are tuned, on data that is split by time.

    Files are csv or parquet. Interactions: user_id, item_id, occurred_at, optionally kind, value. Items: item_id and
    attributes. History of items: item_id, valid_from and the attributes that changed.
    """
    module = "workers.bench.quality"
    plan = load_extra(f"{module}.harness:make_plan", "dev")(
        str(protocol),
        models,
        repeat=repeat,
        retrain_every=retrain_every,
        live_events=live_events,
        users=users,
        seed=seed,
    )
    if dataset is not None:
        if interactions or items or history:
            raise ConfigurationError(f"--dataset {dataset} and files exclude each other: leave one of them out")
        data = load_extra(f"{module}.known:read_known", "dev")(str(dataset), data_dir)
    elif interactions is None or items is None:
        raise ConfigurationError("name a data set: --interactions FILE and --items FILE, or --dataset NAME")
    else:
        columns = {"text": _names(text), "categorical": _names(categorical), "numeric": _names(numeric)}
        data = load_extra(f"{module}.neutral:read_neutral", "dev")(interactions, items, history, **columns)
    outcomes = load_extra(f"{module}.harness:run", "dev")(load_settings(), data, plan)
    results = load_extra(f"{module}.outcome:rows", "dev")(outcomes, seed)
    load_extra(f"{module}.outcome:show", "dev")(results, data.name, json_lines=json, seed=seed)
    if plot is not None:
        load_extra(f"{module}.outcome:plot", "dev")(results, data.name, plot)


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",") if name.strip()]
