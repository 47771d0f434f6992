"""A learned model answers as its mathematics say, whatever was published, pending, late or taken back."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.conftest import Prepare
from tests.drain import Session
from tests.learned import ITEMS, Oracle, backfill, make_config, stage
from tests.reference import Event
from tests.sql.shop import KINDS, NOON, Shop, open_shop

USERS = ("u1", "u2", "u3")
NOW = NOON + timedelta(days=40)


def events(first: int, number: int) -> list[Event]:
    """Interactions of three users, some at the same moment, one kind that counts against an item."""
    kinds = ("view", "purchase", "return", "other")
    return [
        Event(
            USERS[n % 3],
            str(1 + (n * 7) % 11),
            NOON + timedelta(hours=7 * (n // 4)),
            kinds[n % 4],
            None if n % 5 == 0 else float(n % 6),
        )
        for n in range(first, first + number)
    ]


class Answers:
    """What a model should answer, and whether it does."""

    def __init__(self, shop: Shop, config: dict[str, Any], model: int) -> None:
        self._shop = shop
        self._config = config
        self._model = model
        self._counted: list[Event] = shop.events()
        self._trained = [item for (item,) in shop.execute(ITEMS, ["shop"])]

    def drain(self) -> None:
        """Let everything be published."""
        backfill(self._shop.connection)
        self._counted = self._shop.events()

    def oracle(self) -> Oracle:
        """From all that is in the tables."""
        rows = self._shop.execute(
            "select item_id, embedding::text from dynrec_data.item_vector v join dynrec_data.recommender r on v.model_id = r.content_model_id"
        )
        contents = {item: np.array(text.strip("[]").split(","), dtype=float) for item, text in rows}
        return Oracle(self._config, contents, self._shop.events(), KINDS, self._counted, self._trained)

    def check(self) -> None:
        """The answers for each user, and for one of whom nothing is known."""
        self._shop.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])
        expected = self.oracle()
        for user in (*USERS, "stranger"):
            scores = expected.scores(user, NOW)
            got = self._shop.recommend(user, k=len(scores), exclude_seen=False, by_model=self._model)
            assert {item for item, _, _ in got} == scores.keys()
            for item, score, _ in got:
                assert score == pytest.approx(scores[item], abs=2e-4), (user, item)
            assert [score for _, score, _ in got] == sorted((score for _, score, _ in got), reverse=True)
        self._shop.execute("reset dynrec.clock")


@pytest.fixture
def config() -> dict[str, Any]:
    return make_config()


def learn(connection: Session) -> int:
    """A trained model in the shadow, over thirty interactions; its version."""
    shop = open_shop(connection)
    shop.add_events(events(0, 30))
    shop.drain()
    model = stage(shop.connection, make_config())
    backfill(shop.connection)
    return model


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(learn).name if "answers" in request.fixturenames else beginning


@pytest.fixture
def answers(shop: Shop, config: dict[str, Any], prepared: Prepare) -> Answers:
    return Answers(shop, config, prepared(learn).made)


def test_published(answers: Answers) -> None:
    answers.check()


def test_pending_at_the_last_moment_and_later(shop: Shop, answers: Answers) -> None:
    shop.add_events(events(29, 9))
    answers.check()
    answers.drain()
    answers.check()


def test_late(shop: Shop, answers: Answers) -> None:
    shop.add_events([Event("u1", "3", NOON - timedelta(days=3), "purchase", 2.0)])
    answers.check()
    answers.drain()
    answers.check()


def test_a_model_of_before_has_one_head_of_content(shop: Shop) -> None:
    shop.add_events(events(0, 30))
    shop.drain()
    config = make_config()
    config |= {"heads": config["heads"][:-1], "gates": config["gates"][:-1]}
    del config["content_heads"]
    answers = Answers(shop, config, stage(shop.connection, config))
    answers.drain()
    answers.check()


def test_a_model_may_leave_all_to_popularity(shop: Shop) -> None:
    shop.add_events(events(0, 30))
    shop.drain()
    config = make_config()
    config |= {
        "gates": np.zeros_like(config["gates"]).tolist(),
        "transitions": [pace | {"weights": [0.0] * 25} for pace in config["transitions"]],
    }
    answers = Answers(shop, config, stage(shop.connection, config))
    answers.drain()
    answers.check()


def test_taken_back(shop: Shop, answers: Answers) -> None:
    shop.execute("delete from shop.events where user_id = 'u2' and kind = 'view'")
    answers.check()
    answers.drain()
    answers.check()


def test_an_item_that_changes_moves_its_audience(shop: Shop, answers: Answers) -> None:
    shop.execute("update shop.products set title = 'a wholly new thing' where id in (1, 3)")
    shop.execute("insert into shop.products (id, title, category) values (99, 'brand new', 'lamps')")
    answers.drain()
    answers.check()
    shop.execute("delete from shop.products where id = 3")
    answers.drain()
    answers.check()


def test_one_after_the_other_is_as_all_at_once(shop: Shop, answers: Answers) -> None:
    for event in events(30, 12):
        shop.add_events([event])
        answers.drain()
    answers.check()


@pytest.mark.usefixtures("answers")
def test_promotion_and_rollback(shop: Shop) -> None:
    def asked(**arguments: Any) -> list[str]:
        return [item for item, _, _ in shop.recommend("u1", k=5, exclude_seen=False, **arguments)]

    before = asked()
    ((promoted,),) = shop.execute("select dynrec.promote_model('shop')")
    learned = asked()
    assert learned == asked(by_model=promoted)
    assert learned != before
    ((back,),) = shop.execute("select dynrec.rollback_model('shop')")
    assert asked() == before
    assert back != promoted
    assert shop.execute("select dynrec.rollback_model('shop')") == [(promoted,)]
    assert asked() == learned


@pytest.mark.usefixtures("answers")
def test_the_plain_way_and_the_long_way_agree(shop: Shop) -> None:
    shop.execute("select dynrec.promote_model('shop')")
    for user in (*USERS, "stranger"):
        for seen in (True, False):
            short = shop.recommend(user, k=3, exclude_seen=seen)
            long = shop.recommend(user, k=3, exclude_seen=seen, filter="true")
            assert [item for item, _, _ in short] == [item for item, _, _ in long]
            assert [score for _, score, _ in short] == pytest.approx([score for _, score, _ in long])
    near, filtered = (
        shop.execute(f"select item_id, score from dynrec.similar_items('shop', '5', 4, filter => {given})")
        for given in ("null", "'true'")
    )
    assert [item for item, _ in near] == [item for item, _ in filtered]
    assert [score for _, score in near] == pytest.approx([score for _, score in filtered])


def test_as_of_is_what_was_answered(shop: Shop, answers: Answers) -> None:
    shop.execute("select dynrec.promote_model('shop')")
    ((moment,),) = shop.execute("select clock_timestamp()")
    shop.execute("select set_config('dynrec.clock', %s, false)", [moment.isoformat()])
    before = {user: shop.recommend(user, k=4) for user in USERS}
    shop.execute("reset dynrec.clock")
    shop.add_events([Event(user, "2", moment + timedelta(seconds=1), "purchase") for user in USERS])
    shop.execute("update shop.products set title = 'another title' where id < 6")
    answers.drain()
    shop.execute("select dynrec.rollback_model('shop')")
    for user, rows in before.items():
        again = shop.recommend(user, k=4, as_of=moment)
        assert [item for item, _, _ in again] == [item for item, _, _ in rows]
        assert [score for _, score, _ in again] == pytest.approx([score for _, score, _ in rows], abs=1e-4)


def test_explanations_add_up(shop: Shop, answers: Answers) -> None:
    shop.execute("select dynrec.promote_model('shop')")
    shop.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])
    reasons = shop.execute("select contribution from dynrec.explain('shop', 'u1', '12', 100)")
    oracle = answers.oracle()
    query = oracle.query("u1", NOW)
    vector = shop.item_vectors(["12"])["12"]
    assert query is not None
    assert vector is not None
    expected = float(query[:-1] @ vector[:-1]) + oracle.following("u1", "12", NOW)
    assert sum(contribution for (contribution,) in reasons) == pytest.approx(expected, abs=1e-4)


def test_each_item_is_credited_with_what_follows_it(shop: Shop) -> None:
    shop.add_events(events(0, 60))
    shop.drain()
    config = make_config(gates=[[0.0] * 25] * 5)
    answers = Answers(shop, config, stage(shop.connection, config))
    answers.drain()
    shop.execute("select dynrec.promote_model('shop')")
    shop.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])
    for user in USERS:
        credited = dict(
            shop.execute("select because_item_id, contribution from dynrec.explain('shop', %s, '2', 100)", [user])
        )
        parts = answers.oracle().following_each(user, "2", NOW)
        assert len({item for item, part in parts.items() if part}) > 1
        assert credited == pytest.approx({item: parts.get(item, 0.0) for item in credited}, abs=1e-4)
        assert {item for item, part in parts.items() if part} <= set(credited)


def test_a_session_is_a_user_who_met_its_items_just_now(shop: Shop, answers: Answers) -> None:
    session = ["3", "8", "5", "3"]
    shop.add_events(
        [Event("walker", item, NOW - timedelta(seconds=9 - n), "other", None) for n, item in enumerate(session)]
    )
    answers.drain()
    shop.execute("select dynrec.promote_model('shop')")
    shop.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])
    of_user = shop.recommend("walker", k=9)
    of_session = shop.execute("select item_id, score from dynrec.recommend_for_items('shop', %s, 9)", [session])
    assert [item for item, _ in of_session] == [item for item, _, _ in of_user]
    assert [score for _, score in of_session] == pytest.approx([score for _, score, _ in of_user], abs=1e-4)


def test_a_model_without_transitions(shop: Shop) -> None:
    shop.add_events(events(0, 30))
    shop.drain()
    config = make_config(transitions=[])
    answers = Answers(shop, config, stage(shop.connection, config))
    answers.drain()
    answers.check()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_places_are_held_for_items_that_nobody_has_met(shop: Shop, share: float) -> None:
    shop.add_events(events(0, 30))
    shop.add_products(range(50, 60))
    shop.drain()
    model = stage(shop.connection, make_config(exploration=share, cold=[-50.0] * 25))
    backfill(shop.connection)
    for user in (*USERS, "stranger"):
        rows = shop.recommend(user, k=8, exclude_seen=False, by_model=model)
        new = [item for item, _, _ in rows if int(item) >= 50 or item == "12"]
        assert 8 * share <= len(new) <= 8 * share + 1


@pytest.mark.parametrize("gap", [0.0, 4.0, 8.0, 30.0])
def test_a_place_is_held_for_what_is_not_too_far_below(shop: Shop, gap: float) -> None:
    shop.add_events(events(0, 30))
    shop.add_products(range(50, 60))
    shop.drain()
    config = make_config(exploration=1 / 8, exploration_gap=gap, cold=[-8.0] * 25)
    answers = Answers(shop, config, stage(shop.connection, config))
    answers.drain()
    shop.execute("select set_config('dynrec.clock', %s, false)", [NOW.isoformat()])
    for user in USERS:
        scores = answers.oracle().scores(user, NOW)
        met = {event.item for event in shop.events()}
        best = sorted(scores, key=lambda item: -scores[item])
        expected = set(best[:8])
        new = next(item for item in best if item not in met)
        if new not in expected and scores[new] >= scores[best[7]] - gap:
            expected = {*best[:7], new}
        for arguments in ({}, {"filter": "true"}):
            rows = shop.recommend(user, k=8, exclude_seen=False, by_model=2, **arguments)
            assert {item for item, _, _ in rows} == expected
