"""What a benchmark leaves in a folder: its figures as JSON, and a plot of the ratios."""

import json
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

from dynrec_store.extras import needs_extra
from workers.bench.measure import Figure

MET, MISSED, FREE = "#2a7f3f", "#b3392f", "#555555"  # the target, or none


_place: ContextVar[tuple[Path, str] | None] = ContextVar("place", default=None)  # folder and name


def keep(folder: Path | None, name: str) -> None:
    """Let `write` leave figures in a folder, which is made, under that name; or nowhere."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    _place.set((folder, name) if folder else None)


def keep_as(name: str) -> None:
    """Let `write` use another name, where `keep` named a folder."""
    if place := _place.get():
        _place.set((place[0], name))


def write(figures: Sequence[Figure]) -> None:
    """Write NAME.json, one object a line, and NAME.svg; nothing unless `keep` named a folder."""
    place = _place.get()
    if place is None:
        return
    folder, name = place
    lines = "".join(json.dumps(figure.as_json()) + "\n" for figure in figures)
    (folder / f"{name}.json").write_text(lines)
    _draw(figures, folder / f"{name}.svg")


def _draw(figures: Sequence[Figure], file: Path) -> None:
    """Draw the ratio of each figure to its reference, from the smallest to the largest run, with its target."""
    with needs_extra("report"):
        from matplotlib.figure import Figure as Page  # noqa: PLC0415
    page = Page(figsize=(8, 1 + 0.32 * len(figures)), layout="constrained")
    axes = page.subplots()
    for row, figure in enumerate(figures):
        colour = {None: FREE, True: MET, False: MISSED}[figure.met]
        axes.plot([min(figure.ratios), max(figure.ratios)], [row, row], color=colour, linewidth=2)
        axes.plot([figure.ratio], [row], "o", color=colour)
        if figure.target is not None:
            # the open side of the mark is where the ratio belongs
            axes.plot([figure.target], [row], ">" if figure.higher_is_better else "<", color="black", fillstyle="none")
    axes.axvline(1, color="lightgrey", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_yticks(range(len(figures)), [figure.name for figure in figures])
    axes.invert_yaxis()
    axes.set_xlabel("measured / reference, median and range of the runs; triangles: targets")
    page.savefig(file, metadata={"Date": None})
