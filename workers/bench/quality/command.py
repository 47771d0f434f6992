"""The command line: dynrec bench quality."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import load_extra
from dynrec_store.settings import load_settings

MODULE = "workers.bench.quality"


class Known(StrEnum):
    """Data sets that can be named."""

    ONLINE_RETAIL = "online-retail"
    MOVIELENS = "movielens"
    COMPLETE_JOURNEY = "complete-journey"
    DEMO = "demo"


class Protocol(StrEnum):
    """What is asked, and when."""

    FIXED = "fixed"
    LIVE = "live"
    BOTH = "both"


IN_FOLDERS = (Known.ONLINE_RETAIL, Known.MOVIELENS)  # the others come with a package

File = Annotated[Path | None, typer.Option(exists=True, dir_okay=False)]
Name = Annotated[Known | None, typer.Option(help="A known data set instead of files.")]
DataDir = Annotated[
    Path,
    typer.Option(envvar="DYNREC_BENCH_DATA_DIR", help=f"The folder that holds {' and '.join(IN_FOLDERS)}."),
]
Columns = Annotated[str, typer.Option(metavar="COLUMNS", help="Attributes that are such, separated by commas.")]
Models = Annotated[str, typer.Option(help="Names, separated by semicolons.")]
Repeat = Annotated[bool, typer.Option("--repeat", help="Live: what a user has met may come again.")]
RetrainEvery = Annotated[
    float | None, typer.Option(min=0.01, help="Live: dynrec trains on after so many days (default: never).")
]
LiveEvents = Annotated[int, typer.Option(min=1, help="Live: test events that are foreseen; all are inserted.")]
Users = Annotated[int | None, typer.Option(min=1, help="Users in the fixed protocol (default: all).")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of samples, models and intervals.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of tables.")]
Plot = Annotated[Path | None, typer.Option(dir_okay=False, writable=True, help="Draw into this file, as quality.png.")]


def quality(
    context: typer.Context,
    *,
    interactions: File = None,
    items: File = None,
    history: File = None,
    dataset: Name = None,
    data_dir: DataDir = Path("../shared/data"),
    text: Columns = "",
    categorical: Columns = "",
    numeric: Columns = "",
    protocol: Protocol = Protocol.BOTH,
    models: Models = "all",
    repeat: Repeat = False,
    retrain_every: RetrainEvery = None,
    live_events: LiveEvents = 6000,
    users: Users = None,
    seed: Seed = 0,
    json: Json = False,
    plot: Plot = None,
) -> None:
    """Quality: lists of dynrec_store beside those of strong baselines, which are tuned, on data that is split by time.

    Files are csv or parquet. Interactions: user_id, item_id, occurred_at, optionally kind, value. Items: item_id and
    attributes. History of items: item_id, valid_from and the attributes that changed.
    """
    _check_outputs(context, plot)
    limits = {"retrain_every": retrain_every, "live_events": live_events, "users": users}
    plan = load_extra(f"{MODULE}.harness:make_plan", "dev")(str(protocol), models, repeat=repeat, seed=seed, **limits)
    columns = {"text": _names(text), "categorical": _names(categorical), "numeric": _names(numeric)}
    _check_source(dataset, (interactions, items, history), columns)
    if dataset is None:
        data = load_extra(f"{MODULE}.neutral:read_neutral", "dev")(interactions, items, history, **columns)
    else:
        data = load_extra(f"{MODULE}.known:read_known", "dev")(str(dataset), data_dir)
    outcomes = load_extra(f"{MODULE}.harness:run", "dev")(load_settings(), data, plan)
    results = load_extra(f"{MODULE}.outcome:rows", "dev")(outcomes, seed)
    load_extra(f"{MODULE}.outcome:show", "dev")(results, data.name, json_lines=json, seed=seed)
    if plot is not None:
        load_extra(f"{MODULE}.plots:plot", "dev")(results, data.name, plot)


def _check_outputs(context: typer.Context, plot: Path | None) -> None:
    """Now, and not when hours have been spent."""
    if context.parent is not None and (folder := context.parent.params.get("out")) is not None:
        raise ConfigurationError(
            f"dynrec bench --out {folder} keeps nothing of quality: use quality --json > FILE, and --plot FILE"
        )
    if plot is not None:
        load_extra(f"{MODULE}.plots:check_plot", "dev")(plot)


def _check_source(dataset: Known | None, files: Sequence[Path | None], columns: Mapping[str, Sequence[str]]) -> None:
    """Refuse what the source of the data would ignore."""
    if dataset is None and None in files[:2]:
        raise ConfigurationError("name a data set: --interactions FILE and --items FILE, or --dataset NAME")
    if dataset is not None and any(files):
        raise ConfigurationError(f"--dataset {dataset} and files exclude each other: leave one of them out")
    role = next((role for role, names in columns.items() if names), None)
    if dataset is not None and role is not None:
        raise ConfigurationError(f"--dataset {dataset} says itself what its columns are: leave out --{role}")


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",") if name.strip()]
