"""Training of the towers: where it stops, and what it keeps."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from tests.unit.learning.conftest import taken
from workers.learning.data import Earlier, TrainingData
from workers.learning.examples import Examples
from workers.learning.fit import new_towers
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Course, Towers, epoch_examples, train

HORIZON = 86_400.0


def trained(data: TrainingData, settings: Settings, epochs: int, stop_after: int | None = None) -> Towers:
    towers = new_towers(data, settings)
    train(towers, Arrays.of(data, towers), settings, Course(epochs, 4, HORIZON), lambda done: done != stop_after)
    return towers


def test_items_are_seen_as_they_were(data: TrainingData, settings: Settings) -> None:
    labelled = replace(data, codes=np.ones((len(data.items), 1), dtype=np.int64))
    none, last = np.zeros(0, dtype=np.int64), float(data.occurred_at[-1])
    changed = Earlier(100.0, np.array([3]), data.content[20:21], np.array([[2]]))
    relabelled = Earlier(200.0, np.array([3]), data.content[3:4], np.array([[2]]))
    now = Earlier(last, none, data.content[:0], labelled.codes[:0])
    seen = replace(
        labelled, codes=labelled.codes + (np.arange(len(data.items)) == 0)[:, None], earlier=(changed, relabelled, now)
    )
    towers = new_towers(seen, settings)
    with torch.no_grad():
        towers.items.label_item[0].copy_(torch.arange(3.0)[:, None].expand_as(towers.items.label_item[0]))
    arrays = Arrays.of(seen, towers)

    def of(row: int, moment: float) -> torch.Tensor:
        vectors = arrays.vectors(towers, moment, torch.zeros(len(data.items)))
        return torch.cat([vectors.item[row], vectors.content[row]])

    assert torch.equal(of(3, 0.0), of(3, 150.0)), "before the first moment as at that one"
    assert torch.equal(of(3, 150.0)[8:], of(20, last)[8:]), "another content"
    torch.testing.assert_close(of(3, 250.0)[:8], of(3, last)[:8] + 1)  # another label
    assert torch.equal(of(3, 250.0)[8:], of(3, last)[8:])
    assert torch.equal(of(5, 0.0), of(5, last))


def asked(data: TrainingData, settings: Settings) -> tuple[Examples, Examples]:
    return epoch_examples(Arrays.of(data, new_towers(data, settings)), settings, HORIZON)


def test_what_is_told_twice_is_part_of_histories_and_foreseen_once(data: TrainingData, settings: Settings) -> None:
    doubled = taken(data, np.repeat(np.arange(900), 2))
    for once, twice in zip(asked(data, settings), asked(doubled, settings), strict=True):
        for name in ("user", "moment", "first", "target", "value", "weight"):
            np.testing.assert_array_equal(getattr(twice, name), getattr(once, name))
        np.testing.assert_array_equal(twice.end, 2 * once.end)


def test_a_few_of_long_ago_do_not_draw_the_snapshots_to_them(data: TrainingData, settings: Settings) -> None:
    aged = replace(data, occurred_at=np.where(np.arange(900) < 5, -3e8, data.occurred_at))
    _, expected = asked(data, settings)
    _, snapshots = asked(aged, settings)
    assert len(snapshots) > 0.9 * len(expected)


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
