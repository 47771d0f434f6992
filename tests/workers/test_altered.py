"""Columns come and go while models live: each reads those that it knows, and lacks those that are gone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pgvector.psycopg import register_vector

from dynrec_store import models, queue
from dynrec_store.models import DerivedRow
from dynrec_store.settings import Settings
from tests.conftest import Prepare
from tests.workers.support import Connection, fresh, until
from tests.workers.worded import let_a_model_answer, worded_shop
from workers.inprocess import running
from workers.learning.derivation import ItemVectors
from workers.learning.features import FeatureMaker
from workers.learning.run import train
from workers.learning.source import FEATURES

QUICK = {"epochs": 1, "continued_epochs": 1}
NEW_LAMP: dict[str, object] = {
    "price": 1.0,
    "price_relative": 0.0,
    "sort": "lamp",
    "stock": 40.0,
    "stock_relative": 0.0,
    "colour": "red",
}


def begin(connection: Connection) -> int:
    """The shop with two columns more than are declared, and the model that answers."""
    worded_shop(connection)
    connection.execute("alter table products add stock int, add colour text")
    connection.execute("update products set stock = price * 7 + length(title), colour = split_part(title, ' ', 1)")
    return let_a_model_answer(connection, QUICK)


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(begin).name


@pytest.fixture
def first(prepared: Prepare) -> int:
    """The number of the model that answers."""
    model: int = prepared(begin).made
    return model


@pytest.fixture
def shop(connection: Connection) -> Connection:
    register_vector(connection)
    return connection


@dataclass(frozen=True)
class Trained:
    """A model and what it was stored with."""

    files: dict[str, bytes]
    model: int
    base: int

    @property
    def names(self) -> list[str]:
        """The features that it reads."""
        return [name for name, _ in FeatureMaker.from_bytes(self.files[FEATURES]).names]

    def makes(self, connection: Connection, item: str, features: Mapping[str, object]) -> np.ndarray:
        """What it makes of an item that nobody has met and that has these features, the others missing."""
        ((content,),) = connection.execute(
            "select embedding from dynrec_data.item_vector where model_id = %s and item_id = %s", [self.base, item]
        ).fetchall()
        unmet: dict[str, object] = {name: 0.0 for name in self.names if name.startswith("popularity")}
        given: list[Any] = [(unmet | {**features}).get(name) for name in self.names]
        numbers = [value for value, name in zip(given, self.names, strict=True) if name not in ("sort", "colour")]
        labels = [value for value, name in zip(given, self.names, strict=True) if name in ("sort", "colour")]
        row = DerivedRow(item, None, content, numbers, labels, self.names)
        embeddings, _ = ItemVectors(self.model, self.files).derive([row])
        return np.asarray(embeddings[0])


def trained(connection: Connection, database_url: str, model: int) -> Trained:
    ((base,),) = connection.execute(
        "select base_model_id from dynrec_data.model_version where id = %s", [model]
    ).fetchall()
    with queue.connect(database_url, application_name="test") as session:
        return Trained(models.artefacts(session, model), model, base)


def live(connection: Connection, model: int, item: str) -> np.ndarray:
    ((vector,),) = connection.execute(
        "select embedding from dynrec_data.item_vector where model_id = %s and item_id = %s", [model, item]
    ).fetchall()
    return np.asarray(vector.to_numpy())


def state(connection: Connection, model: int) -> str:
    ((state,),) = connection.execute("select state from dynrec.model_versions where model_version = %s", [model])
    return str(state)


@pytest.mark.parametrize(
    ("numbers", "labels", "gone", "come"),
    [
        ("{stock,price}", "{colour,sort}", set(), {"stock", "colour"}),
        ("{}", "{}", {"price", "sort"}, set()),
        ("{stock}", "{colour}", {"price", "sort"}, {"stock", "colour"}),
    ],
    ids=["more", "less", "others"],
)
def test_a_live_model_outlives_an_alteration(
    shop: Connection,
    first: int,
    settings: Settings,
    database_url: str,
    numbers: str,
    labels: str,
    gone: set[str],
    come: set[str],
) -> None:
    with running(settings, database_url):
        shop.execute(
            "select dynrec.alter_recommender('shop', numeric_columns => %s, categorical_columns => %s)",
            [numbers, labels],
        )
        shop.execute("insert into products values ('the-lamp', 'grey lamp', 'lamp', 1, 40, 'red')")
        assert fresh(shop)

        before = trained(shop, database_url, first)
        left = {name: value for name, value in NEW_LAMP.items() if name.removesuffix("_relative") not in gone}
        served = live(shop, first, "the-lamp")
        np.testing.assert_allclose(served, before.makes(shop, "the-lamp", left), atol=1e-6)
        for name in gone:
            known = left | {name: NEW_LAMP[name]}
            assert np.abs(served - before.makes(shop, "the-lamp", known)).max() > 1e-4, name

        second = train(settings, database_url, "shop", options=QUICK)
        until(lambda: state(shop, second) == "shadow")
        after = trained(shop, database_url, second)
        assert come <= set(after.names)
        assert not gone & set(after.names)
        served = live(shop, second, "the-lamp")
        np.testing.assert_allclose(served, after.makes(shop, "the-lamp", left), atol=1e-6)
        for name in come:
            unknown = {other: value for other, value in left.items() if other != name}
            assert np.abs(served - after.makes(shop, "the-lamp", unknown)).max() > 1e-4, name

        third = train(settings, database_url, "shop", options=QUICK, continue_active=True)
        until(lambda: state(shop, third) in ("shadow", "active"))
        on = trained(shop, database_url, third)
        assert on.names == before.names
        np.testing.assert_allclose(live(shop, third, "the-lamp"), on.makes(shop, "the-lamp", left), atol=1e-6)
        assert fresh(shop)
