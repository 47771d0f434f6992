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
WORTH = 0.02  # the place is held where at least this share of users who met such items were shown one of theirs


@dataclass(frozen=True)
class Exploration:
    """A share of the places of a list, which an unmet item takes if its score is at most `gap` below the last one's."""

    share: float = 0.0
    gap: float | None = None  # None: whatever its score is


@torch.no_grad()
def exploration(ranking: Ranking, sorts: Sequence[Sort]) -> Exploration:
    """Return what to hold: nothing where the best unmet item for a user is hardly ever the right one.

    In catalogues where most of what nobody met is dead stock, a place for it is lost. Elsewhere the half of the lists
    has one in which the best unmet item comes nearest to the others.
    """
    gaps, hits, asked = [np.zeros(0)], 0, 0
    for lists in (sort for sort in sorts if sort.name == "lists"):
        for (candidates, items), batch in zip(lists.batches, lists.batched(), strict=True):
            score = ranking(candidates).numpy()
            unmet = np.where((candidates.cold & candidates.allowed).numpy(), score, -np.inf)
            found = np.isfinite(unmet.max(axis=1))
            best = np.where(found, items[np.arange(len(items)), unmet.argmax(axis=1)], -1)
            gaps.append((_last(score) - unmet.max(axis=1))[found])
            row = batch.target_row()
            asked += len(np.unique(row[lists.unmet[batch.target]]))
            hits += int((batch.target == best[row]).sum())
    if not asked or hits < WORTH * asked:
        return Exploration()
    return Exploration(SHARE, float(np.median(np.concatenate(gaps))))


def _last(score: Floats) -> Floats:
    """Return the score of the last place of each list (B,)."""
    place = min(K, score.shape[1]) - 1
    last: Floats = -np.partition(-score, place, axis=1)[:, place]
    return last
