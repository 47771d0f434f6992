"""The plot of the comparison. Imported by who draws alone, as it needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from matplotlib.figure import Figure

from dynrec_store.exceptions import ConfigurationError
from workers.bench.quality.metrics import Interval
from workers.bench.quality.ours import CONTENT, OURS
from workers.bench.quality.outcome import Row

FORMATS = ("jpeg", "jpg", "pdf", "png", "svg", "webp")


def check_plot(file: Path) -> None:
    """Raise ConfigurationError for a file that `plot` could not write."""
    if file.suffix.lower().removeprefix(".") not in FORMATS:
        endings = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigurationError(
            f"--plot {file}: {file.suffix or 'a name without an ending'} is no format that is drawn; "
            f"let the name end in one of {endings}"
        )
    try:
        TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise ConfigurationError(
            f"--plot {file}: nothing can be written to the folder {file.parent} ({error.strerror}); "
            "make it, or name another"
        ) from error


def plot(results: Sequence[Row], dataset: str, file: Path) -> None:
    """Draw nDCG@10 and recall of cold items alone, a panel for each protocol."""
    protocols = list(dict.fromkeys(row.outcome.protocol for row in results))
    figure = Figure(figsize=(11, 0.6 + 0.32 * len(results)), layout="constrained")
    panels = figure.subplots(len(protocols), 2, squeeze=False)
    for protocol, line in zip(protocols, panels, strict=True):
        shown = [row for row in results if row.outcome.protocol == protocol][::-1]
        for panel, name in zip(line, ("ndcg_at_10", "cold_only_recall_at_10"), strict=True):
            figures = [row.figures[name] or Interval(0, 0, 0) for row in shown]
            means = [f.mean for f in figures]
            bounds = [[f.mean - f.low for f in figures], [f.high - f.mean for f in figures]]
            colors = ["tab:blue" if row.outcome.model in (OURS, CONTENT) else "silver" for row in shown]
            panel.barh([row.outcome.model for row in shown], means, xerr=bounds, color=colors, ecolor="dimgray")
            panel.set_title(f"{dataset}, {protocol}: {name.replace('_at_', '@').replace('_', ' ')}", fontsize=10)
            panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
