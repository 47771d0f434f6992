"""The whole way of a shop whatever its names and values are: recommend, explain, look back, log, judge, export, forget."""

import json
from typing import Any

from psycopg.types.json import Jsonb

from tests.sql.shop import Shop


def travel(shop: Shop, user: str, item: str) -> None:
    """Every public step for a user and an item that the shop has, with what has to come of it."""
    known = {row[0] for row in shop.execute(shop.items)}
    _read(shop, user, item, known)
    _look_back(shop, user, item)
    _judge(shop, user, item)
    _forget(shop, user, known)


def _read(shop: Shop, user: str, item: str, known: set[str]) -> None:
    listed = [key for key, _, source in shop.recommend(user, k=1_000, exclude_seen=False) if source != "fallback"]
    assert set(listed) == known
    assert {key for key, _, _ in shop.call("similar_items", item=item, k=1_000)} == known - {item}
    assert item not in {key for key, _, _ in shop.recommend(user, k=1_000, exclude_items=[item])}
    assert {key for key, _, _ in shop.call("trending", k=1_000)} == known
    assert item in {key for key, _, _ in shop.call("recommend_for_items", item_ids=["no such item"], k=1_000)}
    shop.call("search", query="item")
    contributions = shop.execute(
        "select because_item_id, contribution from dynrec.explain(%s, %s, %s, k => 1000)", [shop.name, user, item]
    )
    assert {key for key, _ in contributions} <= known
    score = next(score for key, score, _ in shop.recommend(user, k=1_000, exclude_seen=False) if key == item)
    assert abs(sum(part for _, part in contributions) - score) < 1e-3


def _look_back(shop: Shop, user: str, item: str) -> None:
    assert shop.execute("select is_current from dynrec.item_history(%s, %s)", [shop.name, item])[-1:] == [(True,)]
    assert shop.value("select dynrec.user_vector_at(%s, %s, now()) is not null", [shop.name, user])
    shop.execute("select * from dynrec.drift(%s, %s)", [shop.name, item])
    shop.execute("select * from dynrec.item_features_at(%s, %s)", [shop.name, item])
    shop.execute("select * from dynrec.user_features_at(%s, %s)", [shop.name, user])
    assert (
        shop.execute("select * from dynrec.recommend(%s, %s, as_of => now() - interval '1 year')", [shop.name, user])
        == []
    )


def _judge(shop: Shop, user: str, item: str) -> None:
    shown = Jsonb([{"user_id": user, "item_ids": [item], "surface": user, "experiment": item, "arm": user[:200]}])
    assert shop.value("select dynrec.log_impressions(%s, %s)", [shop.name, shown]) == 1
    hour = [shop.name, *shop.execute("select now() - interval '1 hour', now() + interval '1 hour'")[0]]
    metrics = "select surface, experiment, arm, impressions from dynrec.online_metrics(%s, %s, %s, by => '{surface,experiment,arm}')"
    assert (user, item, user[:200], 1) in shop.execute(metrics, hour)
    moments = [shop.name, *shop.execute("select now(), now() + interval '1 hour'")[0]]
    shop.execute("select * from dynrec.evaluate(%s, %s, %s)", moments)
    shop.execute("select * from dynrec.training_examples(%s, %s, %s) limit 10", hour)
    shop.execute("select * from dynrec.data_drift(%s)", [shop.name])
    shop.value("select dynrec.watch(%s)", [shop.name])
    shop.execute("select * from dynrec.status, dynrec.freshness, dynrec.alerts")
    assert shop.execute("select * from dynrec.failures") == []


def _forget(shop: Shop, user: str, known: set[str]) -> None:
    held: dict[str, Any] = shop.value("select dynrec.export_user(%s, %s)", [shop.name, user])
    assert (held["user_id"], len(held["held"]["vectors"]), len(held["held"]["impressions"])) == (user, 1, 1)
    receipt = shop.value("select dynrec.forget_user(%s, %s)::text", [shop.name, user])
    assert json.loads(receipt)["removed"]["vectors"] == 1
    assert shop.value("select dynrec.verify_forgotten(%s, %s, %s::jsonb)", [shop.name, user, receipt])
    shop.drain()
    assert "personal" not in {source for _, _, source in shop.recommend(user, k=1_000)}
    assert {key for key, _, _ in shop.recommend(user, k=1_000)} == known
