"""Answers of the past: what was answered at a moment is answered again, whatever has changed since."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.conftest import Prepare
from tests.drain import Session
from tests.sql.shop import NOON, Event, Shop, open_shop

Rows = list[tuple[str, float, str]]
BY_VECTOR = {"personal", "similar", "session"}
USERS = ["u0", "u1", "u2", "u3", "new", "nobody"]


def ask(shop: Shop, as_of: datetime | None = None) -> dict[str, Rows]:
    """The answers to a few questions, now or as of a moment."""
    at = {} if as_of is None else {"as_of": as_of}
    questions: dict[str, Rows] = {}
    for user in USERS:
        questions[f"recommend {user}"] = shop.recommend(user, k=8, **at)
    for item in ("1", "2"):
        questions[f"similar {item}"] = shop.call("similar_items", item=item, k=6, **at)
    questions["session"] = shop.call("recommend_for_items", item_ids=["1", "3"], k=6, **at)
    return questions


def assert_same(now: dict[str, Rows], then: dict[str, Rows]) -> None:
    """The same items found by vector, with the same scores; those that tie for the last places may differ."""
    assert now.keys() == then.keys()
    for question, rows in then.items():
        before, after = (
            {item: score for item, score, source in some if source in BY_VECTOR} for some in (rows, now[question])
        )
        assert sorted(after.values()) == pytest.approx(sorted(before.values()), abs=1e-3), question
        last = min(before.values(), default=0.0) + 2e-3
        assert {item for item, score in after.items() if score > last} == {
            item for item, score in before.items() if score > last
        }, question


@dataclass
class Diary:
    """What was answered when."""

    shop: Shop
    entries: list[tuple[str, datetime, dict[str, Rows], dict[str, Any]]] = field(default_factory=list)

    def note(self, title: str) -> None:
        """Record the answers and the vectors of this moment."""
        moment: datetime = self.shop.value("select clock_timestamp()")
        vectors = {**self.shop.item_vectors(self.shop.texts()), **self.shop.user_vectors(USERS)}
        self.entries.append((title, moment, ask(self.shop), vectors))

    def replay(self) -> None:
        """Ask again for every moment."""
        for title, moment, answers, vectors in self.entries:
            again = ask(self.shop, moment)
            try:
                assert_same(again, answers)
                for key, vector in vectors.items():
                    function = "user_vector_at" if key in USERS else "item_vector_at"
                    text = self.shop.connection.execute(
                        f"select dynrec.{function}('shop', %s, %s)::text".encode(), [key, moment]
                    ).fetchall()[0][0]
                    found = None if text is None else np.array(text.strip("[]").split(","), dtype=np.float32)
                    assert (vector is None) == (found is None), key
                    assert vector is None or np.abs(found - vector).max() < 1e-3, key
            except AssertionError as error:
                error.add_note(title)
                raise


def with_events(connection: Session) -> None:
    shop = open_shop(connection)
    shop.add_events(
        Event(f"u{n % 4}", str(1 + n % 11), NOON + timedelta(hours=n), ["view", "purchase"][n % 2]) for n in range(22)
    )
    shop.drain()


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(with_events).name if "diary" in request.fixturenames else beginning


@pytest.fixture
def diary(shop: Shop) -> Diary:
    return Diary(shop)


CHANGES: dict[str, Callable[[Shop], Any]] = {
    "titles": lambda s: s.execute("update shop.products set title = 'changed ' || id where mod(id, 2) = 0"),
    "new products": lambda s: s.execute(
        "insert into shop.products (id, title) values (13, 'red lamp nr 13'), (14, 'blue chair nr 14')"
    ),
    "interactions": lambda s: s.add_events(
        [Event("u0", "12", NOON + timedelta(days=9), "purchase"), Event("u1", "2", NOON + timedelta(days=1), "return")]
    ),
    "late interactions": lambda s: s.add_events([Event("u1", "7", NOON - timedelta(days=40), "purchase")]),
    "a new user": lambda s: s.add_events([Event("new", "4", NOON + timedelta(days=2), "view")]),
    "the same new user, late": lambda s: s.add_events([Event("new", "9", NOON - timedelta(days=2), "purchase", 3)]),
    "interactions taken back": lambda s: s.execute("delete from shop.events where user_id = 'u2' and item_id < 8"),
    "a user who leaves": lambda s: s.execute("delete from shop.events where user_id = 'u3'"),
    "a deleted product": lambda s: s.execute("delete from shop.products where id = 5"),
    "a product that came back": lambda s: s.execute("insert into shop.products (id, title) values (5, 'back again')"),
}


def test_quiet_moments(diary: Diary) -> None:
    diary.note("beginning")
    for title, change in CHANGES.items():
        change(diary.shop)
        diary.shop.drain()
        diary.note(title)
    diary.replay()


@pytest.mark.parametrize("title", CHANGES)
def test_moments_between_commit_and_publish(diary: Diary, title: str) -> None:
    if title == "a product that came back":
        CHANGES["a deleted product"](diary.shop)
        diary.shop.drain()
    diary.note("before")
    CHANGES[title](diary.shop)
    diary.note("committed, not yet published")
    if title != "a deleted product":  # until its vector is taken away, the past has it still
        diary.replay()
    diary.shop.drain()
    diary.note("published")
    diary.replay()
    for other, change in CHANGES.items():
        if other not in {title, "new products", "a product that came back"}:
            change(diary.shop)
    diary.shop.drain()
    diary.replay()


def test_several_changes_before_a_publish(diary: Diary) -> None:
    for title, change in CHANGES.items():
        if title != "a product that came back":  # before anybody saw it go, it was never away
            change(diary.shop)
            diary.note(title)
    diary.shop.drain()
    diary.replay()


def test_a_filter_looks_at_the_source_of_today(diary: Diary) -> None:
    diary.note("before")
    diary.shop.execute("delete from shop.products where id = 6")
    diary.shop.drain()
    _, moment, _, _ = diary.entries[0]
    assert "6" in {item for item, _, _ in diary.shop.call("similar_items", item="1", k=12, as_of=moment)}
    assert "6" not in {
        item for item, _, _ in diary.shop.call("similar_items", item="1", k=12, as_of=moment, filter="true")
    }


def test_before_there_was_anything(diary: Diary) -> None:
    long_ago = NOON - timedelta(days=4000)
    assert diary.shop.recommend("u1", as_of=long_ago) == []
    assert diary.shop.call("trending", as_of=long_ago) == []
    with pytest.raises(psycopg.errors.Error) as caught:
        diary.shop.call("similar_items", item="1", as_of=long_ago)
    assert "'1'" in str(caught.value)


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "2999-01-01"])
def test_moments_that_are_none(diary: Diary, moment: str) -> None:
    for function, arguments in (("recommend", {"user_id": "u1"}), ("trending", {}), ("similar_items", {"item": "1"})):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="as_of"):
            diary.shop.call(function, as_of=moment, **arguments)


def test_a_read_as_of_just_now_is_a_read_of_now(diary: Diary) -> None:
    shop = diary.shop
    moment = shop.value("select clock_timestamp()")
    assert_same(ask(shop, moment), ask(shop))
