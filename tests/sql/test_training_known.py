"""Training examples of histories that came late, were taken back, and met items that changed: each as it was known at its moment."""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.drain import from_text
from tests.learned import Oracle, backfill, make_config, stage
from tests.reference import Event, Vector, user_vector
from tests.sql.shop import KINDS, Shop, title
from tests.sql.test_features import assert_like, features_at, popularity
from tests.sql.test_training_examples import Example, example_of, examples, happens

LATER = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)


@dataclass
class Journal:
    """What a test did to a shop, and when."""

    shop: Shop
    events: dict[int, tuple[Event, datetime, datetime | None]] = field(default_factory=dict)  # came, went
    published: list[tuple[datetime, dict[str, Vector]]] = field(default_factory=list)  # content vectors from then on
    late: set[datetime] = field(default_factory=set)  # moments that passed while something else was being done

    def now(self) -> datetime:
        moment: datetime = self.shop.value("select clock_timestamp()")
        return moment

    def insert(self, user: str, item: str, kind: str | None, ago: timedelta = timedelta(0)) -> None:
        """An interaction that is told of so long after it happened."""
        number, at = self.shop.execute(
            "insert into shop.events (user_id, item_id, kind, occurred_at) values (%s, %s, %s, clock_timestamp() - %s) returning id, occurred_at",
            [user, item, kind, ago],
        )[0]
        self.events[number] = (Event(user, item, at, kind), self.now(), None)
        if ago:
            self.late.add(at)

    def take_back(self, number: int) -> None:
        event, came, _ = self.events[number]
        self.shop.execute("delete from shop.events where id = %s", [number])
        self.events[number] = (event, came, self.now())

    def drain(self) -> None:
        """Let the workers do what waits, for all models."""
        backfill(self.shop.connection)
        rows = self.shop.execute(
            "select v.item_id, v.embedding::text from dynrec_data.item_vector v join dynrec_data.recommender r on v.model_id = r.content_model_id"
        )
        vectors = {item: from_text(text) for item, text in rows}
        self.published.append((self.now(), {item: one for item, one in vectors.items() if one is not None}))

    def known(self, moment: datetime) -> list[Event]:
        """What had come and not gone, and happened before."""
        return [
            event
            for event, came, went in self.events.values()
            if event.at < moment and came <= moment and (went is None or went > moment)
        ]

    def vectors(self, moment: datetime) -> dict[str, Vector]:
        return self.published[bisect_right([at for at, _ in self.published], moment) - 1][1]


def lived(shop: Shop, random: Random) -> Journal:
    """Two users meet items that change, disappear and come back; some of it is told late, some is taken back."""
    journal = Journal(shop)
    journal.drain()
    for step in range(70):
        user, item = f"u{random.random() < 0.2:d}", str(random.randrange(1, 9))
        journal.insert(user, item, random.choice(["view", "purchase", "return", None]))
        if step % 9 == 4:
            journal.insert(
                user, str(random.randrange(1, 9)), "view", random.choice([SECOND, 9 * SECOND]) * random.random()
            )
        if step % 13 == 6:
            journal.take_back(random.choice([number for number, (*_, went) in journal.events.items() if went is None]))
        if step % 11 == 7:
            shop.execute("update shop.products set title = %s, price = price + 1 where id = %s", [title(step), item])
        if step in (30, 50):
            shop.execute("delete from shop.products where id = 3")
        if step == 40:
            shop.add_products([3])
        if step % 5 == 0:
            journal.drain()
    return journal


def in_time(journal: Journal) -> list[Example]:
    """The examples of moments of which the journal knows what was known."""
    return [row for row in examples(journal.shop, journal.published[0][0]) if row["occurred_at"] not in journal.late]


def assert_near(found: str | None, expected: npt.NDArray[Any] | None) -> None:
    vector = from_text(found)
    assert (vector is None) == (expected is None)
    if vector is not None and expected is not None:
        assert np.abs(vector - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


def test_a_long_history_is_what_was_known_at_each_moment(shop: Shop) -> None:
    journal = lived(shop, Random(3))
    rows = in_time(journal)
    assert len(rows) > 50
    for row in rows:
        at, known = row["occurred_at"], journal.known(row["occurred_at"])
        own = [event for event in known if event.user == row["user_id"]]
        assert_near(row["user_vector"], user_vector(own, journal.vectors(at), KINDS))
        assert row["user_features"]["event_count"] == len(own)
        assert row["user_features"]["distinct_items"] == len({event.item for event in own})
        assert row["user_features"]["count_view"] == sum(event.kind == "view" for event in own)
        times = [(at - event.at) / timedelta(days=1) for event in own]
        assert row["user_features"]["days_since_last"] == pytest.approx(min(times, default=None))
        assert row["user_features"]["days_since_first"] == pytest.approx(max(times, default=None))
        if row["item_features"] is not None:
            assert_like(row["item_features"], popularity(known, row["item_id"], at))


def test_a_long_history_in_a_learned_space(shop: Shop) -> None:
    config = make_config()
    for item in range(1, 9):
        happens(shop, "w", item)
    stage(shop.connection, config)
    backfill(shop.connection)
    shop.execute("select dynrec.promote_model('shop')")
    journal = lived(shop, Random(4))
    for row in in_time(journal):
        at = row["occurred_at"]
        own = [event for event in journal.known(at) if event.user == row["user_id"]]
        contents = {item: vector.astype(np.float64) for item, vector in journal.vectors(at).items()}
        met = any(event.item in contents for event in own)
        query = Oracle(config, contents, own, KINDS, [], []).query(row["user_id"], at) if met else None
        assert_near(row["user_vector"], query)


def counts(features: dict[str, Any]) -> dict[str, Any]:
    """Those that interactions make."""
    return {
        name: value
        for name, value in features.items()
        if name.startswith(("popularity", "age", "event", "distinct", "days", "count"))
    }


@pytest.mark.parametrize("published", [True, False])
def test_what_is_told_late_was_not_known(shop: Shop, published: bool) -> None:
    journal = Journal(shop)
    happens(shop, "u", 1)
    happens(shop, "w", 2)
    moment = happens(shop, "u", 2)
    before = example_of(shop, moment)
    after = journal.now()
    reads = {entity: features_at(shop, entity, key, after) for entity, key in (("item", "2"), ("user", "u"))}
    late = journal.now() - moment + SECOND
    for user in ("u", "v"):
        journal.insert(user, "2", "purchase", late)
    if published:
        shop.drain()
    assert example_of(shop, moment) == before
    for entity, key in (("item", "2"), ("user", "u")):
        assert counts(features_at(shop, entity, key, after)) == pytest.approx(counts(reads[entity])), entity
        assert features_at(shop, entity, key) != pytest.approx(reads[entity])
    # those who take interactions as known when they occurred see them
    assert example_of(shop, moment, backdated=True)["item_features"]["age_days"] > before["item_features"]["age_days"]
    assert example_of(shop, moment, backdated=True)["user_features"]["event_count"] == 2


@pytest.mark.parametrize("published", [True, False])
def test_what_is_taken_back_was_known(shop: Shop, published: bool) -> None:
    first = happens(shop, "u", 2)
    happens(shop, "w", 2)
    moment = happens(shop, "u", 2)
    before = example_of(shop, moment)
    after = shop.value("select clock_timestamp()")
    reads = {entity: features_at(shop, entity, key, after) for entity, key in (("item", "2"), ("user", "u"))}
    shop.execute("delete from shop.events where occurred_at = %s", [first])
    if published:
        shop.drain()
    assert example_of(shop, moment) == before
    for entity, key in (("item", "2"), ("user", "u")):
        assert counts(features_at(shop, entity, key, after)) == pytest.approx(counts(reads[entity])), entity
    assert features_at(shop, "user", "u")["event_count"] == 1
    assert example_of(shop, happens(shop, "u", 2))["item_features"]["age_days"] < (
        before["item_features"]["age_days"] + (shop.value("select clock_timestamp()") - moment) / timedelta(days=1)
    )
