"""The whole fit on small data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.learning.conftest import shop
from workers.learning.artefact import Model, from_artefacts, to_artefacts
from workers.learning.data import Floats, TrainingData
from workers.learning.examples import CONTEXTS
from workers.learning.fit import fit
from workers.learning.serving import ItemServer, transitions_of
from workers.learning.settings import Settings


@pytest.fixture(scope="module")
def model() -> Model:
    return fit(
        shop(), Settings(learned=8, content=4, epochs=2, batch=32, recent=8, older=8, ease_penalty=5.0, validated=100)
    )


def test_two_fits_are_equal(data: TrainingData, settings: Settings, model: Model) -> None:
    again = fit(data, settings)
    assert again.config == model.config
    assert again.metrics == model.metrics
    assert all(torch.equal(tensor, model.tensors[name]) for name, tensor in again.tensors.items())


def test_an_artefact_gives_the_same_model(model: Model) -> None:
    read = from_artefacts(to_artefacts(model))
    assert all(torch.equal(tensor, model.tensors[name]) for name, tensor in read.tensors.items())
    assert all(torch.equal(tensor, model.ranking_tensors[name]) for name, tensor in read.ranking_tensors.items())
    assert transitions_of(read) == transitions_of(model)
    assert _but_tensors(read) == _but_tensors(model)


def test_a_model_of_before_stays_what_it_is(data: TrainingData, settings: Settings) -> None:
    model = fit(data, replace(settings, content_decays=(0.93,), companions=0))
    files = to_artefacts(model)
    description = json.loads(files["model.json"])
    description["settings"]["content_decay"] = description["settings"].pop("content_decays")[0]
    del description["settings"]["companions"]
    read = from_artefacts({**files, "model.json": json.dumps(description).encode()})
    assert read.settings == model.settings
    assert read.towers().users.gates().equal(model.towers().users.gates())
    assert fit(data, previous=read).settings == model.settings, "training on keeps its heads"
    assert transitions_of(read) == transitions_of(model)


def _but_tensors(model: Model) -> Model:
    return replace(model, tensors={}, ranking_tensors={}, paces=())


def test_the_config_has_a_number_for_each_context(model: Model) -> None:
    config = model.config
    assert [head["name"] for head in config["heads"]] == ["long", "middle", "short", "content", "recent_content"]
    tables = [*config["gates"], config["bias_weight"], config["popularity_weight"], *config["mixture"], config["cold"]]
    assert all(len(table) == CONTEXTS for table in tables)
    np.testing.assert_allclose(np.sum(config["mixture"], axis=0), 1, rtol=1e-5)
    assert set(config["kind_weights"]) == {"view", "purchase", "*"}


def test_the_model_is_better_than_popularity_where_users_differ(model: Model) -> None:
    assert model.metrics["turns"]["ndcg_at_10"] > model.metrics["turns"]["popularity"]


def test_an_item_alone_gets_the_vectors_that_it_gets_among_others(model: Model, data: TrainingData) -> None:
    server = ItemServer(model)
    codes = np.zeros((len(data.items), 0), dtype=np.int64)
    batch = server.derive(data.items, data.content, codes, None)
    for row, item in enumerate(data.items):
        alone = server.derive([item], data.content[row : row + 1], codes[:1], None)
        np.testing.assert_allclose(alone.embeddings[0], batch.embeddings[row], atol=1e-6)
        for one, all_of_them in zip(alone.contexts, batch.contexts, strict=True):
            np.testing.assert_allclose(one[0], all_of_them[row], atol=1e-6)


def test_an_item_that_nobody_met_lies_near_its_like(model: Model, data: TrainingData) -> None:
    half = len(data.items) // 2
    new = data.content[:half].mean(axis=0, keepdims=True)
    server = ItemServer(model)
    found = server.derive(["new"], new, np.zeros((1, 0), dtype=np.int64), None).embeddings
    known = server.derive(data.items, data.content, np.zeros((len(data.items), 0), dtype=np.int64), None).embeddings
    assert np.isfinite(found).all()
    similarity = (known[:, :-1] @ found[0, :-1]) / np.linalg.norm(known[:, :-1], axis=1)
    assert similarity[:half].mean() > similarity[half:].mean()


def test_unknown_content_gives_finite_vectors(model: Model) -> None:
    derived = ItemServer(model).derive(
        ["blank"], np.zeros((1, 16), dtype=np.float32), np.zeros((1, 0), dtype=np.int64), None
    )
    assert not derived.embeddings.any()


@pytest.mark.parametrize("interactions", [0, 1, 20, 250])
def test_little_data_is_no_error(settings: Settings, interactions: int) -> None:
    found = fit(shop(interactions), settings)
    vectors = ItemServer(found).derive(shop().items, shop().content, np.zeros((40, 0), dtype=np.int64), None)
    assert np.isfinite(vectors.embeddings).all()
    assert from_artefacts(to_artefacts(found)).config == found.config


def test_items_that_may_come_again_get_a_repeat_term(settings: Settings) -> None:
    found = fit(shop(exclude_seen=False), settings)
    assert any(found.config["repeat_base"])


def test_a_large_catalogue_is_learned_from_samples(data: TrainingData, settings: Settings) -> None:
    found = fit(data, replace(settings, full_softmax=10, negatives=8))
    assert found.metrics["turns"]["ndcg_at_10"] > found.metrics["turns"]["popularity"]


def test_further_tasks_share_the_towers_when_switched_on(data: TrainingData, settings: Settings, model: Model) -> None:
    labelled = replace(data, codes=(np.arange(len(data.items))[:, None] >= len(data.items) // 2) + 1)
    found = fit(labelled, replace(settings, value_task=0.5, category_task=0.5))
    assert found.tensors["tasks.value"].any()
    assert found.tensors["tasks.category"].any()
    assert not model.tensors["tasks.value"].any()
    assert not torch.equal(found.tensors["items.identity_item"], model.tensors["items.identity_item"])


def test_numbers_of_items_are_learned_from(data: TrainingData, settings: Settings) -> None:
    numbers = np.random.default_rng(3).normal(size=(len(data.items), 2)).astype(np.float32)
    found = fit(replace(data, numerics=((0.0, numbers),)), settings)
    assert found.tensors["items.numbers_out"].any()
    server, codes = ItemServer(found), np.zeros((2, 0), dtype=np.int64)
    pair = np.array([[0.0, 0.0], [3.0, -3.0]], dtype=np.float32)
    derived = server.derive(["item 1", "item 1"], data.content[[1, 1]], codes, pair)
    assert not np.allclose(derived.embeddings[0], derived.embeddings[1])
    assert all(np.array_equal(context[0], context[1]) for context in derived.contexts)


def test_numbers_that_move_with_time_move_no_bias(data: TrainingData, settings: Settings) -> None:
    numbers = np.random.default_rng(3).normal(size=(len(data.items), 2)).astype(np.float32)
    found = fit(replace(data, numerics=((0.0, numbers),)), settings)
    now, later = (_embeddings(found, data, numbers + grown) for grown in (0, 3))
    np.testing.assert_array_equal(now[:, -1], later[:, -1])
    assert not np.allclose(now[:, :-1], later[:, :-1])


def test_a_model_of_before_has_numbers_in_its_bias(data: TrainingData, settings: Settings) -> None:
    numbers = np.ones((len(data.items), 2), dtype=np.float32)
    found = fit(replace(data, numerics=((0.0, numbers),)), settings)
    before = replace(found, tensors=found.tensors | {"items.numbers_bias": torch.tensor([0.5, 2.0])})
    read = from_artefacts(to_artefacts(before))
    moved = _embeddings(read, data, numbers)[:, -1] - _embeddings(found, data, numbers)[:, -1]
    np.testing.assert_allclose(moved, 2.5, rtol=1e-5)
    assert fit(data=replace(data, numerics=((0.0, numbers),)), previous=read).tensors["items.numbers_bias"].any()


def _embeddings(model: Model, data: TrainingData, numbers: Floats) -> Floats:
    codes = np.zeros((len(data.items), 0), dtype=np.int64)
    return ItemServer(model).derive(data.items, data.content, codes, numbers).embeddings
