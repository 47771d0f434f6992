"""One full run: every benchmark whose figures have targets, at one size."""

from collections.abc import Callable, Iterator
from functools import partial

from dynrec_store.settings import Settings
from workers.bench.backfill import backfill
from workers.bench.bulk import bulk
from workers.bench.capture import capture
from workers.bench.churn import churn
from workers.bench.encoder import encoder
from workers.bench.evaluate import evaluate
from workers.bench.filtered import filtered
from workers.bench.freshness import freshness
from workers.bench.load import load
from workers.bench.measure import Figure
from workers.bench.promotion import promotion
from workers.bench.reads import reads
from workers.bench.recommend import recommend

LOADED = 10  # times as many rows in a bulk load as items that are read from: a shorter one says little
CHURNED = 20_000  # items at most whose vectors are replaced ten times over


def full_run(
    settings: Settings, *, rows: int, items: int, dimension: int, runs: int
) -> Iterator[tuple[str, list[Figure]]]:
    """The name and the figures of one benchmark after the other; `rows` are encoded, `items` are read from."""
    some = min(items, CHURNED)
    benchmarks: dict[str, Callable[[], list[Figure]]] = {
        "capture": partial(capture, settings, rows=10_000, clients=16, seconds=5, runs=runs),
        "bulk": partial(bulk, settings, rows=LOADED * items, runs=runs),
        "freshness": partial(freshness, settings, samples=40, runs=runs),
        "encoder": partial(encoder, settings, rows=2000, runs=runs),
        "backfill": partial(backfill, settings, rows=rows, runs=runs),
        "recommend": partial(recommend, settings, items=items, dimension=dimension, users=200, seconds=5, runs=runs),
        "filtered": partial(filtered, settings, items=items, dimension=dimension, users=50, runs=runs),
        "reads": partial(reads, settings, items=items, dimension=dimension, users=50, runs=runs),
        "churn": partial(
            churn, settings, items=some, dimension=dimension, users=100, portion=256, rounds=[1, 2, 10], runs=runs
        ),
        "evaluate": partial(evaluate, settings, items=some, users=1000, runs=runs),
        "load": partial(load, settings, rows=10_000, rate=10_000, seconds=20, runs=runs),
        "promotion": partial(promotion, settings, items=10_000, readers=2, seconds=5, runs=runs),
    }
    for name, benchmark in benchmarks.items():
        yield name, benchmark()
