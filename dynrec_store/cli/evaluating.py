# ruff: noqa: A002 - the argument is called filter in SQL, and so it is here
"""dynrec evaluate, compare, experiments, report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from dynrec_store.cli.options import DatabaseUrl, DataDir, Json, settings_of
from dynrec_store.cli.output import out, print_rows, say, shown, table, working
from dynrec_store.cli.reading import Args, Diversity, Filter, K, Recommender, moment, opened
from dynrec_store.extras import needs_extra

Begin = Annotated[
    datetime,
    typer.Option(
        "--from",
        parser=moment,
        metavar="TIME",
        help="Lists are those of this moment; UTC if no zone is given.",
        envvar="DYNREC_FROM",
        show_default=False,
    ),
]
End = Annotated[
    datetime | None,
    typer.Option(
        "--to", parser=moment, metavar="TIME", help="What users did before it counts; default: now.", envvar="DYNREC_TO"
    ),
]
CutOffs = Annotated[
    list[int] | None,
    typer.Option("-k", "--k", min=1, max=10_000, help="Length of the list; can be repeated.", envvar="DYNREC_K"),
]
Users = Annotated[
    int | None, typer.Option(min=1, help="Only a sample of so many users.", envvar="DYNREC_USERS", show_default="all")
]
Seed = Annotated[int, typer.Option(help="Which sample.", envvar="DYNREC_SEED")]
Category = Annotated[
    str | None,
    typer.Option(help="A categorical column, each of whose values becomes a slice.", envvar="DYNREC_CATEGORY"),
]

NOBODY = "nobody did anything in that time"


def evaluate(
    recommender: Recommender,
    begin: Begin,
    end: End = None,
    k: CutOffs = None,
    model: Annotated[
        int | None,
        typer.Option(help="A model version.", envvar="DYNREC_MODEL", show_default="the one that answered then"),
    ] = None,
    users: Users = None,
    seed: Seed = 0,
    filter: Filter = None,
    args: Args = None,
    diversity: Diversity = 0.0,
    category: Category = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print how good the recommendations of a moment were, by what users did after it."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Evaluating"):
        rows = store.evaluate(
            recommender,
            begin,
            end or datetime.now(UTC),
            k=k or [10],
            by_model=model,
            users=users,
            seed=seed,
            filter=filter,
            filter_args=args,
            diversity=diversity,
            category=category,
        )
    print_rows(rows, none=NOBODY, as_json=as_json)


def compare(
    recommender: Recommender,
    model: Annotated[int, typer.Argument(help="A model version.", show_default=False)],
    baseline: Annotated[int, typer.Argument(help="Another, to compare it with.", show_default=False)],
    begin: Begin,
    end: End = None,
    k: CutOffs = None,
    users: Users = None,
    seed: Seed = 0,
    filter: Filter = None,
    args: Args = None,
    diversity: Diversity = 0.0,
    category: Category = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print which of two model versions would have done better for the same users."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Comparing"):
        rows = store.compare_models(
            recommender,
            begin,
            end or datetime.now(UTC),
            model,
            baseline,
            k=k or [10],
            users=users,
            seed=seed,
            filter=filter,
            filter_args=args,
            diversity=diversity,
            category=category,
        )
    print_rows(rows, none=NOBODY, as_json=as_json)


def experiments(
    recommender: Recommender,
    experiment: Annotated[
        str | None, typer.Argument(help="One of them: what came of each arm in each metric.", show_default="all")
    ] = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print the experiments with their verdicts, or what came of one."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Judging"):
        rows: list[Any] = (
            store.experiments(recommender) if experiment is None else store.experiment_results(recommender, experiment)
        )
    print_rows(rows, none="no experiment was created", as_json=as_json)


def report(
    recommender: Recommender,
    begin: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            parser=moment,
            metavar="TIME",
            help="Lists are those of this moment; UTC if no zone is given.",
            envvar="DYNREC_FROM",
            show_default="a day ago",
        ),
    ] = None,
    end: End = None,
    k: K = 10,
    users: Annotated[int, typer.Option(min=1, help="A sample of so many users.", envvar="DYNREC_USERS")] = 1000,
    category: Category = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page that is written.", envvar="DYNREC_OUTPUT")
    ] = Path("report.html"),
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print how good a recommender is, and write it with plots to a page that opens from disk."""
    with needs_extra("report"):
        from dynrec_store import report as page  # noqa: PLC0415 - an extra
    end = end or datetime.now(UTC)
    begin = begin or end - timedelta(days=1)
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Reading") as status:
        facts = page.gather(
            store,
            recommender,
            begin,
            end,
            k=k,
            users=users,
            category=category,
            told=lambda what: status.update(f"Reading {what} …"),
        )
    _write(output, page.render(facts))
    for title, rows in {
        "Alerts": facts.alerts,
        f"Lists of {shown(begin)}": [one for one in facts.metrics if one.slice == "all"],
        "Drift": [{"subject": one.subject, "psi": one.psi, "n": one.n} for one in facts.drift],
        "Experiments": [{"experiment": one.experiment, "verdict": one.verdict} for one in facts.experiments],
    }.items():
        if rows:
            out().print(table(rows, title=title))
    if facts.obstacle:
        say(facts.obstacle, style="yellow")
    say(f"written: {output.resolve()}")


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{str(output)!r} cannot be written: {error.strerror}") from error
