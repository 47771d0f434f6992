"""The user tower's two ways to the same result."""

import numpy as np
import torch

from workers.learning.data import Histories, TrainingData
from workers.learning.examples import Examples
from workers.learning.history import ValueScale, history_batch
from workers.learning.settings import Settings
from workers.learning.towers import UserState, normalised
from workers.learning.training import Arrays, Towers, shape_of


def unsettled(data: TrainingData, settings: Settings) -> Towers:
    """Return towers whose every parameter is random."""
    torch.manual_seed(1)
    towers = Towers(shape_of(data), settings).eval()
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.normal_(std=0.5)
        towers.users.kind_weight.copy_(torch.tensor([0.3, -1.2]))
        towers.items.components.normal_()
    return towers


@torch.no_grad()
def test_an_update_for_each_interaction_ends_where_the_full_pass_does(data: TrainingData, settings: Settings) -> None:
    towers = unsettled(data, settings)
    arrays = Arrays.of(data, towers)
    items = arrays.vectors(towers, 0.0)
    tables = towers.users.head_contexts(items)
    histories, values = Histories.of(data), ValueScale.of(data)
    users = np.arange(len(data.users))
    everybody = Examples(
        user=users,
        end=histories.start[1:],
        moment=np.full(len(users), 1e9),
        first=np.arange(len(users) + 1),
        target=users,
        value=np.zeros(len(users), dtype=np.float32),
        weight=np.ones(len(users), dtype=np.float32),
    )
    whole = towers.users.full_pass(items, history_batch(histories, everybody, values))
    for user in users:
        state = towers.users.fresh()
        for place in range(histories.start[user], histories.start[user + 1]):
            state = updated(towers, state, tables, histories, values, place)
        learned, content = list(state.sums[: len(settings.decays)]), list(state.sums[len(settings.decays) :])
        for head, expected in zip(normalised(learned, list(state.weights), content), whole, strict=True):
            torch.testing.assert_close(head, expected[user], rtol=1e-4, atol=1e-4)


def updated(
    towers: Towers, state: UserState, tables: list[torch.Tensor], histories: Histories, values: ValueScale, place: int
) -> UserState:
    kind = torch.tensor([int(histories.kind[place])])
    value = torch.from_numpy(values.standard(histories.value[place : place + 1]))
    weight = float(towers.users.interaction_weights(kind, value))
    contexts = [table[histories.item[place]] for table in tables]
    return towers.users.update(state, contexts, weight, float(histories.occurred_at[place]))


def test_interactions_at_one_time_are_one_turn(data: TrainingData, settings: Settings) -> None:
    towers = unsettled(data, settings)
    contexts = [torch.ones(settings.learned)] * 3 + [torch.ones(settings.content)]
    together = towers.users.update(towers.users.update(towers.users.fresh(), contexts, 1.0, 5.0), contexts, 1.0, 5.0)
    apart = towers.users.update(towers.users.update(towers.users.fresh(), contexts, 1.0, 5.0), contexts, 1.0, 6.0)
    assert together.weights.tolist() == [2.0] * 5
    torch.testing.assert_close(apart.weights, 1 + torch.tensor(settings.head_decays))
