"""Whether a place in lists should be held for items that nobody has met, and in which lists."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workers.learning.data import Floats
from workers.learning.measures import K
from workers.learning.ranking import Ranking
from workers.learning.validation import Sort

SHARE = 0.1  # of a list's places: one of ten
MOST = 0.5  # of the lists have such a place
WORTH = 0.02  # so many have it where at least this share of users who met unmet items had been shown one of theirs
LEAST = 0.05  # of the lists have it however few: what is never shown is never met


@dataclass(frozen=True)
class Exploration:
    """A share of the places of a list, which an unmet item takes if its score is at most `gap` below the last one's."""

    share: float = 0.0
    gap: float | None = None  # None: whatever its score is


@torch.no_grad()
def exploration(ranking: Ranking, sorts: Sequence[Sort]) -> Exploration:
    """Return what to hold: in the fewer lists, the more rarely the best unmet item for a user is the right one.

    In catalogues where most of what nobody met is dead stock, a place for it is all but lost. Those lists have one in
    which the best unmet item comes nearest to the others; none have, where nobody met what had been unmet.
    """
    gaps, hits, asked = np.zeros(0), 0, 0
    for lists in (sort for sort in sorts if sort.name == "lists"):
        for (candidates, items), batch in zip(lists.batches, lists.batched(), strict=True):
            score = ranking(candidates).numpy()
            unmet = np.where((candidates.cold & candidates.allowed).numpy(), score, -np.inf)
            found = np.isfinite(unmet.max(axis=1))
            best = np.where(found, items[np.arange(len(items)), unmet.argmax(axis=1)], -1)
            gaps = np.append(gaps, (_last(score) - unmet.max(axis=1))[found])
            row = batch.target_row()
            asked += len(np.unique(row[lists.unmet[batch.target]]))
            hits += int((batch.target == best[row]).sum())
    if not asked or not len(gaps):
        return Exploration()
    having = max(LEAST, MOST * min(1.0, hits / asked / WORTH))
    return Exploration(SHARE, float(np.quantile(gaps, having)))


def _last(score: Floats) -> Floats:
    """Return the score of the last place of each list (B,)."""
    place = min(K, score.shape[1]) - 1
    last: Floats = -np.partition(-score, place, axis=1)[:, place]
    return last
