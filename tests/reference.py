"""The mathematics of the content space written down a second time, in numpy, from the sorted history alone.

Item: the encoder's vector of its text. User: the sum over the interactions of weight * value * 2^(-age / half-life) *
item vector, scaled to length 1, where the age is counted to the user's latest interaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from workers.encoders.hashing import HashingEncoder

Vector = npt.NDArray[np.float32]
CLOSE = 1e-4  # the database sums in float32


@dataclass(frozen=True)
class Event:
    """One interaction."""

    user: str
    item: str
    at: datetime
    kind: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Kind:
    """What an interaction of a kind counts."""

    weight: float = 1.0
    half_life: timedelta = timedelta(days=30)


Kinds = Mapping[str, Kind]  # "*" is every other kind
DEFAULT_KINDS: Kinds = {"*": Kind()}


def document(*parts: object) -> str:
    """The text that the encoder sees: the parts in order without nulls and blanks, joined by '. '."""
    texts = (", ".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts if part is not None)
    return ". ".join(text.strip(" ") for text in texts if text.strip(" "))


def item_vectors(texts: Mapping[str, str]) -> dict[str, Vector]:
    """The vector of each item from its text."""
    encoded = HashingEncoder().encode(list(texts.values()))
    return dict(zip(texts, encoded, strict=True))


def weight(event: Event, until: datetime, kinds: Kinds) -> float:
    """What an interaction counts at a moment."""
    kind = kinds.get(event.kind or "*", kinds.get("*", Kind()))
    value = 1.0 if event.value is None or np.isnan(event.value) else float(np.clip(event.value, -1e6, 1e6))
    age = max((until - event.at) / kind.half_life, 0.0)
    return float(kind.weight * value * 2.0**-age)


def user_vector(events: Iterable[Event], items: Mapping[str, Vector], kinds: Kinds = DEFAULT_KINDS) -> Vector | None:
    """The vector of one user; None if nothing is known of them or their interactions cancel."""
    history = sorted(events, key=lambda event: event.at)
    if not history:
        return None
    total = np.zeros(next(iter(items.values())).shape if items else 1, dtype=np.float64)
    scale = 0.0
    for event in history:
        if event.item in items:
            share = weight(event, history[-1].at, kinds)
            total += share * items[event.item].astype(np.float64)
            scale += abs(share)
    length = float(np.linalg.norm(total))
    return None if length <= 1e-6 * scale else (total / length).astype(np.float32)


def user_vectors(
    events: Iterable[Event], items: Mapping[str, Vector], kinds: Kinds = DEFAULT_KINDS
) -> dict[str, Vector | None]:
    """The vector of each user."""
    by_user: dict[str, list[Event]] = {}
    for event in events:
        by_user.setdefault(event.user, []).append(event)
    return {user: user_vector(own, items, kinds) for user, own in by_user.items()}


def popularity(
    events: Iterable[Event], until: datetime, kinds: Kinds = DEFAULT_KINDS, half_life: timedelta = timedelta(days=7)
) -> dict[str, float]:
    """The decayed weight of each item at a moment."""
    counted = {name: Kind(kind.weight, half_life) for name, kind in kinds.items()}
    total: dict[str, float] = {}
    for event in events:
        total[event.item] = total.get(event.item, 0.0) + weight(event, until, counted)
    return total
