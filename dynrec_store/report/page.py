"""A report as one HTML page that opens from disk: no script, nothing loaded from elsewhere."""

from base64 import b64encode
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from dynrec_store.report import plots
from dynrec_store.report.facts import Facts
from dynrec_store.results import DataDrift

OVER_TIME = ("ndcg_at_k", "hit_rate_at_k", "catalogue_coverage_at_k", "index_recall_at_k")
BY_SLICE = ("ndcg_at_k", "recall_at_k", "hit_rate_at_k")
TILES = (
    "ndcg_at_k",
    "hit_rate_at_k",
    "recall_at_k",
    "catalogue_coverage_at_k",
    "gini_of_exposure_at_k",
    "novelty_at_k",
)
DISTRIBUTIONS = 4  # of the subjects that drifted most


def render(facts: Facts) -> str:
    """The page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(picture=_picture, number=_number, moment=_moment)
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(facts=facts, named=plots.named, tiles=_tiles(facts), plots=_plots(facts))


def _plots(facts: Facts) -> dict[str, Any]:
    return {
        "over_time": plots.over_time(facts.measurements, OVER_TIME),
        "by_slice": plots.by_slice(facts.metrics, BY_SLICE),
        "calibration": plots.calibration(facts.calibration),
        "lorenz": plots.lorenz(facts.exposure),
        "drift": plots.drift(facts.drift),
        "distributions": [(one.subject, plots.distribution(one)) for one in _farthest(facts)],
        "traffic": plots.traffic(facts.traffic),
    }


def _tiles(facts: Facts) -> list[dict[str, Any]]:
    of_all = {one.metric: one for one in facts.metrics if one.slice == "all"}
    return [{"name": plots.named(name, facts.k), "row": of_all[name]} for name in TILES if name in of_all]


def _farthest(facts: Facts) -> list[DataDrift]:
    return [one for one in facts.drift if one.psi > plots.LITTLE][:DISTRIBUTIONS]


def _picture(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _moment(value: datetime | None) -> str:
    return "-" if value is None else value.strftime("%Y-%m-%d %H:%M %Z")
