"""A learned model made up for tests, and what SQL should make of it, computed with numpy."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.drain import Encodes, Session, as_text, claim, drain, from_text
from tests.reference import Event, Kinds
from workers.encoders.hashing import HashingEncoder

Vector = npt.NDArray[np.float64]

LEARNED, CONTENT = 4, 3
DIMENSION = LEARNED + CONTENT + 1
DECAYS = (1.0, 0.9, 0.6, 0.93, 0.4)  # of the heads
LEARNED_HEADS = 3  # the others are of content
GAP_EDGES = (3600.0, 86400.0, 604800.0, 2592000.0)
COUNT_EDGES = (1.0, 3.0, 10.0, 50.0)
HALF_LIVES = (21600.0, 86400.0, 604800.0, 2592000.0, 3153600000.0)
CONTEXTS = 25

ITEMS = """
    select v.item_id from dynrec_data.item_vector v join dynrec_data.recommender r on v.model_id = r.content_model_id
    where r.name = %s order by v.item_id
"""


def make_config(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A config with random numbers in all places."""
    rng = np.random.default_rng(seed)

    def numbers(low: float, high: float) -> list[float]:
        return [round(float(value), 4) for value in rng.uniform(low, high, CONTEXTS)]

    mixture = rng.dirichlet(np.ones(5), CONTEXTS).T
    return {
        "learned": LEARNED,
        "content": CONTENT,
        "dimension": DIMENSION,
        "heads": [{"name": f"head {n}", "decay": decay} for n, decay in enumerate(DECAYS)],
        "content_heads": len(DECAYS) - LEARNED_HEADS,
        "kind_weights": {"purchase": 1.5, "view": 0.5, "*": 0.7},
        "value": {"mean": 1.0, "scale": 2.0, "slope": 0.3},
        "gap_edges": list(GAP_EDGES),
        "count_edges": list(COUNT_EDGES),
        "gates": [numbers(0.2, 2) for _ in DECAYS],
        "bias_weight": numbers(0.5, 1.5),
        "popularity_weight": numbers(0.1, 1),
        "mixture": [[float(value) for value in row] for row in mixture],
        "power": [numbers(-0.5, 0.5) for _ in range(5)],
        "cold": numbers(-3, -1),
        "repeat_base": numbers(-1, 1),
        "repeat_count": 0.4,
        "repeat_recency": -0.2,
        "exploration": 0.0,
        "candidates": 50,
        "transitions": [
            {"decay": 0.5, "reach": 3, "weights": numbers(0.2, 2)},
            {"decay": 0.8, "reach": 6, "by_item": False, "weights": numbers(0.2, 2)},
            {"decay": 0.9, "reach": 5, "by_item": True, "weights": numbers(0.2, 2)},
        ],
    } | changes


def transition(pace: int, item: str, next_item: str) -> float:
    """How much an item follows another: any number will do, 0 for many pairs."""
    digest = hashlib.sha256(f"{pace} {item} {next_item}".encode()).digest()
    return 0.0 if item == next_item or digest[0] < 100 else digest[1] / 64


def transitions(items: Sequence[str]) -> list[dict[str, Any]]:
    """What follows each item, as a model stores it."""
    rows = [
        {
            "item_id": item,
            "pace": pace,
            "next_item_ids": [other for other in items if transition(pace, item, other)],
            "weights": [transition(pace, item, other) for other in items if transition(pace, item, other)],
        }
        for item in items
        for pace in (1, 2, 3)
    ]
    return [row for row in rows if row["weights"]]


def towers(item_id: str, content: npt.NDArray[np.floating]) -> tuple[Vector, list[Vector]]:
    """Embedding and contexts of an item, heads of content sharing one: any function of key and content vector will do."""
    digest = hashlib.sha256(item_id.encode() + content.astype(np.float32).tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    embedding, *contexts = (rng.normal(size=n) for n in (DIMENSION, LEARNED, LEARNED, LEARNED, CONTENT))
    return embedding, contexts


def stage(
    connection: Session,
    config: Mapping[str, Any] | None = None,
    recommender: str = "shop",
    base_model: int | None = None,
    *,
    continue_active: bool = False,
    options: Mapping[str, Any] = {},
    **metrics: Any,
) -> int:
    """A model that is trained, as far as the database knows; its backfill waits."""
    ((model,),) = connection.execute(
        "select dynrec.stage_model(%s, options => %s, continue_active => %s, base_model => %s)",
        [recommender, json.dumps(options), continue_active, base_model],
    ).fetchall()
    connection.execute("select dynrec._training_begins(%s)", [model])
    store(connection, model, config, recommender, **metrics)
    assert isinstance(model, int)
    return model


def store(
    connection: Session,
    model: int,
    config: Mapping[str, Any] | None = None,
    recommender: str = "shop",
    **metrics: Any,
) -> None:
    """Store what came of a training that was begun."""
    connection.execute(
        "select dynrec._store_model(%s, %s, %s, %s, '{}', '{weights}', array[%s::bytea], %s)",
        [
            model,
            DIMENSION,
            json.dumps(config or make_config()),
            json.dumps(metrics),
            b"weights",
            json.dumps(transitions([item for (item,) in connection.execute(ITEMS, [recommender]).fetchall()])),
        ],
    )


def derive(connection: Session, recommender: str, batch_size: int = 256) -> None:
    """Do what waits for the derived models."""
    while token := claim(connection, recommender, "derived", batch_size):
        derive_claimed(connection, token, recommender)


def derive_claimed(connection: Session, token: str, recommender: str = "shop", *, release: bool = True) -> None:
    """Store the vectors of a lease, and end it unless told otherwise."""
    models = "select model_id, kind, dimension from dynrec._derived_models(%s)"
    for model, kind, dimension in connection.execute(models, [recommender]).fetchall():
        if kind == "learned":
            _publish(connection, token, model)
        else:
            _publish_encoded(connection, token, model, HashingEncoder(dimension))
    if release:
        connection.execute("select dynrec._release_derived(%s)", [token])


def backfill(connection: Session, recommender: str = "shop", encoder: Encodes | None = None) -> None:
    """Do all that waits, and build the indexes: models that are trained answer in the shadow afterwards."""
    for _ in range(3):
        drain(connection, encoder)
        derive(connection, recommender)
    for (statement,) in connection.execute("select statement from dynrec._index_statements()").fetchall():
        connection.execute(str(statement).encode())
    connection.execute("select dynrec._finish_backfills()")


def _publish(connection: Session, token: str, model: int) -> None:
    rows = connection.execute(
        "select item_id, embedding::text from dynrec._read_derived(%s, %s)", [token, model]
    ).fetchall()
    embeddings: list[str | None] = []
    contexts: list[str] = []
    for item_id, text in rows:
        content = from_text(text)
        if content is None:
            embeddings.append(None)
            contexts += ["[0]"] * (LEARNED_HEADS + 1)
        else:
            embedding, of_heads = towers(item_id, content)
            embeddings.append(as_text(embedding.astype(np.float32)))
            contexts += [as_text(one.astype(np.float32)) for one in of_heads]
    connection.execute(
        "select * from dynrec._publish_derived(%s, %s, %s::text[], %s::text[]::vector[], %s::text[]::vector[])",
        [token, model, [item for item, _ in rows], embeddings, contexts],
    )


def _publish_encoded(connection: Session, token: str, model: int, encoder: Encodes) -> None:
    rows = connection.execute(
        "select item_id, content, embedding::text from dynrec._read_derived(%s, %s)", [token, model]
    ).fetchall()
    # a vector that is adopted comes with the text
    vectors = [
        adopted or (None if content is None else as_text(encoder.encode([content])[0])) for _, content, adopted in rows
    ]
    connection.execute(
        "select * from dynrec._publish_derived(%s, %s, %s::text[], %s::text[]::vector[], '{}')",
        [token, model, [item for item, *_ in rows], vectors],
    )


class Oracle:
    """What a learned model answers, from all interactions and all content vectors."""

    def __init__(
        self,
        config: Mapping[str, Any],
        contents: Mapping[str, Vector],
        events: Sequence[Event],
        kinds: Kinds,
        counted: Sequence[Event],
        trained: Collection[str],
    ) -> None:
        self._config = config
        self._items = {item: towers(item, content) for item, content in contents.items()}
        self._events = events
        self._kinds = kinds
        self._counted = counted  # in popularity: what has been published
        self._trained = trained  # items that the model was trained on

    def query(self, user: str, now: datetime) -> Vector | None:
        """What is asked for on behalf of a user; None without interactions."""
        events = sorted((event for event in self._events if event.user == user), key=lambda event: event.at)
        if not events:
            return None
        times = sorted({event.at for event in events}, reverse=True)
        context = self.context(user, now)
        parts: tuple[list[Vector], list[Vector]] = ([], [])  # learned, of content
        for head, decay in enumerate(given["decay"] for given in self._config["heads"]):
            of_content = head >= LEARNED_HEADS
            total, mass = np.zeros(CONTENT if of_content else LEARNED), 0.0
            for event in events:
                if event.item in self._items:
                    weight = self._weight(event) * decay ** times.index(event.at)
                    total = total + weight * self._items[event.item][1][min(head, LEARNED_HEADS)]
                    mass += abs(weight)
            gate = self._config["gates"][head][context]
            length = np.linalg.norm(total) if of_content else math.sqrt(mass)
            parts[of_content].append(gate * total / length if length > 0 else total)
        return np.concatenate([*(np.sum(part, axis=0) for part in parts), [self._config["bias_weight"][context]]])

    def scores(self, user: str, now: datetime) -> dict[str, float]:
        """The score of every item for a user."""
        context = self.context(user, now)
        rates = self._rates(now)
        tops = [
            float(np.mean(sorted((rate[h] for rate in rates.values()), reverse=True)[:50])) if rates else 0.0
            for h in range(5)
        ]
        return {
            item: product
            + self._popularity(rates.get(item), tops, context)
            + self._repeat(user, item, now, context)
            + self.following(user, item, now)
            for item, product in self.products(user, now).items()
        }

    def products(self, user: str, now: datetime) -> dict[str, float]:
        """The inner product of what is asked for on behalf of a user and the vector of every item."""
        query = self.query(user, now)
        if query is None:
            query = np.array([0.0] * (DIMENSION - 1) + [self._config["bias_weight"][self.context(user, now)]])
        return {item: float(query @ embedding) for item, (embedding, _) in self._items.items()}

    def context(self, user: str, now: datetime) -> int:
        """The bucket of a user at a moment, 0 to 24."""
        times = [event.at for event in self._events if event.user == user]
        gap = sum((now - max(times)).total_seconds() >= edge for edge in GAP_EDGES) if times else 4
        return 5 * gap + sum(len(times) >= edge for edge in COUNT_EDGES)

    def following(self, user: str, item: str, now: datetime, *, by_item: bool | None = None) -> float:
        """What the transitions of a user's last interactions add to an item; all, or those that count items or not."""
        return sum(self.following_each(user, item, now, by_item=by_item).values())

    def following_each(self, user: str, item: str, now: datetime, *, by_item: bool | None = None) -> dict[str, float]:
        """The part in it of each item that the user met."""
        context = self.context(user, now)
        parts: dict[str, float] = {}
        for pace, given in enumerate(self._config["transitions"], start=1):
            if by_item not in (None, given.get("by_item", False)):
                continue
            past = self._items_past(user) if given.get("by_item") else self._turns_past(user)
            faded = [(met, weight * given["decay"] ** lag) for met, weight, lag in past if lag < given["reach"]]
            factor = given["weights"][context] / math.sqrt(sum(abs(weight) for _, weight in faded) or 1.0)
            for met, weight in faded:
                if {met, item} <= set(self._trained):
                    parts[met] = parts.get(met, 0.0) + float(factor * weight * transition(pace, met, item))
        return parts

    def _turns_past(self, user: str) -> list[tuple[str, float, int]]:
        """Item and weight of each interaction, and how many turns ago."""
        events = [event for event in self._events if event.user == user]
        times = sorted({event.at for event in events}, reverse=True)
        return [(event.item, self._weight(event), times.index(event.at)) for event in events]

    def _items_past(self, user: str) -> list[tuple[str, float, int]]:
        """Each item with the weight of its last interaction, and how many items ago that was."""
        last: dict[str, tuple[int, float]] = {}
        for item, weight, turns in self._turns_past(user):
            last[item] = min(last.get(item, (turns, -weight)), (turns, -weight))
        order = sorted(last, key=lambda item: (last[item][0], item))
        return [(item, -last[item][1], place) for place, item in enumerate(order)]

    def _weight(self, event: Event) -> float:
        weights, value = self._config["kind_weights"], self._config["value"]
        factor = 1.0
        if event.value is not None:
            z = min(max((event.value - value["mean"]) / value["scale"], -2), 2)
            factor = max(0.05, 1 + value["slope"] * z)
        return float(weights.get(event.kind or "*", weights["*"])) * factor

    def _rates(self, now: datetime) -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {}
        for event in self._counted:
            wanted = self._kinds.get(event.kind or "*", self._kinds["*"]).weight > 0
            sums = rates.setdefault(event.item, [0.0] * 5)
            for slot, half_life in enumerate(HALF_LIVES):
                sums[slot] += wanted * 2.0 ** -((now - event.at).total_seconds() / half_life)
        return rates

    def _popularity(self, rates: list[float] | None, tops: Sequence[float], context: int) -> float:
        if rates is None:
            return float(self._config["cold"][context])
        shares = [(rate + 0.5) / (top + 0.5) for rate, top in zip(rates, tops, strict=True)]
        mixed = sum(mixture[context] * share for mixture, share in zip(self._config["mixture"], shares, strict=True))
        powers = sum(
            power[context] * math.log(share) for power, share in zip(self._config["power"], shares, strict=True)
        )
        return float(self._config["popularity_weight"][context]) * math.log(mixed) + float(powers)

    def _repeat(self, user: str, item: str, now: datetime, context: int) -> float:
        times = [event.at for event in self._events if (event.user, event.item) == (user, item)]
        if not times:
            return 0.0
        days = (now - max(times)).total_seconds() / 86400
        return float(
            self._config["repeat_base"][context]
            + self._config["repeat_count"] * math.log(1 + len(times))
            + self._config["repeat_recency"] * math.log(1 + days)
        )
