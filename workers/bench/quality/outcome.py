"""What the comparison shows: a table, lines of JSON. Every mean stands with its bootstrap interval."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from dynrec_store.cli.output import out, say
from workers.bench.quality.harness import Outcome
from workers.bench.quality.metrics import Interval, Values, cold_rows, coverage, interval
from workers.bench.quality.ours import CONTENT, OURS

FIGURES = {  # field of Scores: the name of its figure
    "ndcg": "ndcg_at_10",
    "recall": "recall_at_10",
    "hit": "hit_rate_at_10",
    "cold_recall": "cold_recall_at_10",
    "cold_only_recall": "cold_only_recall_at_10",
    "cold_only_ndcg": "cold_only_ndcg_at_10",
    "cold_only_hit": "cold_only_hit_rate_at_10",
}

MEANS = {  # figures that the second table has: their headings
    "recall_at_10": "recall@10",
    "hit_rate_at_10": "hit rate",
    "coverage": "coverage",
    "cold_recall_at_10": "cold\nrecall",
    "cold_only_recall_at_10": "cold only\nrecall",
    "cold_only_ndcg_at_10": "cold only\nnDCG",
}


@dataclass(frozen=True)
class Row:
    """An outcome with its intervals."""

    outcome: Outcome
    figures: dict[str, Interval | None]  # by the names of FIGURES, and of both coverages; None: there was no such case
    best_baseline: str | None
    difference: Interval | None  # of nDCG@10 to the best baseline, case by case
    cold_lists: int


def rows(outcomes: Sequence[Outcome], seed: int) -> list[Row]:
    """Add intervals, and compare with the best baseline of the protocol; resampled are users."""
    return [_row(outcome, _best_baseline(outcomes, outcome.protocol), seed) for outcome in outcomes]


def _best_baseline(outcomes: Sequence[Outcome], protocol: str) -> Outcome | None:
    theirs = [o for o in outcomes if o.protocol == protocol and o.model not in (OURS, CONTENT)]
    return max(theirs, key=lambda outcome: outcome.scores.ndcg.mean(), default=None)


def _row(outcome: Outcome, best: Outcome | None, seed: int) -> Row:
    users = outcome.cases.user
    cold = cold_rows(outcome.cases, outcome.cold)
    figures = {}
    for field, name in FIGURES.items():
        values: Values = getattr(outcome.scores, field)
        figures[name] = interval(values, users[cold] if field.startswith("cold") else users, seed)
    figures["coverage"] = coverage(outcome.lists.top, users, len(outcome.cold), seed)
    figures["cold_only_coverage"] = coverage(outcome.lists.cold, users[cold], int(outcome.cold.sum()), seed)
    difference = None
    if best is not None and best is not outcome:
        difference = interval(outcome.scores.ndcg - best.scores.ndcg, users, seed)
    return Row(outcome, figures, best.model if best else None, difference, len(cold))


def as_json(row: Row, dataset: str, *, seed: int) -> dict[str, object]:
    """One line: means by their names, bounds as NAME_low and NAME_high, those of nDCG as ndcg_low and ndcg_high."""
    outcome = row.outcome
    line: dict[str, object] = {"dataset": dataset, "protocol": outcome.protocol, "model": outcome.model}
    for name, figure in row.figures.items():
        line[name] = figure and figure.mean
        stem = name.removesuffix("_at_10")
        line[f"{stem}_low"], line[f"{stem}_high"] = (figure and figure.low), (figure and figure.high)
    ratio = None
    if row.difference is not None and (ndcg := row.figures["ndcg_at_10"]) is not None:
        theirs = ndcg.mean - row.difference.mean
        ratio = ndcg.mean / theirs if theirs else None
    return line | {
        "best_baseline": row.best_baseline,
        "ratio": ratio,
        "difference": row.difference and row.difference.mean,
        "difference_low": row.difference and row.difference.low,
        "difference_high": row.difference and row.difference.high,
        "lists": len(outcome.cases),
        "cold_lists": row.cold_lists,
        "items": len(outcome.cold),
        "cold_items": int(outcome.cold.sum()),
        "params": dict(outcome.params),
        "tuning_lists": outcome.tuning_lists,
        "tune_seconds": round(outcome.tune_seconds, 2),
        "fit_seconds": round(outcome.fit_seconds, 2),
        "trainings": outcome.trainings,
        "repeat": outcome.cases.repeat,
        "seed": seed,
    }


def show(results: Sequence[Row], dataset: str, *, json_lines: bool, seed: int) -> None:
    """Print two tables for each protocol, or one JSON object a line; what was not tuned is said on standard error."""
    for protocol, models in _untuned(results).items():
        say(
            f"not tuned for the {protocol} protocol, as its validation period has nothing to foresee, "
            f"but taken with the first of their parameters: {'; '.join(models)}",
            style="yellow",
        )
    if json_lines:
        for row in results:
            print(json.dumps(as_json(row, dataset, seed=seed)))  # noqa: T201 - this is the output
        return
    console = out()
    for protocol in dict.fromkeys(row.outcome.protocol for row in results):
        some = [row for row in results if row.outcome.protocol == protocol]
        lists, cold = len(some[0].outcome.cases), some[0].cold_lists
        title = f"{dataset}, {protocol}: {lists:,} lists, {cold:,} of them with cold items"
        console.print(_against_the_best(some, title))
        console.print(_means(some))
        console.print()
    console.print("mean (95% interval, users resampled); against the best baseline case by case", style="dim")
    console.print("cold: items that nobody met before the split, in the whole list; cold only:", style="dim")
    console.print("in a list of such items alone", style="dim")


def _untuned(results: Sequence[Row]) -> dict[str, list[str]]:
    """The baselines that had no case to be tuned on, by protocol."""
    found: dict[str, list[str]] = {}
    for outcome in (row.outcome for row in results if row.outcome.tuning_lists == 0):
        found.setdefault(outcome.protocol, []).append(outcome.model)
    return found


def _against_the_best(results: Sequence[Row], title: str) -> Table:
    table = _table(("nDCG@10", "against the best baseline"), title)
    for row in results:
        best = row.outcome.model == row.best_baseline
        table.add_row(
            _name(row),
            _with_bounds(row.figures["ndcg_at_10"]),
            "[dim]is the best[/dim]" if best else _with_bounds(row.difference, sign=True),
        )
    return table


def _means(results: Sequence[Row]) -> Table:
    table = _table(tuple(MEANS.values()))
    for row in results:
        table.add_row(_name(row), *(_mean(row.figures[name]) for name in MEANS))
    return table


def _table(headings: Sequence[str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _name(row: Row) -> str:
    model = row.outcome.model
    return f"[bold]{model}[/bold]" if model in (OURS, CONTENT) else model


def _mean(figure: Interval | None) -> str:
    return "" if figure is None else f"{figure.mean:.4f}"


def _with_bounds(figure: Interval | None, *, sign: bool = False) -> str:
    if figure is None:
        return ""
    pattern = "{:+.4f} [dim]({:+.4f} to {:+.4f})[/dim]" if sign else "{:.4f} [dim]({:.4f}-{:.4f})[/dim]"
    return pattern.format(figure.mean, figure.low, figure.high)
