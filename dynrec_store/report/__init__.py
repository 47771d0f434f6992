"""One page about how good a recommender is: quality over time and by slice, calibration, exposure, drift, alerts."""

from dynrec_store.report.facts import Facts, gather
from dynrec_store.report.page import render

__all__ = ["Facts", "gather", "render"]
