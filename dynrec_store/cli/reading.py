# ruff: noqa: A002 - the argument is called filter in SQL, and so it is here
"""dynrec recommend, similar, search."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dynrec_store.cli.options import DatabaseUrl, DataDir, Device, Json, settings_of
from dynrec_store.cli.output import print_rows, quoted, record, working
from dynrec_store.logs import configure_logging
from dynrec_store.settings import Settings
from dynrec_store.store import FeatureStore


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{quoted(text)} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{quoted(text)} is not a JSON object such as {{"top": 20}}')
    return value


def moment(text: str) -> datetime:
    """A time that was given as an option, in UTC if it says no zone."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{quoted(text)} is not a time such as 2026-01-31T12:00:00Z") from error
    return given if given.tzinfo else given.replace(tzinfo=UTC)


Recommender = Annotated[str, typer.Argument(help="Its name.", show_default=False)]
Item = Annotated[str, typer.Argument(help="The key of an item.", show_default=False)]
User = Annotated[str, typer.Argument(help="The key of a user.", show_default=False)]
K = Annotated[int, typer.Option("-k", "--k", min=1, max=10_000, help="Length of the list.", envvar="DYNREC_K")]
Filter = Annotated[
    str | None,
    typer.Option(
        help="A SQL predicate over the item table, such as: price < (args->>'top')::int",
        envvar="DYNREC_FILTER",
    ),
]
Args = Annotated[
    dict[str, Any] | None,
    typer.Option("--args", parser=_json_object, metavar="JSON", help="The values of --filter.", envvar="DYNREC_ARGS"),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="An item that must not come; can be repeated.", envvar="DYNREC_EXCLUDE")
]
Diversity = Annotated[float, typer.Option(min=0, max=1, help="From 0, none, to 1.", envvar="DYNREC_DIVERSITY")]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        parser=moment, metavar="TIME", help="Answer as of that moment; UTC if no zone is given.", envvar="DYNREC_AS_OF"
    ),
]

NOTHING = "no item is eligible"


@contextmanager
def opened(settings: Settings) -> Iterator[FeatureStore]:
    """The store of the database that the settings mean."""
    with working("Connecting"):
        store = FeatureStore.connect(settings=settings)
    with store:
        yield store


def recommend(
    recommender: Recommender,
    user: User,
    k: K = 10,
    filter: Filter = None,
    args: Args = None,
    exclude: Exclude = None,
    as_of: AsOf = None,
    diversity: Diversity = 0.0,
    experiment: Annotated[
        str | None, typer.Option(help="As the arm that the user is in says.", envvar="DYNREC_EXPERIMENT")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what speaks for each item.", envvar="DYNREC_EXPLAIN")
    ] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print the best items for a user."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Recommending"):
        rows: list[Any] = store.recommend(
            recommender,
            user,
            k=k,
            filter=filter,
            filter_args=args,
            exclude_items=exclude or (),
            as_of=as_of,
            diversity=diversity,
            experiment=experiment,
        )
        if explain:
            rows = [
                record(row) | {"because": [one.reason for one in because]}
                for row in rows
                for because in [store.explain(recommender, user, row.item_id, k=1, as_of=as_of)]
            ]
    print_rows(rows, none=NOTHING, as_json=as_json)


def similar(
    recommender: Recommender,
    item: Item,
    k: K = 10,
    filter: Filter = None,
    args: Args = None,
    exclude: Exclude = None,
    as_of: AsOf = None,
    diversity: Diversity = 0.0,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print the items that are most like an item."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Searching"):
        rows = store.similar_items(
            recommender,
            item,
            k=k,
            filter=filter,
            filter_args=args,
            exclude_items=exclude or (),
            as_of=as_of,
            diversity=diversity,
        )
    print_rows(rows, none=NOTHING, as_json=as_json)


def search(
    recommender: Recommender,
    text: Annotated[str, typer.Argument(help="What is looked for.", show_default=False)],
    k: K = 10,
    filter: Filter = None,
    args: Args = None,
    exclude: Exclude = None,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="By words alone, without a model.", envvar="DYNREC_TEXT_ONLY")
    ] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    device: Device = None,
) -> None:
    """Print the items that fit a text, by meaning and by words."""
    settings = settings_of(database_url=database_url, data_dir=data_dir, device=device)
    configure_logging(settings)
    with opened(settings) as store, working("Searching"):
        rows = store.search(
            recommender,
            text,
            text_only=text_only,
            k=k,
            filter=filter,
            filter_args=args,
            exclude_items=exclude or (),
        )
    print_rows(rows, none="no item fits", as_json=as_json)
