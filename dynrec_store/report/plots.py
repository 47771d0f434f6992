"""The plots of a report, as SVG; None where there is nothing to draw."""

from collections import defaultdict
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from dynrec_store.results import CalibrationBin, DataDrift, Measurement, Metric, OnlineMetrics

# Okabe & Ito: told apart whatever colours one sees.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7a7a7a"
COLOURS = (BLUE, ORANGE, GREEN, RED)
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dynrec",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
}
WIDE, HALF = 10.0, 4.8  # inches
LITTLE, MUCH = 0.1, 0.25  # population stability index, by convention
INTERVAL = 1.959963984540054  # standard errors


@mpl.rc_context(STYLE)
def over_time(measurements: Sequence[Measurement], names: Sequence[str]) -> str | None:
    """Each metric over time with its 95 per cent interval, and where the model version changed."""
    of_all = sorted((one for one in measurements if one.slice == "all"), key=lambda one: one.measured_at)
    chosen = {name: [one for one in of_all if one.metric == name] for name in names}
    if not any(chosen.values()):
        return None
    figure, panels = _panels(WIDE, 2.6, len(names))
    for panel, (name, series) in zip(panels, chosen.items(), strict=True):
        panel.set_title(named(name, series[0].at_k if series else None))
        if series:
            _series(panel, series)
    return _svg(figure)


@mpl.rc_context(STYLE)
def by_slice(metrics: Sequence[Metric], names: Sequence[str]) -> str | None:
    """Each slice as a dot with its 95 per cent interval, a panel for each metric; the dashed line is all users."""
    counts = {one.slice: one.n for one in metrics if one.metric == names[0]}
    if not counts:
        return None
    figure, panels = _panels(WIDE, 0.8 + 0.26 * len(counts), len(names), sharey=True)
    for panel, name in zip(panels, names, strict=True):
        rows = {one.slice: one for one in metrics if one.metric == name}
        places = [place for place, one in enumerate(counts) if one in rows]
        values = [rows[one].value for one in counts if one in rows]
        errors = [INTERVAL * (rows[one].standard_error or 0) for one in counts if one in rows]
        panel.errorbar(values, places, xerr=errors, fmt="o", color=BLUE)
        panel.axvline(rows["all"].value, color=GREY, linestyle="--", linewidth=1)
        panel.set_title(named(name, rows["all"].at_k))
        panel.set_xlim(left=0)
    panels[0].set_yticks(range(len(counts)), [f"{one}  (n = {n:,})" for one, n in counts.items()])
    panels[0].invert_yaxis()
    return _svg(figure)


@mpl.rc_context(STYLE)
def calibration(bins: Sequence[CalibrationBin]) -> str | None:
    """What items of like scores were worth; of a learned model beside what the scores promise."""
    if not bins:
        return None
    figure, (axes,) = _panels(HALF, 3.4)
    promised = [one.expected for one in bins if one.expected is not None]
    places = promised or [(one.low_score + one.high_score) / 2 for one in bins]
    errors = [INTERVAL * (one.standard_error or 0) for one in bins]
    axes.errorbar(places, [one.observed for one in bins], yerr=errors, fmt="o-", color=BLUE, label="observed")
    if promised:
        axes.plot([0, max(promised)], [0, max(promised)], color=GREY, linestyle="--", linewidth=1, label="as promised")
        axes.legend()
    axes.set_xlabel("share of a list's hits that the scores promise" if promised else "score (cosine)")
    axes.set_ylabel("share that they had" if promised else "share of the items that were met")
    axes.set_ylim(bottom=0)
    return _svg(figure)


@mpl.rc_context(STYLE)
def lorenz(exposure: Sequence[int]) -> str | None:
    """How the places in lists are shared among the items of the catalogue; `exposure` ascending."""
    if not exposure:
        return None
    figure, (axes,) = _panels(HALF, 3.4)
    shares = np.concatenate([[0], np.cumsum(exposure) / np.sum(exposure)])
    items = np.linspace(0, 1, len(shares))
    chosen = np.unique(np.linspace(0, len(shares) - 1, 500).astype(int))
    axes.fill_between(items[chosen], shares[chosen], items[chosen], color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(items[chosen], shares[chosen], color=BLUE, label="lists")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="all items alike")
    axes.set_xlabel("share of the catalogue, least shown first")
    axes.set_ylabel("share of the places in lists")
    axes.legend()
    return _svg(figure)


@mpl.rc_context(STYLE)
def drift(rows: Sequence[DataDrift]) -> str | None:
    """The population stability index of each subject, with the conventional limits."""
    if not rows:
        return None
    figure, (axes,) = _panels(WIDE, 0.9 + 0.26 * len(rows))
    colours = [RED if one.psi > MUCH else ORANGE if one.psi > LITTLE else GREEN for one in rows]
    axes.barh([one.subject for one in rows], [one.psi for one in rows], color=colours, height=0.6)
    for limit in (LITTLE, MUCH):
        axes.axvline(limit, color=GREY, linestyle="--", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel(f"population stability index beyond chance (above {LITTLE} noteworthy, above {MUCH} much)")
    axes.set_xlim(0, max(0.3, *(1.05 * one.psi for one in rows)))
    return _svg(figure)


@mpl.rc_context(STYLE)
def distribution(row: DataDrift) -> str:
    """The shares of the bins of one subject, then and now."""
    figure, (axes,) = _panels(HALF, 2.6)
    places = np.arange(len(row.bins))
    axes.bar(places - 0.2, row.expected, 0.4, color=GREY, label="then")
    axes.bar(places + 0.2, row.observed, 0.4, color=BLUE, label="now")
    labels = [one if len(one) <= 20 else one[:19] + "…" for one in row.bins]
    axes.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axes.grid(visible=False, axis="x")
    axes.set_title(row.subject)
    axes.legend()
    return _svg(figure)


@mpl.rc_context(STYLE)
def traffic(rows: Sequence[OnlineMetrics]) -> str | None:
    """Click-through by day, a line for each model version."""
    by_model: dict[int | None, list[OnlineMetrics]] = defaultdict(list)
    for row in rows:
        by_model[row.model_version].append(row)
    if not by_model:
        return None
    figure, (axes,) = _panels(WIDE, 2.6)
    for number, (model, days) in enumerate(by_model.items()):
        axes.errorbar(
            date2num([one.day for one in days]),  # type: ignore[no-untyped-call]
            [one.click_through for one in days],
            yerr=[INTERVAL * (one.click_through_error or 0) for one in days],
            fmt="o-",
            color=COLOURS[number % len(COLOURS)],
            label="of elsewhere" if model is None else f"model version {model}",
        )
    _dates(axes)
    axes.set_ylim(bottom=0)
    axes.set_title("click-through")
    axes.legend()
    return _svg(figure)


def named(metric: str, k: int | None) -> str:
    """A metric as a person writes it: ndcg_at_k becomes nDCG@10."""
    short = metric.removesuffix("_at_k")
    words = {"ndcg": "nDCG"}.get(short, short.replace("_", " "))
    return f"{words}@{k}" if metric.endswith("_at_k") and k else words


def _series(panel: Axes, series: Sequence[Measurement]) -> None:
    times = date2num([one.measured_at for one in series])  # type: ignore[no-untyped-call]
    values = np.array([one.value for one in series])
    errors = INTERVAL * np.array([one.standard_error or 0 for one in series])
    panel.plot(times, values, "o-", color=BLUE)
    panel.fill_between(times, values - errors, values + errors, color=BLUE, alpha=0.15, linewidth=0)
    for time, (before, after) in zip(times[1:], pairwise(series), strict=True):
        if before.model_version != after.model_version:
            panel.axvline(time, color=ORANGE, linestyle="--", linewidth=1)
            panel.annotate(f" v{after.model_version}", (time, 0.85), xycoords=("data", "axes fraction"), color=ORANGE)
    panel.set_ylim(bottom=0)
    _dates(panel)


def _dates(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _panels(width: float, height: float, columns: int = 1, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, sharey=sharey)[0])


def _svg(figure: Figure) -> str:
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
