"""The numbers that the SQL of recommend() is made of."""

from dataclasses import asdict
from typing import Any

import torch

from workers.learning.examples import COUNT_EDGES, GAP_EDGES
from workers.learning.history import ValueScale
from workers.learning.ranking import Ranking
from workers.learning.settings import Settings
from workers.learning.towers import UserTower
from workers.learning.transitions import pasts

LEARNED_NAMES = ("long", "middle", "short")
CONTENT_NAMES = ("content", "recent_content")


@torch.no_grad()
def config_of(
    users: UserTower, ranking: Ranking, settings: Settings, values: ValueScale, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Return the serving form of a model; its tables have a number for each context, gap bucket * 5 + count bucket."""
    gates = users.gates() * ranking.gates()  # (H + C + 1, X)
    weights = users.kind_weight.tolist()
    return {
        "learned": settings.learned,
        "content": settings.content,
        "dimension": settings.learned + settings.content + 1,
        "heads": [
            {"name": name, "decay": decay}
            for name, decay in zip(head_names(settings), settings.head_decays, strict=True)
        ],
        "content_heads": len(settings.content_decays),  # the last of them
        "kind_weights": {"*": 1.0, **dict(zip(kinds, weights, strict=True))},
        "value": {"mean": values.mean, "scale": values.scale, "slope": float(users.value_slope)},
        "gap_edges": list(GAP_EDGES),
        "count_edges": list(COUNT_EDGES),
        "gates": gates[:-1].tolist(),
        "bias_weight": gates[-1].tolist(),
        "popularity_weight": ranking.popularity()[0].tolist(),
        "mixture": ranking.mixture().softmax(dim=0).tolist(),
        "power": ranking.power().tolist(),
        "cold": ranking.cold()[0].tolist(),
        "repeat_base": ranking.repeat()[0].tolist(),
        "repeat_count": float(ranking.repeat_count),
        "repeat_recency": float(ranking.repeat_recency),
        "transitions": [
            {**asdict(past), "weights": weights.tolist()}
            for past, weights in zip(pasts(settings), ranking.transitions(), strict=True)
        ],
        "candidates": settings.candidates,
    }


def head_names(settings: Settings) -> tuple[str, ...]:
    """Return a name for each head, the learned ones and then those of content, each from the slowest."""
    return (
        *_first(LEARNED_NAMES, "head", len(settings.decays)),
        *_first(CONTENT_NAMES, "content", len(settings.content_decays)),
    )


def _first(names: tuple[str, ...], stem: str, count: int) -> tuple[str, ...]:
    return names[:count] if count <= len(names) else tuple(f"{stem}_{number}" for number in range(1, count + 1))
