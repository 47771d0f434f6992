"""dynrec status, doctor, alerts, health."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer
from rich.console import Group
from rich.live import Live

from dynrec_store.cli.commands import FAILURE
from dynrec_store.cli.options import DatabaseUrl, DataDir, Json, settings_of
from dynrec_store.cli.output import out, print_json, print_rows, say, table, working
from dynrec_store.cli.reading import opened
from dynrec_store.extras import load_extra
from dynrec_store.results import Failure, Freshness, QueueLine, Status
from dynrec_store.store import FeatureStore

WATCH_SECONDS = 1.0  # between two looks
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class _Overview:
    status: list[Status]
    freshness: list[Freshness]
    queue: list[QueueLine]
    failures: list[Failure]

    def __rich__(self) -> Group | str:
        if not self.status:
            return "no recommender is declared: see dynrec.create_recommender"
        parts: dict[str, Sequence[object]] = {
            "Recommenders": self.status,
            "Freshness": self.freshness,
            "Queue": self.queue,
            f"Failures (the first {SHOWN_FAILURES} of {len(self.failures)})": self.failures[:SHOWN_FAILURES],
        }
        return Group(*(table(rows, title=title) for title, rows in parts.items() if rows))


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking, until ctrl-c.", envvar="DYNREC_WATCH")] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print the recommenders, how fresh they are, what waits, what failed, and how many processes are alive."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store:
        if watch:
            _watch(store, as_json=as_json)
        else:
            with working("Looking"):
                overview = _overview(store)
            print_json(overview) if as_json else out().print(overview)


def doctor(as_json: Json = False, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Print what is wrong and what to do about it. Exit status 1 if something is lost or does not move."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Examining"):
        findings = store.doctor()
    print_rows(findings, none="all is well", as_json=as_json)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(FAILURE)


def health(
    role: Annotated[
        Literal["dispatcher", "worker", "stream", "publisher"], typer.Argument(help="Which process of this machine.")
    ],
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Say whether such a process of this machine, or container, is alive. Exit status 1 if not.

    A worker of the queue encode has to be able to encode.
    """
    settings = settings_of(database_url=database_url, data_dir=data_dir)
    say(load_extra("workers.health:check_health", "dispatcher")(settings, role))


def alerts(as_json: Json = False, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Print what measurements and doctor find wrong, and what to do about it. Exit status as of doctor."""
    with opened(settings_of(database_url=database_url, data_dir=data_dir)) as store, working("Examining"):
        found = store.alerts()
    print_rows(found, none="all is well", as_json=as_json)
    if any(alert.severity == "error" for alert in found):
        raise typer.Exit(FAILURE)


def _overview(store: FeatureStore) -> _Overview:
    return _Overview(store.status(), store.freshness(), store.queue(), store.failures())


def _watch(store: FeatureStore, *, as_json: bool) -> None:
    console = out()
    with ExitStack() as watching:
        watching.enter_context(suppress(KeyboardInterrupt))
        if as_json:
            show: Callable[[_Overview], None] = print_json
        elif console.is_terminal:
            live = watching.enter_context(Live(console=console, screen=True, auto_refresh=False))
            show = partial(live.update, refresh=True)
        else:
            show = console.print
        while True:
            show(_overview(store))
            time.sleep(WATCH_SECONDS)
