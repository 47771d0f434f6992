"""Whether a place in each list should be held for items that nobody has met."""

import numpy as np
import torch

from workers.learning.examples import Examples
from workers.learning.history import history_batch
from workers.learning.ranking import Ranking
from workers.learning.training import Arrays, Towers

SHARE = 0.1  # of a list's places: one of ten
WORTH = 0.02  # the place is held where at least this share of users who met such items were shown one of theirs


@torch.no_grad()
def exploration(towers: Towers, ranking: Ranking, known: Arrays, lists: Examples) -> float:
    """Return the share of places to hold, 0 where the best unmet item for a user is hardly ever the right one.

    In catalogues where most of what nobody met is dead stock, a place for it is lost.
    """
    unmet = np.flatnonzero(~np.isfinite(known.first_met))
    wanted = np.isin(lists.target, unmet)
    asked = np.unique(lists.target_row()[wanted])
    if not len(asked):
        return 0.0
    lists = lists.take(asked)
    items = known.vectors(towers, float(lists.moment[0]), rows=torch.from_numpy(unmet))
    gates = towers.users.gates() * ranking.gate().exp()  # (H + 2, X)
    hits = 0
    for batch in lists.batches(256):
        history = history_batch(known.histories, batch, known.values)
        everything = known.vectors(towers, float(batch.moment[0]))
        heads = towers.users.full_pass(everything, history)
        gate = gates[:, history.context]  # (H + 2, B)
        learned = torch.stack([g[:, None] * head for g, head in zip(gate, heads[:-1], strict=False)]).sum(dim=0)
        score = learned @ items.item.T + gate[-2][:, None] * heads[-1] @ items.content.T
        best = unmet[(score + gate[-1][:, None] * items.bias).argmax(dim=1).numpy()]
        hits += int((batch.target == best[batch.target_row()]).sum())
    return SHARE if hits >= WORTH * len(lists) else 0.0
