"""The command line: dynrec bench peers."""

import json as json_module
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import load_extra
from dynrec_store.settings import Settings, load_settings
from workers.bench.measure import Figure
from workers.bench.peers.environments import PeerUnavailableError, python_of
from workers.bench.report import show

Python = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Its interpreter (default: one is made).")
]


class Peer(StrEnum):
    """Who can be measured beside dynrec."""

    FEAST = "feast"
    PGAI = "pgai"
    IMPLICIT = "implicit"


def peers(
    *,
    only: Annotated[list[Peer], typer.Option(help="May be given several times (default: all).")] = list(Peer),  # noqa: B006
    items: Annotated[int, typer.Option(min=1000, max=1_000_000, help="Items to search.")] = 20_000,
    dimension: Annotated[
        list[int], typer.Option(min=1, max=2000, help="Feast: length of the vectors; may be given several times.")
    ] = [64],  # noqa: B006 - read only
    calls: Annotated[int, typer.Option(min=1, max=1000, help="Reads in a run, each of another item or user.")] = 200,
    poll: Annotated[
        list[int], typer.Option(min=0, help="pgai: seconds between polls, 0 for none; may be given several times.")
    ] = [0, 1],  # noqa: B006
    samples: Annotated[int, typer.Option(min=1, help="pgai: changes in a run.")] = 10,
    feast_python: Python = None,
    pgai_python: Python = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each is measured, in turn with its peer.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Peers: dynrec beside Feast (vector retrieval), pgai (freshness) and implicit (lists in memory).

    Feast and pgai live in environments of their own, which are made in the user's cache folder. A peer that cannot be
    had here is left out, with the reason.
    """
    settings = load_settings()
    measures: dict[Peer, Callable[[], list[Figure]]] = {
        Peer.FEAST: partial(_feast, settings, feast_python, items=items, dimensions=dimension, calls=calls, runs=runs),
        Peer.PGAI: partial(_pgai, settings, pgai_python, samples=samples, runs=runs, polls=poll),
        Peer.IMPLICIT: partial(_implicit, settings, items=items, calls=calls, runs=runs),
    }
    figures: list[Figure] = []
    left_out: dict[Peer, str] = {}
    for peer in dict.fromkeys(only):
        try:
            figures += measures[peer]()
        except PeerUnavailableError as error:
            left_out[peer] = str(error)
    show(figures, as_json=json)
    for peer, reason in left_out.items():
        line = json_module.dumps({"name": str(peer), "left_out": reason}) if json else f"{peer} was left out: {reason}"
        print(line)  # noqa: T201 - this is the output


def _feast(settings: Settings, python: Path | None, **sizes: object) -> list[Figure]:
    figures: list[Figure] = load_extra("workers.bench.peers.feast:feast", "worker")(
        settings, python_of("feast", python), **sizes
    )
    return figures


def _pgai(settings: Settings, python: Path | None, **sizes: object) -> list[Figure]:
    figures: list[Figure] = load_extra("workers.bench.peers.pgai:pgai", "worker")(
        settings, python_of("pgai", python), **sizes
    )
    return figures


def _implicit(settings: Settings, **sizes: object) -> list[Figure]:
    try:
        measure = load_extra("workers.bench.peers.implicit:implicit", "dev")
    except ConfigurationError as error:
        raise PeerUnavailableError(str(error)) from error
    figures: list[Figure] = measure(settings, **sizes)
    return figures
