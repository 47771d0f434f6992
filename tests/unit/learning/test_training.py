"""Training of the towers: where it stops, and what it keeps."""

from dataclasses import replace
from itertools import pairwise

import torch

from workers.learning.data import TrainingData
from workers.learning.fit import new_towers
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Course, Towers, train

HORIZON = 86_400.0


def trained(data: TrainingData, settings: Settings, epochs: int, stop_after: int | None = None) -> Towers:
    towers = new_towers(data, settings)
    train(towers, Arrays.of(data, towers), settings, Course(epochs, 4, HORIZON), lambda done: done != stop_after)
    return towers


def test_a_course_that_stops_early_is_a_shorter_course(data: TrainingData, settings: Settings) -> None:
    stopped, short = trained(data, settings, 4, stop_after=2), trained(data, settings, 2)
    assert all(torch.equal(tensor, short.state_dict()[name]) for name, tensor in stopped.state_dict().items())


def test_the_mean_goes_a_shorter_way_than_what_is_learned(data: TrainingData, settings: Settings) -> None:
    learned, mean = (_way(data, replace(settings, averaging=averaging)) for averaging in (0.0, settings.averaging))
    assert 0 < mean < learned


def _way(data: TrainingData, settings: Settings) -> float:
    towers = new_towers(data, settings)
    places = [towers.items.identity_item.detach().clone()]

    def after_epoch(_: int) -> bool:
        places.append(towers.items.identity_item.detach().clone())
        return True

    train(towers, Arrays.of(data, towers), settings, Course(3, 3, HORIZON), after_epoch)
    return sum(float((after - before).norm()) for before, after in pairwise(places))
