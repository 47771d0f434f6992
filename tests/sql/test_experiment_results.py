"""What came of an experiment, against a computation in Python; and that its intervals hold at all looks together."""

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from math import log
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from scipy.special import gammaln
from scipy.stats import binom, dirichlet_multinomial, multinomial

from dynrec_store import database
from dynrec_store.experiments import Experiment
from dynrec_store.store import FeatureStore
from tests.conftest import MakeDatabase
from tests.sql.shop import KINDS, Event, Shop, create_shop

Rows = list[dict[str, Any]]
Floats = NDArray[np.float64]

DAY = timedelta(days=1)
METRICS = ["satisfaction_per_user", "value_per_user", "interactions_per_user", "conversion", "click_through"]


@pytest.fixture(scope="module")
def shop(make_database: MakeDatabase, template: str) -> Iterator[Shop]:
    """A shop whose experiments and users have names of their own, each used by one test; workers do nothing."""
    with database.connect(make_database(template)) as connection:
        yield create_shop(connection, products=12)


def begin(shop: Shop, name: str, arms: Sequence[str] = ("red", "blue"), ago: timedelta = 20 * DAY, **more: Any) -> Experiment:  # fmt: skip
    """An experiment that began so long ago, as Python sees it."""
    named = "".join(f", {option} => %({option})s" for option in more)
    given = {"name": name, "arms": Jsonb([{"arm": arm} for arm in arms]), **more}
    shop.execute(f"select dynrec.create_experiment('shop', %(name)s, %(arms)s{named})", given)
    shop.execute(
        """
        with moved as (update dynrec_data.experiment set started_at = started_at - %s where name = %s returning id)
        update dynrec_data.experiment_traffic t set since = since - %s from moved where t.experiment_id = moved.id
        """,
        [ago, name, ago],
    )
    with FeatureStore.connect(shop.connection.info.dsn + f" password={shop.connection.info.password}") as store:
        return store.experiment("shop", name)


def results(shop: Shop, name: str, until: datetime | None = None) -> Rows:
    with shop.connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from dynrec.experiment_results('shop', %s, %s)", [name, until]).fetchall()


def verdict(shop: Shop, name: str) -> dict[str, Any]:
    with shop.connection.cursor(row_factory=dict_row) as cursor:
        (row,) = cursor.execute("select * from dynrec.experiments where experiment = %s", [name]).fetchall()
    assert row["verdict"]
    assert "nan" not in row["verdict"].lower()
    return row


def traffic(shop: Shop, name: str, seed: int) -> tuple[Rows, list[Event]]:
    """Lists of five days, a few of them of no experiment, and interactions around them."""
    rng = random.Random(seed)
    start = shop.value("select date_trunc('second', clock_timestamp()) - interval '10 days'")
    lists: Rows = [
        {
            "user_id": f"{name} {rng.randrange(60)}",
            "item_ids": [str(item) for item in rng.sample(range(1, 13), 3)],
            "shown_at": (start + timedelta(minutes=rng.randrange(7200), milliseconds=number)).isoformat(),
            "experiment": None if rng.random() < 0.2 else name,
        }
        for number in range(250)
    ]
    events = []
    for number in range(500):
        shown = rng.choice(lists)
        at = datetime.fromisoformat(shown["shown_at"]) + timedelta(hours=rng.uniform(-20, 60), microseconds=number)
        kind = rng.choice([*KINDS, "other", None])
        events.append(
            Event(shown["user_id"], rng.choice([*shown["item_ids"], "12"]), at, kind, rng.choice([None, 2.5]))
        )
    shop.value("select dynrec.log_impressions('shop', %s)", [Jsonb(lists)])
    shop.add_events(events)
    return [one | {"shown_at": datetime.fromisoformat(one["shown_at"])} for one in lists], events


def outcomes(lists: Rows, events: list[Event], exposed: datetime, within: timedelta, kinds: list[str] | None, name: str) -> dict[str, tuple[float, float]]:  # fmt: skip
    """For each metric what a user adds to its numerator and denominator; lists and events are those of the user."""
    done = [event for event in events if exposed <= event.at < exposed + within]
    weights = [KINDS.get(event.kind or "", KINDS["*"]).weight * (1 if event.value is None else event.value) for event in done]  # fmt: skip
    clicked: set[tuple[datetime, str]] = set()
    for event in events:
        before = [one["shown_at"] for one in lists if event.item in one["item_ids"] and event.at - min(within, DAY) < one["shown_at"] <= event.at]  # fmt: skip
        if before and event.at < exposed + within:
            clicked.add((max(before), event.item))
    items = [(one["shown_at"], item) for one in lists for item in one["item_ids"] if one["experiment"] == name and exposed <= one["shown_at"] < exposed + within]  # fmt: skip
    return {
        "satisfaction_per_user": (sum(weights), 1),
        "value_per_user": (sum(event.value or 0 for event in done), 1),
        "interactions_per_user": (len(done), 1),
        "conversion": (any(kinds is None or event.kind in kinds for event in done), 1),
        "click_through": (sum(item in clicked for item in items), len(items)),
    }


def ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The ratio of sums, and its standard error by the delta method."""
    y, x = np.array(pairs, dtype=float).T
    value = y.sum() / x.sum()
    return value, float(np.sqrt(len(pairs) * np.var(y - value * x, ddof=1)) / x.sum())


def sequence(difference: Any, error: Any, n: Any, planned: float, alpha: float) -> tuple[Any, Any]:
    """Theorem 2.2 of Waudby-Smith et al. with rho tuned for n = planned, by the standard deviation of a unit."""
    squared = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / planned
    sigma = error * np.sqrt(n)
    width = sigma * np.sqrt(2 * (n * squared + 1) / (n**2 * squared) * np.log(np.sqrt(n * squared + 1) / alpha))
    return difference - width, difference + width


@pytest.mark.parametrize(
    ("seed", "arms", "kinds", "within", "days"),
    [(1, 2, None, 2 * DAY, None), (2, 3, ["purchase"], DAY, 4), (3, 3, ["view", "return"], DAY / 4, 3), (4, 2, ["nothing"], 9 * DAY, 9.5)],
)  # fmt: skip
def test_results(shop: Shop, seed: int, arms: int, kinds: list[str] | None, within: timedelta, days: float | None) -> None:  # fmt: skip
    name, names = f"results {seed}", ["a", "b", "c"][:arms]
    experiment = begin(shop, name, names, within=within, conversion_kinds=kinds, planned_users=120, metric=METRICS[seed])  # fmt: skip
    lists, events = traffic(shop, name, seed)
    until = None if days is None else min(one["shown_at"] for one in lists) + days * DAY
    moment = until or shop.value("select clock_timestamp()")
    per_arm: dict[str | None, list[dict[str, tuple[float, float]]]] = {arm: [] for arm in names}
    for user in {one["user_id"] for one in lists}:
        own = [one for one in lists if one["user_id"] == user]
        exposed = min((one["shown_at"] for one in own if one["experiment"]), default=moment)
        if exposed + within <= moment:
            theirs = [event for event in events if event.user == user]
            per_arm[experiment.arm_of(user)].append(outcomes(own, theirs, exposed, within, kinds, name))
    assert all(len(users) > 5 for users in per_arm.values())
    assert days is None or sum(map(len, per_arm.values())) < len({one["user_id"] for one in lists})
    rows = results(shop, name, until)
    order = sorted(METRICS, key=lambda metric: metric != METRICS[seed])
    assert [(row["metric"], row["arm"], row["is_primary"]) for row in rows] == [
        (metric, arm, metric == METRICS[seed]) for metric in order for arm in names
    ]
    for row in rows:
        value, error = ratio([user[row["metric"]] for user in per_arm[row["arm"]]])
        base, base_error = ratio([user[row["metric"]] for user in per_arm["a"]])
        assert (row["users"], row["value"]) == (len(per_arm[row["arm"]]), pytest.approx(value))
        assert row["standard_error"] == pytest.approx(error)
        if row["arm"] == "a":
            assert {row[n] for n in ("difference", "relative_difference", "low", "high", "p_value")} == {None}
            continue
        assert row["difference"] == pytest.approx(value - base)
        assert row["relative_difference"] == (pytest.approx((value - base) / abs(base)) if base else None)
        n, alpha = len(per_arm["a"]) + len(per_arm[row["arm"]]), 0.05 / (arms - 1)
        if not np.hypot(error, base_error):
            assert {row[name] for name in ("low", "high", "p_value")} == {None}  # nothing varies
            continue
        low, high = sequence(value - base, np.hypot(error, base_error), n, 120 * 2 / arms, alpha)
        assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))
        assert 0 < row["p_value"] <= 1
        assert (row["p_value"] <= 0.05) == (low > 0 or high < 0)


def test_the_p_value_says_what_the_interval_says(shop: Shop) -> None:
    rng = np.random.default_rng(3)
    difference, error, reached = rng.normal(0, 4, 5000), rng.uniform(0.1, 2, 5000), 10 ** rng.uniform(-4, 1, 5000)
    for alpha in (0.05, 0.025, 0.05 / 19, 0.3):
        low, high, p = intervals(shop, difference, error, reached, alpha)
        expected = sequence(difference, error, reached, 1, alpha)
        assert np.allclose((low, high), expected, rtol=1e-12)
        assert ((p <= alpha) == ((low > 0) | (high < 0))).all()
        assert 0.05 < (p <= alpha).mean() < 0.95
        assert p.min() > 0
        assert p.max() == 1


def intervals(shop: Shop, difference: Floats, error: Floats, reached: Floats, alpha: float = 0.05) -> Floats:
    """Low, high and p-value of each."""
    rows = shop.execute(
        "select i.* from unnest(%s::float8[], %s::float8[], %s::float8[]) with ordinality as a (d, e, r, n), dynrec._sequential_interval(d, e, r, %s) i order by n",
        [difference.tolist(), error.tolist(), reached.tolist(), alpha],
    )
    return np.array(rows, dtype=float).T


@pytest.mark.parametrize("truth", [0.0, 0.3])
def test_intervals_cover_at_all_looks_together(shop: Shop, truth: float) -> None:
    """300 sequences, looked at after each 100 users up to 5,000; what users do is as skewed as in a shop."""
    rng = np.random.default_rng(20240301)
    looks = np.arange(100, 5001, 100)
    estimates = []
    for shift in (0.0, truth):
        values = rng.exponential(1, (300, 2500)) * (rng.random((300, 2500)) < 0.5) + shift
        n = looks // 2
        mean = values.cumsum(axis=1)[:, n - 1] / n
        variance = ((values**2).cumsum(axis=1)[:, n - 1] / n - mean**2) * n / (n - 1)
        estimates.append((mean, variance / n))
    difference = estimates[1][0] - estimates[0][0]
    error = np.sqrt(estimates[0][1] + estimates[1][1])
    low, high, p = intervals(shop, difference.ravel(), error.ravel(), np.tile(looks / 5000, 300)).reshape(3, 300, -1)
    assert ((low > truth) | (high < truth)).any(axis=1).mean() <= 0.05
    found = (p <= 0.05).any(axis=1).mean()
    assert found <= 0.05 if truth == 0 else found > 0.95
    assert ((high - low)[:, -1] < 3 * 2 * 1.96 * error[:, -1]).all(), "the interval is of use where it was planned for"


def sample_ratio(shop: Shop, counts: Any, shares: list[float]) -> Floats:
    rows = shop.execute(
        "select dynrec._sample_ratio_p(array(select x::text::bigint from jsonb_array_elements(c) x), %s::float8[]) from jsonb_array_elements(%s) with ordinality as a (c, n) order by n",
        [shares, Jsonb(np.asarray(counts).tolist())],
    )
    return np.array([p for (p,) in rows])


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.6, 0.3], [0.0005, 0.9995], [0.05] * 20], ids=str)
def test_the_sample_ratio_is_judged_by_a_bayes_factor(shop: Shop, shares: list[float]) -> None:
    rng = np.random.default_rng(9)
    counts = np.array(
        [rng.multinomial(n, rng.dirichlet(400 * np.array(shares))) for n in [0, 1, 10, 1000, 100_000] * 30]
    )
    factor = multinomial.logpmf(counts, counts.sum(axis=1), shares) - dirichlet_multinomial.logpmf(counts, 100 * np.array(shares), counts.sum(axis=1))  # fmt: skip
    found = sample_ratio(shop, counts, shares)
    assert found == pytest.approx(np.exp(np.clip(factor, -700, 0)), rel=1e-6)
    assert (found == 1).any()
    assert (found < 0.01).any()


@pytest.mark.parametrize(("shares", "sequences"), [([0.5, 0.5], 300), ([0.1, 0.3, 0.6], 60)], ids=str)
def test_false_alarms_of_the_sample_ratio_at_all_looks_together(
    shop: Shop, shares: list[float], sequences: int
) -> None:
    rng = np.random.default_rng(11)
    right = rng.multinomial(100, shares, (sequences, 50)).cumsum(axis=1).reshape(-1, len(shares))
    p = sample_ratio(shop, right, shares).reshape(sequences, 50).min(axis=1)
    assert (p < 0.01).sum() <= binom.ppf(0.99, sequences, 0.01)
    assert (p < 0.1).sum() <= binom.ppf(0.99, sequences, 0.1)
    shifted = rng.multinomial(5000, [shares[0] - 0.05, *shares[1:-1], shares[-1] + 0.05], 300)
    assert (sample_ratio(shop, shifted, shares) < 0.01).mean() > 0.9


def test_log_gamma(shop: Shop) -> None:
    x = np.concatenate([np.logspace(-3, 9, 4000), np.arange(1, 40) / 2, [9.999999, 10.000001]])
    found = [y for (y,) in shop.execute("select dynrec._log_gamma(x) from unnest(%s::float8[]) with ordinality a (x, n) order by n", [x.tolist()])]  # fmt: skip
    assert np.allclose(found, gammaln(x), rtol=1e-12, atol=1e-11)


def expose(shop: Shop, experiment: Experiment, numbers: Sequence[int]) -> dict[str, list[str]]:
    """So many users of each arm meet it ten days ago; who they are."""
    users: dict[str, list[str]] = {arm.name: [] for arm in experiment.arms}
    wanted = dict(zip(users, numbers, strict=True))
    candidate = 0
    while any(len(found) < wanted[arm] for arm, found in users.items()):
        user, candidate = f"{experiment.name} {candidate}", candidate + 1
        arm = experiment.arm_of(user)
        if arm and len(users[arm]) < wanted[arm]:
            users[arm].append(user)
    moment = (shop.value("select clock_timestamp()") - 10 * DAY).isoformat()
    lists = [{"user_id": u, "item_ids": ["1", "2"], "experiment": experiment.name, "shown_at": moment} for found in users.values() for u in found]  # fmt: skip
    shop.value("select dynrec.log_impressions('shop', %s)", [Jsonb(lists)])
    return users


def act(shop: Shop, users: Sequence[str], values: Sequence[float | None]) -> None:
    """Each user looks at an item nine days ago, with its value; none for null."""
    shop.execute(
        "insert into shop.events (user_id, item_id, kind, value, occurred_at) select u, 1, 'view', v, now() - interval '9 days' from unnest(%s::text[], %s::float8[]) a (u, v) where v is not null",
        [list(users), list(values)],
    )


def noise(n: int, mean: float) -> list[float]:
    """A fixed sample with the standard deviation 1."""
    sample = np.random.default_rng(n).normal(size=n)
    return list((sample - sample.mean()) / sample.std(ddof=1) + mean)


@pytest.mark.parametrize(
    ("word", "counts", "means"),
    [
        ("invalid: .*(400 : 200)", (400, 200), (0, 5)),
        ("too early: an arm has 99 users", (150, 99), (0, 5)),
        ("better: blue beats red in value_per_user by 1 ", (200, 200), (2, 3)),
        ("worse: no arm beats red in value_per_user; the best, blue, by -1 ", (200, 200), (3, 2)),
        ("undecided: blue against red in value_per_user by 0.1 ", (200, 200), (2, 2.1)),
        ("better: green beats red in value_per_user by 2 ", (200, 200, 200), (1, 2, 3)),
        ("worse: no arm beats red in value_per_user; the best, green, by -1 ", (200, 200, 200), (3, 1, 2)),
    ],
)
def test_verdicts(shop: Shop, word: str, counts: tuple[int, ...], means: tuple[float, ...]) -> None:
    arms = ["red", "blue", "green"][: len(counts)]
    experiment = begin(shop, word, arms, metric="value_per_user", planned_users=400)
    for users, mean in zip(expose(shop, experiment, counts).values(), means, strict=True):
        act(shop, users, noise(len(users), mean))
    row = verdict(shop, word)
    beginning, _, end = word.partition(".*")
    assert row["verdict"].startswith(beginning)
    assert end in row["verdict"]
    assert (row["arms"], row["exposed"], row["state"]) == (arms, list(counts), "running")
    if not word.startswith("too early"):
        best = next(r for r in results(shop, word) if r["arm"] == row["best_arm"])
        for name in ("difference", "low", "high"):
            assert row[name] == pytest.approx(best[name])


def test_there_is_a_verdict_before_anybody_came(shop: Shop) -> None:
    for metric in METRICS:
        begin(shop, f"empty {metric}", metric=metric)
        row = verdict(shop, f"empty {metric}")
        assert row["verdict"].startswith("too early: an arm has 0 users")
        assert (row["exposed"], row["sample_ratio_p"]) == ([0, 0], 1)
        assert {r["users"] for r in results(shop, f"empty {metric}")} == {0}


@pytest.mark.parametrize("metric", METRICS)
def test_what_nobody_does_is_unknown(shop: Shop, metric: str) -> None:
    expose(shop, begin(shop, f"nothing {metric}", metric=metric), (120, 120))
    assert verdict(shop, f"nothing {metric}")["verdict"].startswith(f"unknown: {metric} does not vary")


def test_users_who_were_shown_nothing_say_nothing_of_clicks(shop: Shop) -> None:
    """They were noted by log_exposure."""
    experiment = begin(shop, "unseen", metric="click_through", within="1 second")
    for user in range(400):
        shop.execute("select dynrec.log_exposure('shop', 'unseen', %s)", [str(user)])
    shop.execute("update dynrec_data.exposure x set exposed_at = exposed_at - interval '1 day' from dynrec_data.experiment e where e.id = x.experiment_id and e.name = 'unseen'")  # fmt: skip
    assert experiment.traffic == 1
    assert verdict(shop, "unseen")["verdict"].startswith("unknown: click_through")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e-60", "1e60"])
def test_a_strange_value_does_not_break_the_view(shop: Shop, value: str) -> None:
    experiment = begin(shop, f"strange {value}", metric="value_per_user")
    for users in expose(shop, experiment, (110, 110)).values():
        act(shop, users, [float(value) * (n + 1) for n in range(len(users))])
    row = verdict(shop, f"strange {value}")
    assert row["verdict"].split(":")[0] in ("undecided", "unknown")


def test_until_before_the_beginning(shop: Shop) -> None:
    begin(shop, "young", ago=timedelta(0))
    rows = results(shop, "young", shop.value("select clock_timestamp() - interval '1 day'"))
    assert {row["users"] for row in rows} == {0}


@pytest.mark.parametrize("until", ["infinity", "-infinity", "2999-01-01"])
def test_until_is_of_the_past(shop: Shop, until: str) -> None:
    begin(shop, f"until {until}")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="until is not a moment of the past: '"):
        shop.execute("select * from dynrec.experiment_results('shop', %s, %s)", [f"until {until}", until])
