"""Candidates of a learned model: what no vector search finds is in a list because it follows, trends or was met before."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.conftest import Prepare
from tests.drain import Session
from tests.learned import Oracle, backfill, make_config, stage
from tests.sql.shop import KINDS, NOON, Event, Shop, open_shop

NOW = NOON + timedelta(days=40)
USER = "u1"
NEAR = 60  # of 300 items, at least, are nearer than what is looked for; for k items 3 * k are asked for by vector


def large(connection: Session) -> None:
    """Three hundred products, of which a user met eleven and others another sixty, later and more often."""
    shop = open_shop(connection)
    shop.add_products(range(13, 301))
    shop.add_events(Event(USER, str(n), NOON + timedelta(hours=n), "view") for n in range(1, 12))
    shop.add_events(
        Event(f"other {visit}", str(n), NOON + timedelta(days=20, hours=visit), "view")
        for n in range(20, 80)
        for visit in range(3)
    )
    shop.drain()


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(large).name


def alone(**changes: Any) -> dict[str, Any]:
    """A config in which vectors and the changes count, and nothing else."""
    nothing = [0.0] * 25
    quiet: dict[str, Any] = {
        "popularity_weight": nothing,
        "power": [nothing] * 5,
        "cold": nothing,
        "repeat_base": nothing,
    }
    quiet |= {"repeat_count": 0, "repeat_recency": 0, "transitions": [], "candidates": 1}
    return make_config() | quiet | changes


def promote(shop: Shop, config: dict[str, Any]) -> None:
    """Let a model with this config answer."""
    stage(shop.connection, config)
    backfill(shop.connection)
    shop.execute("select dynrec.promote_model('shop')")
    shop.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])


def oracle_of(shop: Shop, config: dict[str, Any]) -> Oracle:
    """What a model with this config should answer; all is published."""
    rows = shop.execute(
        "select item_id, embedding::text from dynrec_data.item_vector v join dynrec_data.recommender r on v.model_id = r.content_model_id"
    )
    contents = {item: np.array(text.strip("[]").split(","), dtype=float) for item, text in rows}
    return Oracle(config, contents, shop.events(), KINDS, shop.events(), list(contents))


def check(shop: Shop, oracle: Oracle, k: int, item: str, source: str) -> None:
    """The item, far from what the user's vector asks for, is in a list from that source, with its score."""
    products = oracle.products(USER, NOW)
    assert sum(product > products[item] for product in products.values()) >= NEAR
    expected: Any = (item, pytest.approx(oracle.scores(USER, NOW)[item], abs=1e-3), source)
    # by the plain reader of the model, and by the functions that a filter needs
    assert expected in shop.recommend(USER, k=k, exclude_seen=False)
    assert expected in shop.recommend(USER, k=k, exclude_seen=False, filter="true")


def test_what_follows_the_last_interactions(shop: Shop) -> None:
    config = alone(transitions=[{"decay": 0.5, "reach": 3, "by_item": False, "weights": [50.0] * 25}])
    promote(shop, config)
    oracle = oracle_of(shop, config)
    scores = oracle.scores(USER, NOW)
    best = sorted(scores, key=lambda item: -scores[item])[:5]
    met = {event.item for event in shop.events()}
    # nobody has met it: it neither trends nor comes again
    check(shop, oracle, 5, next(item for item in best if item not in met), "personal")


def test_what_trends(shop: Shop) -> None:
    config = alone(popularity_weight=[50.0] * 25)
    promote(shop, config)
    products = oracle_of(shop, config).products(USER, NOW)
    far = min(products.keys() - {event.item for event in shop.events()}, key=lambda item: products[item])
    shop.add_events(Event(f"fan {n}", far, NOW - timedelta(minutes=n), "view") for n in range(1, 9))
    shop.drain()
    check(shop, oracle_of(shop, config), 2, far, "trending")


def test_what_the_user_met_before(shop: Shop) -> None:
    config = alone(repeat_base=[50.0] * 25)
    promote(shop, config)
    oracle = oracle_of(shop, config)
    own = {event.item for event in shop.events() if event.user == USER}
    products = oracle.products(USER, NOW)
    # sixty items were met by others, later and more often: it is not among the fifty that trend
    check(shop, oracle, len(own), min(own, key=lambda item: products[item]), "repeat")
