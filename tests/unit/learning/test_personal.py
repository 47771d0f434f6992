"""Whether a model listens to its heads, by whether users differ in what they take."""

from dataclasses import replace

import numpy as np

from tests.unit.learning.conftest import shop
from workers.learning.data import TrainingData
from workers.learning.fit import fit
from workers.learning.settings import Settings


def alike() -> TrainingData:
    """Return a history in which everybody takes what is popular, and nobody anything by what was taken before."""
    random = np.random.default_rng(5)
    data = shop(6_000, users=400)
    chance = 1 / np.arange(1, len(data.items) + 1)
    return replace(data, item=random.choice(len(data.items), len(data.item), p=chance / chance.sum()))


def test_where_all_are_alike_popularity_is_all_there_is(settings: Settings) -> None:
    model = fit(alike(), replace(settings, validated=400))
    assert model.metrics["personal"] is False
    assert not np.any(model.config["gates"])
    assert not np.any([pace["weights"] for pace in model.config["transitions"]])
    assert np.all(model.config["popularity_weight"])


def test_where_users_differ_their_past_counts(settings: Settings) -> None:
    model = fit(shop(), settings)
    assert model.metrics["personal"] is True
    assert np.all(model.config["gates"][0])
