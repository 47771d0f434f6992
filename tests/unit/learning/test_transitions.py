"""What follows what: against scikit-learn's ridge regression, and a user's past added up one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from tests.unit.learning.conftest import shop, taken
from workers.learning.data import Histories, TrainingData
from workers.learning.examples import Examples
from workers.learning.history import history_batch
from workers.learning.settings import Settings
from workers.learning.training import Arrays, Towers, shape_of
from workers.learning.transitions import SCALE, fit_transitions, following, reach_of

DECAY = 0.5
ALL_OF_THEM = Settings(
    learned=8, content=4, transition_decays=(DECAY,), transition_neighbours=1000, transition_penalty=3.0, companions=0
)
Matrix = NDArray[np.float64]


@pytest.fixture
def walks() -> TrainingData:
    """A shop in which item n + 1 often comes right after item n; some interactions share a moment."""
    random = np.random.default_rng(5)
    data = shop(interactions=600, users=20, items=12)
    user = np.repeat(np.arange(20), 30)
    steps = np.where(random.random(600) < 0.7, 1, random.integers(2, 9, 600))
    item = np.concatenate([np.cumsum(part) % 12 for part in np.split(steps, 20)])
    moment = np.cumsum(random.integers(0, 3, 600)).astype(np.float64)
    order = np.argsort(moment, kind="stable")
    return replace(data, user=user[order], item=item[order], occurred_at=moment[order], kind=np.ones(600, np.int64))


def past_and_next(data: TrainingData) -> tuple[Matrix, Matrix]:
    """The faded past before each interaction, and its item, one row each."""
    histories = Histories.of(data)
    past, following_ = [], []
    for user in range(len(data.users)):
        places = range(histories.start[user], histories.start[user + 1])
        for place in places:
            row = np.zeros(len(data.items))
            for earlier in range(histories.start[user], place):
                turns = histories.turn[place] - histories.turn[earlier]
                if 0 < turns <= reach_of(DECAY):
                    row[histories.item[earlier]] += DECAY ** (turns - 1)
            past.append(row)
            following_.append(np.eye(len(data.items))[histories.item[place]])
    return np.array(past), np.array(following_)


def test_the_weights_are_those_of_a_ridge_regression(walks: TrainingData) -> None:
    past, next_ = past_and_next(walks)
    expected = Ridge(alpha=3.0, fit_intercept=False).fit(past, next_).coef_.T * SCALE
    np.fill_diagonal(expected, 0)
    (pace,) = fit_transitions(walks, ALL_OF_THEM)
    np.testing.assert_allclose(pace.weights.toarray(), np.maximum(expected, 0), atol=1e-4)
    successors = (np.arange(12) + 1) % 12
    assert (pace.weights.toarray().argmax(axis=1) == successors).all()


def test_a_duplicate_counts_in_the_past_and_is_foreseen_once(walks: TrainingData) -> None:
    told_apart = replace(walks, value=np.arange(600, dtype=np.float32))
    doubled = taken(told_apart, np.repeat(np.arange(600), np.where(np.arange(600) % 7, 1, 3)))
    once = np.diff(Histories.of(doubled).value, prepend=-1) != 0
    assert once.sum() == 600
    past, next_ = past_and_next(doubled)
    expected = Ridge(alpha=3.0, fit_intercept=False).fit(past[once], next_[once]).coef_.T * SCALE
    np.fill_diagonal(expected, 0)
    (pace,) = fit_transitions(doubled, ALL_OF_THEM)
    np.testing.assert_allclose(pace.weights.toarray(), np.maximum(expected, 0), atol=1e-4)


def test_the_highest_are_kept(walks: TrainingData) -> None:
    (everything,) = fit_transitions(walks, ALL_OF_THEM)
    (few,) = fit_transitions(walks, replace(ALL_OF_THEM, transition_neighbours=2))
    weights = everything.weights.toarray()
    second = np.sort(weights, axis=1)[:, -2][:, None]
    np.testing.assert_allclose(few.weights.toarray(), np.where(weights >= second, weights, 0))


def test_only_popular_items_have_transitions(walks: TrainingData) -> None:
    (pace,) = fit_transitions(walks, replace(ALL_OF_THEM, transition_items=5))
    popular = np.argsort(-np.bincount(walks.item), kind="stable")[:5]
    assert set(np.unique(np.stack(pace.weights.nonzero()))) <= set(popular.tolist())


def test_a_past_is_added_up_with_what_its_interactions_weigh(walks: TrainingData) -> None:
    (pace,) = fit_transitions(walks, ALL_OF_THEM)
    towers = Towers(shape_of(walks), ALL_OF_THEM)
    towers.users.kind_weight.data[:] = 1.7
    arrays = Arrays.of(walks, towers)
    histories = arrays.histories
    user = np.arange(3)
    end = histories.start[1:4]
    nothing = np.zeros(3, dtype=np.float32)
    examples = Examples(user, end, np.full(3, 1e6), np.arange(4), np.zeros(3, np.int64), nothing, nothing)
    history = history_batch(histories, examples, arrays.values)
    weight = towers.users.interaction_weights(history.kind, history.value).detach().numpy()
    (found,) = following((pace,), towers.users, history, 12)
    for row in range(3):
        places = np.arange(histories.start[row], histories.start[row + 1])
        lag = histories.turn[places[-1]] - histories.turn[places]
        faded = np.where(lag < pace.past.reach, weight[places] * DECAY**lag, 0)
        expected = sum(
            one * pace.weights.toarray()[item] for one, item in zip(faded, histories.item[places], strict=True)
        )
        np.testing.assert_allclose(found[row], expected / np.sqrt(faded.sum()), rtol=1e-4)


def test_what_goes_together_is_what_ease_says(walks: TrainingData) -> None:
    settings = replace(ALL_OF_THEM, companions=5, ease_penalty=2.0)
    _, pace = fit_transitions(walks, settings)
    met = np.zeros((len(walks.users), 12))
    met[walks.user, walks.item] = 1
    inverse = np.linalg.inv(met.T @ met + 2.0 * np.eye(12))
    expected = -inverse / np.diag(inverse) * SCALE
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(pace.weights.toarray(), np.maximum(expected, 0), atol=1e-4)
    assert (pace.past.decay, pace.past.reach, pace.past.by_item) == (1.0, 5, True)


def test_each_of_the_last_items_counts_once_as_it_was_met_last(walks: TrainingData) -> None:
    settings = replace(ALL_OF_THEM, companions=5)
    _, pace = fit_transitions(walks, settings)
    data = replace(walks, kind=np.arange(600) % 2, kinds=("a", "b"), kind_weights=np.ones(2, np.float32))
    towers = Towers(shape_of(data), settings)
    towers.users.kind_weight.data[:] = torch.tensor([0.6, 1.7])
    arrays = Arrays.of(data, towers)
    histories = arrays.histories
    user, nothing = np.arange(20), np.zeros(20, dtype=np.float32)
    no_target = np.zeros(20, np.int64)
    examples = Examples(user, histories.start[1:], np.full(20, 1e6), np.arange(21), no_target, nothing, nothing)
    (found,) = following((pace,), towers.users, history_batch(histories, examples, arrays.values), 12)
    for row in range(20):
        last: dict[int, tuple[int, float]] = {}
        for place in range(histories.start[row], histories.start[row + 1]):
            key = (-int(histories.turn[place]), -[0.6, 1.7][histories.kind[place]])
            item = int(histories.item[place])
            last[item] = min(last.get(item, key), key)
        latest = sorted(last, key=lambda item: (last[item][0], item))[:5]
        weights = {item: -last[item][1] for item in latest}
        assert len(last) > len(weights), "some are out of reach"
        expected = sum(weight * pace.weights.toarray()[item] for item, weight in weights.items())
        np.testing.assert_allclose(found[row], expected / np.sqrt(sum(weights.values())), rtol=1e-4, atol=1e-6)


def test_nothing_follows_where_nothing_was_met(walks: TrainingData) -> None:
    paces = fit_transitions(walks.before(0.0), Settings())
    assert [pace.weights.nnz for pace in paces] == [0, 0, 0]
