"""A small shop: two sorts of items, and users who each like one of them."""

from dataclasses import replace

import numpy as np
import pytest

from workers.learning.data import Integers, TrainingData
from workers.learning.settings import Settings

SMALL = Settings(learned=8, content=4, epochs=2, batch=32, recent=8, older=8, ease_penalty=5.0, validated=100)


def shop(
    interactions: int = 900, users: int = 80, items: int = 40, *, seed: int = 0, exclude_seen: bool = True
) -> TrainingData:
    """Return a history in which users of even number meet the first half of the items; the last of each half is met by nobody."""
    random = np.random.default_rng(seed)
    half = items // 2
    user = random.integers(0, users, interactions)
    item = (user % 2) * half + random.integers(0, half - 1, interactions)
    content = random.normal(size=(items, 16)).astype(np.float32) * 0.3
    content[:half, 0] += 3
    content[half:, 0] -= 3
    return TrainingData(
        user=user,
        item=item,
        kind=random.integers(0, 2, interactions),
        value=np.where(random.random(interactions) < 0.3, np.nan, random.exponential(size=interactions)).astype(
            np.float32
        ),
        occurred_at=np.sort(random.integers(0, 5_000_000, interactions)).astype(np.float64),
        users=tuple(f"user {number}" for number in range(users)),
        items=tuple(f"item {number}" for number in range(items)),
        kinds=("view", "purchase"),
        kind_weights=np.array([0.2, 1.0], dtype=np.float32),
        content=content,
        exclude_seen=exclude_seen,
    )


def taken(data: TrainingData, rows: Integers) -> TrainingData:
    """Return some of the interactions, once or more often."""
    return replace(
        data,
        user=data.user[rows],
        item=data.item[rows],
        kind=data.kind[rows],
        value=data.value[rows],
        occurred_at=data.occurred_at[rows],
    )


@pytest.fixture
def data() -> TrainingData:
    return shop()


@pytest.fixture
def settings() -> Settings:
    return SMALL
