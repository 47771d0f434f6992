"""The command line of dynrec bench: a command for each benchmark."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer

from dynrec_store.settings import load_settings
from workers.bench.backfill import MODEL
from workers.bench.backfill import backfill as bench_backfill
from workers.bench.bulk import bulk as bench_bulk
from workers.bench.capture import capture as bench_capture
from workers.bench.catalogue import DIMENSION
from workers.bench.churn import churn as bench_churn
from workers.bench.encoder import encoder as bench_encoder
from workers.bench.evaluate import evaluate as bench_evaluate
from workers.bench.files import keep, keep_as
from workers.bench.filtered import filtered as bench_filtered
from workers.bench.freshness import freshness as bench_freshness
from workers.bench.full_run import full_run
from workers.bench.growth import HISTORIES
from workers.bench.growth import growth as bench_growth
from workers.bench.load import load as bench_load
from workers.bench.memory import memory as bench_memory
from workers.bench.peers.command import peers
from workers.bench.promotion import promotion as bench_promotion
from workers.bench.quality.command import quality
from workers.bench.reads import reads as bench_reads
from workers.bench.recommend import recommend as bench_recommend
from workers.bench.report import show, show_growth, show_measures
from workers.bench.scale import scale as bench_scale
from workers.bench.storage import storage as bench_storage

app = typer.Typer(
    help="Measure this machine: each figure beside its reference, taken in turn in the same run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Runs = Annotated[int, typer.Option(min=1, help="How often each is measured, in turn with its reference.")]
Dimension = Annotated[int, typer.Option(min=1, max=2000, help="Length of the vectors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


@app.callback()
def _prepare(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Write the figures and a plot there, too.")] = None,
) -> None:
    """Keep stdout for the figures: only warnings are logged, to stderr."""
    keep(out, str(context.invoked_subcommand))
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@app.command()
def capture(
    *,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 10_000,
    clients: Annotated[int, typer.Option(min=1, help="Connections that write.")] = 16,
    seconds: Annotated[int, typer.Option(min=1, help="Length of a run.")] = 5,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Writing: transactions per second with capture on, a dispatcher listening, against neither."""
    show(bench_capture(load_settings(), rows=rows, clients=clients, seconds=seconds, runs=runs), as_json=json)


@app.command()
def bulk(
    *,
    rows: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Rows of a load.")] = 100_000,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Bulk loads: COPY into watched tables, as a bulk load and row by row, against COPY into plain ones."""
    show(bench_bulk(load_settings(), rows=rows, runs=runs), as_json=json)


@app.command()
def freshness(
    *,
    samples: Annotated[int, typer.Option(min=1, help="Changes in a run.")] = 40,
    runs: Runs = 5,
    learned: Annotated[
        bool, typer.Option("--learned", help="While a learned model answers: until its own vector is new.")
    ] = False,
    json: Json = False,
) -> None:
    """Freshness: commit to new vector visible on an idle system, against encoding one text and one commit."""
    show(bench_freshness(load_settings(), samples=samples, runs=runs, learned=learned), as_json=json)


@app.command()
def backfill(
    *,
    rows: Annotated[int, typer.Option(min=1, help="Items, each with a text of its own.")] = 10_000,
    documents: Annotated[bool, typer.Option("--documents", help="Texts of some 200 words.")] = False,
    model: Annotated[str, typer.Option(help="A model of sentence-transformers, such as its folder.")] = MODEL,
    runs: Runs = 3,
    json: Json = False,
) -> None:
    """Backfill: texts per second until every vector is current, against the bare model."""
    show(bench_backfill(load_settings(), rows=rows, runs=runs, documents=documents, model=model), as_json=json)


@app.command()
def encoder(
    *,
    rows: Annotated[int, typer.Option(min=20, help="Texts.")] = 2000,
    model: Annotated[str, typer.Option(help="A model of sentence-transformers, such as its folder.")] = MODEL,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Encoders: a model as workers use it, and in 8 bits, against sentence-transformers; what 8 bits change."""
    show(bench_encoder(load_settings(), rows=rows, runs=runs, model=model), as_json=json)


@app.command()
def recommend(
    *,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000)] = 100_000,
    dimension: Dimension = DIMENSION,
    users: Annotated[int, typer.Option(min=1, help="Calls in a run, each for another user.")] = 200,
    seconds: Annotated[int, typer.Option(min=1, help="Length of a run of pgbench.")] = 5,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Reading: dynrec.recommend against the hand-written query; its growth; recall of the index; 1 and 16 clients."""
    figures = bench_recommend(
        load_settings(), items=items, dimension=dimension, users=users, seconds=seconds, runs=runs
    )
    show(figures, as_json=json)


@app.command()
def filtered(
    *,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000)] = 100_000,
    dimension: Dimension = DIMENSION,
    users: Annotated[int, typer.Option(min=1, help="Calls in a run, each for another user.")] = 50,
    runs: Runs = 3,
    json: Json = False,
) -> None:
    """Filters that accept 50, 10, 1 and 0.1 % of the items, against the better of two hand-written queries."""
    figures = bench_filtered(load_settings(), items=items, dimension=dimension, users=users, runs=runs)
    show(figures, as_json=json)


@app.command()
def reads(
    *,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000)] = 100_000,
    dimension: Dimension = DIMENSION,
    users: Annotated[int, typer.Option(min=1, help="Calls in a run, each for another user.")] = 50,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Other reads: similar items, sessions, moments of the past, diversity, against hand-written queries."""
    show(bench_reads(load_settings(), items=items, dimension=dimension, users=users, runs=runs), as_json=json)


@app.command()
def evaluate(
    *,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000)] = 20_000,
    users: Annotated[int, typer.Option(min=1, help="Whose lists are judged.")] = 1000,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Evaluation: dynrec.evaluate against the same lists, one by one, with nothing computed of them."""
    show(bench_evaluate(load_settings(), items=items, users=users, runs=runs), as_json=json)


@app.command()
def load(
    *,
    rows: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Items of the stormy recommender.")] = 10_000,
    rate: Annotated[int, typer.Option(min=100, help="Changes a second.")] = 10_000,
    seconds: Annotated[int, typer.Option(min=1, help="Length of a storm.")] = 20,
    runs: Runs = 3,
    json: Json = False,
) -> None:
    """Load: a storm of changes with readers and workers beside, against the same writes to plain tables."""
    show(bench_load(load_settings(), rows=rows, rate=rate, seconds=seconds, runs=runs), as_json=json)


@app.command()
def promotion(
    *,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000)] = 10_000,
    readers: Annotated[int, typer.Option(min=1, help="Connections that read.")] = 2,
    seconds: Annotated[int, typer.Option(min=1, help="Length of a quiet round; a busy one is twice as long.")] = 5,
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Promotion: reads while model versions are promoted and rolled back, against reads left alone."""
    figures = bench_promotion(load_settings(), items=items, readers=readers, seconds=seconds, runs=runs)
    show(figures, as_json=json)


@app.command()
def scale(
    *,
    items: Annotated[
        list[int], typer.Option(min=1000, max=10_000_000, help="Items of a catalogue; may be given several times.")
    ] = [10_000, 100_000],  # noqa: B006 - read only
    dimension: Annotated[
        list[int], typer.Option(min=1, max=2000, help="Length of the vectors; may be given several times.")
    ] = [64],  # noqa: B006
    memory: Annotated[str, typer.Option(help="maintenance_work_mem for the index.")] = "1GB",
    helpers: Annotated[int, typer.Option(min=0, help="max_parallel_maintenance_workers for the index.")] = 0,
    json: Json = False,
) -> None:
    """Scale: bytes of tables and indexes, times of building and reading, by the number of items."""
    show_measures(
        bench_scale(load_settings(), items=items, dimensions=dimension, memory=memory, helpers=helpers), as_json=json
    )


@app.command()
def storage(
    *,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Items of each catalogue.")] = 20_000,
    dimension: Annotated[
        list[int], typer.Option(min=1, max=2000, help="Length of the vectors; may be given several times.")
    ] = [64, 384],  # noqa: B006 - read only
    users: Annotated[int, typer.Option(min=1, help="Calls in a run, each for another user.")] = 100,
    runs: Runs = 3,
    json: Json = False,
) -> None:
    """Smaller vectors: bytes, building, reading and recall by what is stored and what the index holds."""
    settings = load_settings()
    show_measures(bench_storage(settings, items=items, dimensions=dimension, users=users, runs=runs), as_json=json)


@app.command()
def churn(
    *,
    items: Annotated[int, typer.Option(min=2000, max=10_000_000)] = 20_000,
    dimension: Dimension = DIMENSION,
    users: Annotated[int, typer.Option(min=1, help="Whose lists are compared.")] = 100,
    portion: Annotated[int, typer.Option(min=1, help="Items that change at once.")] = 256,
    rounds: Annotated[
        list[int], typer.Option(min=1, help="How often every vector is replaced; may be given several times.")
    ] = [1, 2, 10],  # noqa: B006 - read only
    runs: Runs = 5,
    json: Json = False,
) -> None:
    """Churn: recall and speed after every vector was replaced, against exact search and a freshly built index."""
    figures = bench_churn(
        load_settings(), items=items, dimension=dimension, users=users, portion=portion, runs=runs, rounds=rounds
    )
    show(figures, as_json=json)


@app.command()
def growth(
    *,
    items: Annotated[int, typer.Option(min=2000, max=10_000_000)] = 20_000,
    history: Annotated[
        list[int],
        typer.Option(min=1, help="Events of a user, versions of an item or user; may be given several times."),
    ] = list(HISTORIES),  # noqa: B006 - read only
    total: Annotated[
        list[int], typer.Option(min=1000, help="Interactions, changes in the queue; may be given several times.")
    ] = [10_000, 100_000],  # noqa: B006
    json: Json = False,
) -> None:
    """Growth: what reading and publishing cost as histories, the queue and the interactions get longer."""
    show_growth(bench_growth(load_settings(), items=items, histories=history, totals=total), as_json=json)


@app.command()
def memory(
    *,
    items: Annotated[
        list[int],
        typer.Option(min=1000, max=10_000_000, help="Items; ten times as many events. May be given several times."),
    ] = [10_000, 100_000],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Memory: what server and trainer take at most for the steps that go through whole tables."""
    show_measures(bench_memory(load_settings(), items=items), as_json=json)


app.command()(quality)
app.command()(peers)


@app.command(name="all")
def everything(
    *,
    rows: Annotated[int, typer.Option(min=1, help="Items that are encoded in the backfill.")] = 10_000,
    items: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Items to read from.")] = 100_000,
    dimension: Dimension = DIMENSION,
    runs: Runs = 3,
    json: Json = False,
) -> None:
    """One full run: those with targets, one after the other, each shown and kept under its own name as it ends."""
    for name, figures in full_run(load_settings(), rows=rows, items=items, dimension=dimension, runs=runs):
        keep_as(name)
        show(figures, as_json=json)
