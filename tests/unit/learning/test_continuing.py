"""Training on: what it keeps, and that it wins nothing by what it learned by heart."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dynrec_store.exceptions import ConfigurationError
from tests.unit.learning.conftest import shop
from workers.learning.artefact import Model
from workers.learning.continuing import check_unchanged
from workers.learning.data import Histories, TrainingData
from workers.learning.examples import next_turns
from workers.learning.fit import fit
from workers.learning.settings import Settings
from workers.learning.training import drawn

TAKES_NO_STEPS = 1e-9  # a rate


def first_model(data: TrainingData, settings: Settings, interactions: int) -> Model:
    return fit(data.before(float(data.occurred_at[interactions])), settings)


def test_training_on_keeps_what_was_learned(data: TrainingData, settings: Settings) -> None:
    first = first_model(data, settings, 600)
    more = replace(data, items=(*data.items, "newest"), content=np.vstack([data.content, data.content[:1]]))
    second = fit(more, previous=first)
    assert second.metrics["previous"]["turns"]["ndcg_at_10"] > 0
    assert len(second.items) == len(first.items) + 1
    before, after = (model.tensors["items.identity_item"][:40] for model in (first, second))
    assert torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0) > 0.5


def test_the_model_before_is_measured_by_what_it_learned(settings: Settings) -> None:
    data, settings = walks(), replace(settings, epochs=1, batch=256)
    first = first_model(data, settings, 2_000)
    known, lost = (_previous_turns(data, settings, model) for model in (first, without_transitions(first)))
    assert known > 1.1 * lost, "what it did not learn, nobody told it since"
    order = np.random.default_rng(2).permutation(41)  # of the items, one of which is new
    more = replace(data, items=(*data.items, "newest"), content=np.vstack([data.content, data.content[:1]]))
    moved = replace(
        more, items=tuple(more.items[n] for n in order), content=more.content[order], item=np.argsort(order)[more.item]
    )
    assert _previous_turns(moved, settings, first) == pytest.approx(known, rel=0.02)


def walks() -> TrainingData:
    """Return a history in which users mostly go on from item n to item n + 1."""
    random, number = np.random.default_rng(4), np.arange(3_000)
    user = number % 100
    item = np.where(random.random(3_000) < 0.8, 7 * user + number // 100, random.integers(0, 40, 3_000)) % 40
    return replace(shop(3_000, users=100), user=user, item=item, occurred_at=(number * 1_000).astype(np.float64))


def without_transitions(model: Model) -> Model:
    return replace(model, paces=tuple(replace(pace, weights=pace.weights * 0) for pace in model.paces))


def _previous_turns(data: TrainingData, settings: Settings, previous: Model) -> float:
    metrics = fit(data, replace(settings, continued_epochs=1), previous=previous).metrics
    return float(metrics["previous"]["turns"]["ndcg_at_10"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_learns_nothing_does_not_win(settings: Settings, seed: int) -> None:
    # by a ranking that is fitted to what it is measured on it would, by .04 to .07
    data = shop(3_000, users=200, seed=seed)
    first = first_model(data, settings, 2_000)
    # all that came since is foreseen: transitions learn nothing from it either
    same = fit(data, replace(settings, rate=TAKES_NO_STEPS, validated=400, validation=1 / 3), previous=first)
    for sort in ("lists", "turns"):
        assert same.metrics[sort]["ndcg_at_10"] <= same.metrics["previous"][sort]["ndcg_at_10"]


def test_what_users_began_to_do_is_learned(settings: Settings) -> None:
    before = shop(3_000, users=200)
    late = before.occurred_at >= before.occurred_at[2_000]
    changed = replace(before, item=np.where(late, (before.item + 20) % 40, before.item))  # everybody likes the others
    second = fit(changed, replace(settings, validated=400), previous=first_model(changed, settings, 2_000))
    for sort in ("lists", "turns"):
        assert second.metrics[sort]["ndcg_at_10"] > second.metrics["previous"][sort]["ndcg_at_10"]


def test_with_little_news_the_ranking_stays(settings: Settings) -> None:
    data = shop()
    first = first_model(data, settings, 860)
    second = fit(data, replace(settings, fewest_examples=24), previous=first)
    assert second.metrics["turns"]["examples"] >= 24
    assert all(torch.equal(tensor, first.ranking_tensors[name]) for name, tensor in second.ranking_tensors.items())


def test_with_hardly_any_news_everything_stays(settings: Settings) -> None:
    data = shop()
    explores = replace(settings, exploration=0.25)
    first = first_model(data, explores, 890)
    second = fit(data, replace(explores, exploration=None), previous=first)
    assert "previous" not in second.metrics
    assert second.config["exploration"] == first.config["exploration"] == 0.25
    assert all(torch.equal(tensor, first.tensors[name]) for name, tensor in second.tensors.items())


def test_other_pasts_have_another_ranking(data: TrainingData, settings: Settings) -> None:
    second = fit(data, replace(settings, companions=0), previous=first_model(data, settings, 600))
    assert len(second.config["transitions"]) == 2


def test_users_fade_in_training_as_they_do_in_serving(data: TrainingData, settings: Settings) -> None:
    others = replace(settings, decays=(0.99, 0.8, 0.4))
    second = fit(data, others, previous=first_model(data, settings, 600))
    served = [head["decay"] for head in second.config["heads"]]
    assert second.tensors["users.decays"].tolist() == pytest.approx(served)
    assert served[:3] == [0.99, 0.8, 0.4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learned", 9),
        ("content", 5),
        ("decays", (1.0, 0.9, 0.4)),
        ("content_decays", (0.9,)),
        ("numbers_rank", 3),
        ("epochs", 9),
        ("ease_items", 9),
    ],
)
def test_what_a_model_was_made_with_is_not_changed_by_training_on(settings: Settings, name: str, value: Any) -> None:
    check_unchanged(replace(settings, seed=5, rate=0.1, continued_epochs=9), settings, 7)
    shown, known = (list(each) if isinstance(each, tuple) else each for each in (value, getattr(settings, name)))
    message = f"training option {name} cannot be {shown} where training goes on from model version 7, which was made with {known}: "
    with pytest.raises(ConfigurationError, match=re.escape(message) + "leave it out.* or train anew"):
        check_unchanged(replace(settings, **{name: value}), settings, 7)


def test_half_of_what_is_learned_from_is_new_and_half_a_replay(data: TrainingData, settings: Settings) -> None:
    since = float(data.occurred_at[800])  # of 900
    turns = next_turns(Histories.of(data), -np.inf, np.inf, exclude_seen=True)
    assert np.mean(turns.moment >= since) < 0.2
    few = replace(settings, examples=60)
    shares = [np.mean(drawn(turns, few, since, np.random.default_rng(seed)).moment >= since) for seed in range(50)]
    # drawn without replacement: what is rarer runs out a little
    assert 0.4 < np.mean(shares) <= 0.5
