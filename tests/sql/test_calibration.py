"""Calibration of scores against a computation from the rows of dynrec.evaluation_lists."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.drain import Session
from tests.learned import backfill, stage
from tests.sql.shop import NOON, Event, Shop, create_shop

USERS = [f"u{n:02}" for n in range(40)]


@dataclass(frozen=True)
class Judged:
    """A shop and a period in which some met what they were shown."""

    shop: Shop
    start: datetime
    end: datetime
    model: int

    def calibration(self, **arguments: Any) -> list[tuple[Any, ...]]:
        """Rows without the model version, which is checked here, and the bins, which are counted here."""
        extra = "".join(f", {name} => %({name})s" for name in arguments)
        rows = self.shop.connection.execute(
            f'select * from dynrec.score_calibration(\'shop\', "from" => %(a)s, "to" => %(b)s{extra})'.encode(),
            {"a": self.start, "b": self.end, **arguments},
        ).fetchall()
        assert {row[0] for row in rows} <= {arguments.get("by_model") or self.model}
        assert [row[1] for row in rows] == list(range(1, len(rows) + 1))
        return [row[2:] for row in rows]

    def lists(self, **arguments: Any) -> list[list[tuple[float, int]]]:
        """Score and hit of what each user with anything to find was shown by a path that counts."""
        extra = "".join(f", {name} => %({name})s" for name in arguments)
        rows = self.shop.connection.execute(
            f'select recommended, scores, sources, relevant from dynrec.evaluation_lists(\'shop\', "from" => %(a)s, "to" => %(b)s{extra})'.encode(),
            {"a": self.start, "b": self.end, **arguments},
        ).fetchall()
        return [
            [
                (score, 1 if item in relevant else 0)
                for item, score, source in zip(items, scores, sources, strict=True)
                if source in {"personal", "repeat"}
            ]
            for items, scores, sources, relevant in rows
            if relevant
        ]


def act(shop: Shop) -> tuple[datetime, datetime]:
    """Of each four users two meet what they are shown, one meets something else, one takes something back."""
    start = shop.value("select clock_timestamp()")
    for number, user in enumerate(USERS):
        shown = [item for item, _, _ in shop.recommend(user, k=10)]
        chosen = {0: shown[:1], 1: shown[number % 10 : number % 10 + 3], 2: ["59"], 3: shown[:1]}[number % 4]
        kind = "return" if number % 4 == 3 else "purchase"
        shop.add_events(Event(user, item, shop.value("select clock_timestamp()"), kind, 1) for item in chosen)
    return start, shop.value("select clock_timestamp()")


def make(connection: Session, kind: str) -> Judged:
    """Forty users, each with a history like nobody else's, ten of them new."""
    shop = create_shop(connection, products=60)
    shop.add_events(
        Event(
            user, str(1 + (number * 7 + n * (3 + number % 5)) % 58), NOON + (number + n) * timedelta(hours=3), "view", 1
        )
        for number, user in enumerate(USERS[:30])
        for n in range(2 + number % 6)
    )
    shop.drain()
    model = 1
    if kind == "learned":
        model = stage(connection)
        backfill(connection)
        connection.execute("select dynrec.promote_model('shop')")
    return Judged(shop, *act(shop), model)


@pytest.fixture(scope="module", params=["content", "learned"])
def judged(make_database: MakeDatabase, template: str, request: pytest.FixtureRequest) -> Iterator[Judged]:
    """For tests that leave it as it is."""
    with database.connect(make_database(template)) as connection:
        yield make(connection, request.param)


def error(values: list[float]) -> float | None:
    return None if len(values) < 2 else float(np.std(values, ddof=1) / np.sqrt(len(values)))


def in_parts(items: list[Any], bins: int, sorted_by: int) -> list[Any]:
    """Sorted items in equal parts, the larger ones first; of equal items that a cut divides all are hits or none."""
    parts = [part.tolist() for part in np.array_split(np.array(items), bins) if len(part)]
    for one, other in pairwise(parts):
        key = one[-1][:sorted_by]
        if key == other[0][:sorted_by]:
            assert len({item[-1] for item in items if list(item[:sorted_by]) == key}) == 1
    return parts


def content_bins(lists: list[list[tuple[float, int]]], bins: int) -> list[tuple[Any, ...]]:
    items = sorted(item for one in lists for item in one)
    parts = in_parts(items, bins, 1)
    return [
        (
            part[0][0],
            part[-1][0],
            None,
            sum(hit for _, hit in part) / len(part),
            error([hit for _, hit in part]),
            len(part),
            sum(hit for _, hit in part),
        )
        for part in parts
    ]


def learned_bins(lists: list[list[tuple[float, int]]], bins: int) -> list[tuple[Any, ...]]:
    items = []
    for one in lists:
        hits = sum(hit for _, hit in one)
        if hits:
            best = max(score for score, _ in one)
            weights = [math.exp(max(score - best, -700)) for score, _ in one]
            items += [
                (weight / sum(weights), score, hit, hit / hits)
                for weight, (score, hit) in zip(weights, one, strict=True)
            ]
    parts = in_parts(sorted(items), bins, 2)
    return [
        (
            min(score for _, score, _, _ in part),
            max(score for _, score, _, _ in part),
            float(np.mean([promised for promised, *_ in part])),
            float(np.mean([share for *_, share in part])),
            error([share for *_, share in part]),
            len(part),
            sum(hit for _, _, hit, _ in part),
        )
        for part in parts
    ]


def assert_same(got: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    assert len(got) == len(wanted)
    for row, expected in zip(got, wanted, strict=True):
        assert [value is None for value in row] == [value is None for value in expected]
        assert row == tuple(value if value is None else pytest.approx(value, abs=1e-9) for value in expected)


@pytest.mark.parametrize(
    ("given", "k", "bins"),
    [({}, 10, 10), ({}, 10, 1), ({}, 3, 7), ({}, 1, 100), ({"users": 5, "seed": 3}, 10, 4)],
    ids=str,
)
def test_calibration_is_that_of_the_lists(judged: Judged, given: dict[str, Any], k: int, bins: int) -> None:
    lists = judged.lists(k=k, **given)
    wanted = (content_bins if judged.model == 1 else learned_bins)(lists, bins)
    got = judged.calibration(k=k, bins=bins, **given)
    assert_same(got, wanted)
    assert sum(row[6] for row in got) > 0
    assert len(got) == bins or bins == 100


def test_what_is_promised_sums_up_to_what_was_met(judged: Judged) -> None:
    """Of a learned model both shares of every list with a hit sum up to 1; of a content space hits are counted."""
    lists = [one for one in judged.lists() if judged.model == 1 or any(hit for _, hit in one)]
    for bins in (1, 3, 10):
        rows = judged.calibration(bins=bins)
        assert sum(row[5] for row in rows) == sum(map(len, lists))
        assert sum(row[6] for row in rows) == sum(hit for one in lists for _, hit in one)
        observed = sum(row[5] * row[3] for row in rows)
        if judged.model == 1:
            assert observed == pytest.approx(sum(hit for one in lists for _, hit in one))
        else:
            assert observed == pytest.approx(len(lists))
            assert sum(row[5] * row[2] for row in rows) == pytest.approx(len(lists))
        assert all(0 <= row[3] <= 1 and row[0] <= row[1] for row in rows)
        assert max(row[5] for row in rows) - min(row[5] for row in rows) <= 1


def test_defaults_are_ten_items_and_ten_bins(judged: Judged) -> None:
    assert_same(judged.calibration(), judged.calibration(k=10, bins=10, users=None, seed=0, by_model=judged.model))


def test_another_version_is_asked_for_by_its_number(judged: Judged) -> None:
    if judged.model > 1:
        assert None not in {row[2] for row in judged.calibration()}
        assert_same(judged.calibration(by_model=1), content_bins(judged.lists(by_model=1), 10))


def test_scores_are_read_as_those_of_the_version_that_answered_then(connection: Session) -> None:
    judged = make(connection, "content")
    before = judged.calibration()
    assert {row[2] for row in before} == {None}
    stage(connection)
    backfill(connection)
    connection.execute("select dynrec.promote_model('shop')")
    assert_same(judged.calibration(), before)


def test_a_period_in_which_nobody_did_anything(judged: Judged) -> None:
    moment = judged.start + timedelta(microseconds=1)
    assert Judged(judged.shop, judged.start, moment, judged.model).calibration() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": 0}, r"bins is out of range: '0'"),
        ({"bins": -3}, r"bins is out of range: '-3'"),
        ({"bins": 101}, r"bins is out of range: '101'"),
        ({"bins": None}, r"bins is out of range: null"),
        ({"k": 0}, "k is out of range"),
        ({"k": 10_001}, "k is out of range"),
        ({"users": 0}, "users is out of range"),
        ({"by_model": 77}, "77"),
    ],
    ids=str,
)
@pytest.mark.parametrize("judged", ["content"], indirect=True)
def test_bad_arguments(judged: Judged, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        judged.calibration(**arguments)


@pytest.mark.parametrize(
    "period",
    [("2999-01-01", "2999-02-01"), ("now", "2000-01-01"), ("infinity", "infinity"), (None, "now"), ("now", None)],
)
def test_periods_that_are_none(shop: Shop, period: tuple[Any, Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        Judged(shop, *period, model=1).calibration()
    with pytest.raises(psycopg.errors.UndefinedObject):
        shop.execute("select * from dynrec.score_calibration('shp', now() - interval '1 hour', now())")
