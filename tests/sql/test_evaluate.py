"""Evaluation by time travel: the lists of then, the metrics of them, and what is refused."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
import scipy.stats
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.conftest import Prepare
from tests.drain import Session
from tests.learned import backfill, stage
from tests.sql.plans import plans
from tests.sql.shop import NOON, Event, Shop, open_shop

USERS = [f"u{n}" for n in range(8)]
Lists = dict[str, list[tuple[str, str, float]]]


def now(shop: Shop) -> datetime:
    moment: datetime = shop.value("select clock_timestamp()")
    return moment


def act(shop: Shop, users: Iterable[str], items: Iterable[int], kind: str = "purchase") -> None:
    """Interactions of this very moment."""
    shop.add_events(Event(user, str(item), now(shop), kind) for user, item in zip(users, items, strict=True))


def past(shop: Shop) -> None:
    """Forty interactions long ago."""
    shop.add_events(
        Event(USERS[n % 6], str(1 + (n * 7) % 11), NOON + timedelta(hours=n), ["view", "purchase"][n % 2])
        for n in range(40)
    )


def served(shop: Shop, **arguments: Any) -> Lists:
    """What each user is shown now."""
    return {
        user: [(item, source, score) for item, score, source in shop.call("recommend", user_id=user, k=6, **arguments)]
        for user in USERS
    }


def replayed(shop: Shop, moment: datetime, until: datetime, **arguments: Any) -> Lists:
    """The lists that an evaluation at a moment judges."""
    extra = "".join(f", {name} => %({name})s" for name in arguments)
    rows = shop.connection.execute(
        f'select user_id, recommended, sources, scores from dynrec.evaluation_lists(\'shop\', "from" => %(a)s, "to" => %(b)s, k => 6{extra})'.encode(),
        {"a": moment, "b": until, **arguments},
    ).fetchall()
    return {user: list(zip(items, sources, scores, strict=True)) for user, items, sources, scores in rows}


def assert_same(before: Lists, after: Lists) -> None:
    """The same items from the same paths in the same order, with the same scores but for rounding."""
    assert after.keys() == before.keys()
    for user, rows in before.items():
        assert [row[:2] for row in after[user]] == [row[:2] for row in rows], user
        assert [row[2] for row in after[user]] == pytest.approx([row[2] for row in rows], abs=1e-5), user


def change_everything(shop: Shop) -> None:
    """Items, users, interactions of then and of now, popularity."""
    shop.execute("update shop.products set title = 'changed ' || id where mod(id, 2) = 0")
    shop.execute("insert into shop.products (id, title) select n, 'new nr ' || n from generate_series(20, 25) n")
    shop.execute("delete from shop.products where id in (3, 5)")
    shop.execute("delete from shop.events where user_id = 'u1' and mod(id, 2) = 0 and occurred_at < '2025-01-01'")
    shop.add_events(Event("u2", "9", NOON - timedelta(days=3), "purchase", 5) for _ in range(5))
    shop.add_events(Event(user, "11", NOON + timedelta(days=1), "purchase", 9) for user in ("v", "w", "x", "y"))
    shop.drain()


@pytest.mark.parametrize("learned", [False, True], ids=["content", "learned"])
@pytest.mark.parametrize("arguments", [{}, {"exclude_seen": False}, {"diversity": 0.5}], ids=str)
def test_the_lists_are_those_that_were_served(shop: Shop, learned: bool, arguments: dict[str, Any]) -> None:
    past(shop)
    shop.drain()
    if learned:
        stage(shop.connection)
        backfill(shop.connection)
        shop.execute("select dynrec.promote_model('shop')")
    shop.execute("delete from shop.events where id = 1")
    shop.drain()
    if learned:
        backfill(shop.connection)
    moment = now(shop)
    shown = served(shop, **arguments)
    log = [{"user_id": user, "item_ids": [item for item, _, _ in rows]} for user, rows in shown.items()]
    shop.execute("select dynrec.log_impressions('shop', %s)", [Jsonb(log)])
    act(shop, USERS, [1, 2, 4, 6, 7, 8, 9, 10])
    until = now(shop)
    change_everything(shop)
    backfill(shop.connection)
    stage(shop.connection)
    backfill(shop.connection)
    shop.execute("select dynrec.promote_model('shop')")
    assert served(shop, **arguments) != shown
    again = replayed(shop, moment, until, **arguments)
    assert_same(shown, again)
    logged = dict(shop.execute("select user_id, item_ids from dynrec_data.impression"))
    assert logged == {user: [item for item, _, _ in rows] for user, rows in again.items()}


def test_popularity_of_the_past_is_what_was_counted_then(shop: Shop) -> None:
    past(shop)
    shop.drain()
    moment, shown = now(shop), shop.call("trending", k=12)
    shop.add_events(Event(f"w{n}", "12", NOON, "purchase", 9) for n in range(9))
    shop.execute("delete from shop.events where item_id = 1")
    shop.drain()
    shop.execute("insert into dynrec_data.task (recommender_id, action) values (1, 'popularity')")
    shop.drain()
    again = shop.call("trending", k=12, as_of=moment)
    assert [(item, source) for item, _, source in again] == [(item, source) for item, _, source in shown]
    assert [score for _, score, _ in again] == pytest.approx([score for _, score, _ in shown], rel=1e-6)
    assert shop.call("trending", k=1)[0][0] == "12"


def test_a_version_of_a_counter_ends_where_the_next_begins(shop: Shop) -> None:
    for n in range(3):
        past(shop)
        shop.drain()
        if n == 1:
            shop.execute("insert into dynrec_data.task (recommender_id, action) values (1, 'popularity')")
            shop.drain()
    assert (
        shop.value(
            """
            with version as (
              select item_id, created_at, replaced_at from dynrec_data.item_popularity_history
              union all select item_id, created_at, 'infinity' from dynrec_data.item_popularity
            )
            select count(*) from (
              select replaced_at, lead(created_at) over (partition by item_id order by created_at) as next from version
            ) v where replaced_at <> coalesce(next, 'infinity')
            """
        )
        == 0
    )
    assert shop.value("select count(*) from dynrec_data.item_popularity_history") >= 22


def with_a_past(connection: Session) -> None:
    shop = open_shop(connection)
    past(shop)
    shop.drain()


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(with_a_past).name if "judged" in request.fixturenames else beginning


@pytest.fixture
def judged(shop: Shop) -> tuple[Shop, datetime, datetime]:
    """A shop with a past, a moment, and what users did after it."""
    moment = now(shop)
    act(shop, [*USERS, "u1", "u1", "u2"], [1, 2, 12, 6, 7, 8, 9, 10, 12, 4, 5])
    act(shop, ["u5"], [12], "return")
    return shop, moment, now(shop)


def evaluated(
    shop: Shop, moment: datetime, until: datetime, **arguments: Any
) -> dict[tuple[str, int, str], tuple[Any, ...]]:
    """The rows of an evaluation by metric, k and slice."""
    extra = "".join(f", {name} => %({name})s" for name in arguments)
    rows = shop.connection.execute(
        f'select * from dynrec.evaluate(\'shop\', "from" => %(a)s, "to" => %(b)s{extra})'.encode(),
        {"a": moment, "b": until, **arguments},
    ).fetchall()
    return {(metric, k, part): tuple(rest) for metric, k, part, *rest in rows}


METRICS = ["precision_at_k", "recall_at_k", "ndcg_at_k", "average_precision_at_k", "reciprocal_rank", "hit_rate_at_k"]


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_the_mean_of_its_function(judged: tuple[Shop, datetime, datetime], metric: str) -> None:
    shop, moment, until = judged
    rows = evaluated(shop, moment, until, k=[1, 3, 6])
    for k in (1, 3, 6):
        values = [
            value
            for (value,) in shop.connection.execute(
                f"select dynrec.{metric}(recommended, relevant, {k}) from dynrec.evaluation_lists('shop', %s, %s, 6)".encode(),
                [moment, until],
            ).fetchall()
            if value is not None
        ]
        value, error, low, high, n = rows[metric, k, "all"]
        assert (value, n) == (pytest.approx(np.mean(values)), len(values))
        assert error == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
        assert (low, high) == (
            pytest.approx(value - 1.96 * error, abs=1e-4),
            pytest.approx(value + 1.96 * error, abs=1e-4),
        )


def test_what_is_relevant(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    rows = shop.connection.execute(
        "select user_id, relevant, is_new from dynrec.evaluation_lists('shop', %s, %s)", [moment, until]
    ).fetchall()
    seen: dict[str, set[str]] = {user: set() for user in USERS}
    for event in shop.events():
        if event.at < moment:
            seen[event.user].add(event.item)
    wanted: dict[str, set[str]] = {user: set() for user in USERS}
    for event in shop.events():
        if event.at >= moment and event.kind != "return" and event.item not in seen[event.user]:
            wanted[event.user].add(event.item)
    assert {user: set(relevant) for user, relevant, _ in rows} == wanted
    assert {user for user, _, is_new in rows if is_new} == {"u6", "u7"}


def test_slices(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    rows = evaluated(shop, moment, until, k=[6], category="category")
    assert rows["recall_at_k", 6, "new users"][4] == 2
    assert rows["recall_at_k", 6, "known users"][4] + 2 == rows["recall_at_k", 6, "all"][4]
    assert rows["recall_at_k", 6, "cold items"][4] == 2  # users who met item 12, which nobody had met
    assert {part for _, _, part in rows if part.startswith("category: ")} <= {f"category: c{n}" for n in range(10)}
    assert rows["ndcg_at_k", 6, "category: c2"][4] >= 2


def test_items_that_are_gone_or_have_no_vector(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    shop.execute("delete from shop.products where id = 12")
    shop.drain()
    rows = evaluated(shop, moment, until, k=[12], category="category", exclude_seen=False)
    assert rows["recall_at_k", 12, "category: none"][:2] == (1, 0)
    assert None not in {part for _, _, part in rows}
    shop.execute("insert into shop.products (id, title) select n, 'not encoded ' || n from generate_series(50, 59) n")
    assert (
        evaluated(shop, moment, until, k=[12], filter="id > 3", exclude_seen=False)[
            "catalogue_coverage_at_k", 12, "all"
        ][0]
        <= 1
    )


def test_a_sample_of_users_depends_on_its_seed(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    drawn = [set(replayed(shop, moment, until, users=3, seed=seed)) for seed in (1, 1, 2, 3, 4, 5)]
    assert drawn[0] == drawn[1]
    assert {len(users) for users in drawn} == {3}
    assert len(set(map(frozenset, drawn))) > 1
    assert set(replayed(shop, moment, until, user_ids=["u1", "u6", "nobody"])) == {"u1", "u6"}


def test_parallel_workers_find_the_same(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    alone = replayed(shop, moment, until)
    with plans(shop.connection) as seen:
        shop.execute(
            "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set max_parallel_workers_per_gather = 3"
        )
        assert_same(alone, replayed(shop, moment, until))
    assert any("Parallel Append" in plan and "Workers Launched" in plan for plan in seen)
    shop.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set max_parallel_workers_per_gather = 3")
    filtered = replayed(shop, moment, until, filter="id > 4")
    assert {item for rows in filtered.values() for item, _, _ in rows} <= {str(n) for n in range(5, 13)}


def test_a_period_in_which_nobody_did_anything(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, _ = judged
    assert evaluated(shop, moment, moment + timedelta(microseconds=1)) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": []}, "k is missing"),
        ({"k": [0]}, "k is out of range"),
        ({"users": 0}, "users is out of range"),
        ({"category": "nonsense"}, "nonsense"),
        ({"by_model": 77}, "77"),
        ({"filter": "nonsense = 1"}, "nonsense"),
        ({"diversity": 2.0}, "diversity"),
    ],
    ids=str,
)
def test_bad_arguments(judged: tuple[Shop, datetime, datetime], arguments: dict[str, Any], message: str) -> None:
    shop, moment, until = judged
    with pytest.raises(psycopg.Error, match=message):
        evaluated(shop, moment, until, **arguments)


@pytest.mark.parametrize("period", [("2999-01-01", "2999-02-01"), ("now", "2000-01-01"), ("infinity", "infinity")])
def test_periods_that_are_none(shop: Shop, period: tuple[Any, Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        evaluated(shop, *period)


def test_before_the_model_had_vectors(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    model = stage(shop.connection)
    backfill(shop.connection)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"model version {model} had no vectors"):
        evaluated(shop, moment, until, by_model=model)


def compared(shop: Shop, moment: datetime, until: datetime, one: int, other: int) -> dict[tuple[str, str], Any]:
    """The rows of a comparison at k = 6, by metric and slice."""
    with shop.connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "select * from dynrec.compare_models('shop', %s, %s, %s, %s, k => '{6}')", [moment, until, one, other]
        ).fetchall()
    return {(row["metric"], row["slice"]): row for row in rows}


def test_two_models_on_the_same_users(shop: Shop) -> None:
    past(shop)
    shop.drain()
    model = stage(shop.connection)
    backfill(shop.connection)
    moment = now(shop)
    act(shop, [*USERS, *USERS], [1, 2, 12, 6, 7, 8, 9, 10, 12, 11, 10, 9, 3, 1, 2, 3])
    until = now(shop)
    rows = compared(shop, moment, until, model, 1)
    for metric in ("ndcg_at_k", "recall_at_k", "novelty_at_k"):
        row = rows[metric, "all"]
        values: list[dict[str, float]] = [
            dict(
                shop.connection.execute(
                    "select user_id, value from dynrec.evaluate_users('shop', %s, %s, '{6}', %s) where metric = %s and slice = 'all'",
                    [moment, until, by_model, metric],
                ).fetchall()
            )
            for by_model in (model, 1)
        ]
        assert values[0].keys() == values[1].keys()
        ours, theirs = (np.array([of[user] for user in sorted(of)]) for of in values)
        test = scipy.stats.ttest_rel(ours, theirs)
        assert row["difference"] == pytest.approx(np.mean(ours - theirs))
        assert (row["wins"], row["losses"], row["ties"]) == (
            (ours > theirs).sum(),
            (ours < theirs).sum(),
            (ours == theirs).sum(),
        )
        assert row["difference"] / row["standard_error"] == pytest.approx(test.statistic)
        assert row["p_value"] == pytest.approx(2 * scipy.stats.norm.sf(abs(test.statistic)))
        assert row["low"] < row["difference"] < row["high"]
    assert {(row["difference"], row["p_value"]) for row in compared(shop, moment, until, 1, 1).values()} == {(0, 1)}
    back = compared(shop, moment, until, 1, model)["ndcg_at_k", "all"]
    assert back["wins"] == rows["ndcg_at_k", "all"]["losses"]


def test_a_comparison_needs_two_models(judged: tuple[Shop, datetime, datetime]) -> None:
    shop, moment, until = judged
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="missing"):
        compared(shop, moment, until, 1, None)  # type: ignore[arg-type]
