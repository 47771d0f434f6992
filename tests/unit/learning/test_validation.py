"""What is foreseen to choose by, and when training stops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.learning.conftest import shop
from workers.learning.data import TrainingData
from workers.learning.examples import Examples
from workers.learning.fit import fit
from workers.learning.ranking import Candidates, Ranking
from workers.learning.settings import Settings
from workers.learning.validation import Best, Sort, Validation, split

HEADS, PACES, ITEMS = 5, 3, 12


def at_times(occurred_at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> TrainingData:
    return replace(shop(len(occurred_at)), occurred_at=occurred_at)


def halves(data: TrainingData, settings: Settings, not_before: float = -np.inf) -> Validation:
    period = split(data, settings, not_before)
    assert period is not None
    return period


def test_the_last_ninth_is_foreseen_from_what_came_before(data: TrainingData, settings: Settings) -> None:
    period = halves(data, settings)
    begins_at = data.occurred_at[800]
    assert len(period.before.user) == np.sum(data.occurred_at < begins_at) <= 800
    assert len(period.everything.user) == 900
    assert period.turns.moment.min() >= begins_at
    assert set(period.lists.moment) == {begins_at}
    assert begins_at + period.horizon > data.occurred_at[-1]


def test_no_more_is_looked_at_than_asked_for(data: TrainingData, settings: Settings) -> None:
    everything, some = (halves(data, replace(settings, validated=count)) for count in (10_000, 7))
    for of_all, few in zip(everything.examples, some.examples, strict=True):
        assert len(of_all) > len(few) == 7
        assert (np.diff(few.moment) >= 0).all()


def test_the_share_is_a_setting(data: TrainingData, settings: Settings) -> None:
    period = halves(data, replace(settings, validation=0.5))
    assert len(period.before.user) == np.sum(data.occurred_at < data.occurred_at[450])


def test_what_was_learned_from_before_is_not_foreseen(data: TrainingData, settings: Settings) -> None:
    since = float(data.occurred_at[850])
    assert halves(data, settings, since).turns.moment.min() == since
    early = float(data.occurred_at[100])
    assert halves(data, settings, early).turns.moment.min() == halves(data, settings).turns.moment.min()
    assert split(data, settings, float(data.occurred_at[-1]) + 1) is None


def test_of_one_moment_nothing_can_be_foreseen(settings: Settings) -> None:
    assert split(at_times(np.full(900, 5.0)), settings) is None


def test_all_of_the_last_moment_is_foreseen_together(settings: Settings) -> None:
    period = halves(at_times(np.where(np.arange(900) < 450, np.arange(900), 1e6).astype(np.float64)), settings)
    assert len(period.before.user) == 450
    assert set(period.turns.moment) == {1e6}
    assert 0 < period.horizon < 1


def test_too_little_is_not_split(data: TrainingData, settings: Settings) -> None:
    assert split(shop(199), settings) is None
    assert split(shop(200), replace(settings, fewest_examples=1)) is not None
    turns = len(halves(data, replace(settings, validated=10_000)).turns)
    assert split(data, replace(settings, fewest_examples=turns)) is not None
    assert split(data, replace(settings, fewest_examples=turns + 1)) is None
    assert split(replace(data, kind_weights=np.zeros(2, np.float32)), settings) is None


class Placing(Ranking):
    """Puts item 0 on a place, the best being 1."""

    def __init__(self, place: int) -> None:
        super().__init__(HEADS, PACES)
        self.place = place

    def forward(self, candidates: Candidates) -> Tensor:
        """Return scores (1, ITEMS)."""
        scores = -torch.arange(candidates.rates.shape[1]).float()
        scores[0] = 0.5 - self.place
        return scores[None]


def one_target() -> list[Sort]:
    """A sort of one example, whose target is item 0."""
    nothing = np.zeros(1)
    examples = Examples(
        user=nothing.astype(np.int64),
        end=nothing.astype(np.int64),
        moment=nothing,
        first=np.array([0, 1]),
        target=nothing.astype(np.int64),
        value=nothing.astype(np.float32),
        weight=np.ones(1, dtype=np.float32),
    )
    candidates = Candidates(
        context=torch.zeros(1, dtype=torch.int64),
        products=torch.zeros(1, ITEMS, HEADS + 1),
        following=torch.zeros(1, ITEMS, PACES),
        rates=torch.ones(1, ITEMS, 5),
        cold=torch.zeros(1, ITEMS, dtype=torch.bool),
        times_met=torch.zeros(1, ITEMS),
        days_since=torch.zeros(1, ITEMS),
        allowed=torch.ones(1, ITEMS, dtype=torch.bool),
        target_row=torch.zeros(1, dtype=torch.int64),
        target_column=torch.zeros(1, dtype=torch.int64),
        weight=torch.ones(1),
    )
    return [Sort("turns", examples, [(candidates, np.arange(ITEMS)[None])], np.zeros(ITEMS, dtype=np.bool_))]


@pytest.mark.parametrize(
    ("patience", "places", "best", "looked_at"),
    [
        (2, [3, 2, 5, 5, 1], 2, 4),
        (2, [5, 6, 4, 6, 6, 1], 3, 5),
        (1, [3, 4, 1], 1, 2),
        (1, [2, 2, 1], 1, 2),  # what is as good is not better
        (3, [4, 3, 2], 3, 3),
    ],
)
def test_the_best_epoch_counts_and_patience_ends(patience: int, places: list[int], best: int, looked_at: int) -> None:
    chosen, sorts, epoch = Best(patience), one_target(), 0
    rankings = [Placing(place) for place in places]
    while epoch < len(places):
        epoch += 1
        if not chosen.goes_on(epoch, rankings[epoch - 1], sorts):
            break
    assert (chosen.epoch, epoch) == (best, looked_at)
    assert chosen.ranking is rankings[best - 1]


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_where_it_makes_nothing_better(data: TrainingData, settings: Settings, patience: int) -> None:
    stages: list[str] = []
    reckless = replace(settings, epochs=6, patience=patience, rate=0.5, pull=0.0, batch=256)
    model = fit(data, reckless, progress=lambda stage, _: stages.append(stage))
    assert stages.count("training before the validation period") == min(model.metrics["epochs"] + patience, 6)
    assert stages.count("training on all data") == model.metrics["epochs"]
