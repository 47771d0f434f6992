"""What the recommender answers, now or as of a moment, in a form that can be compared."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from tests.property import shop
from tests.property.oracle import Vector
from tests.property.shop import Connection


@dataclass(frozen=True)
class Answers:
    """Everything that was answered at a moment."""

    at: datetime
    items: dict[str, Vector | None]
    users: dict[str, Vector | None]
    lists: dict[str, dict[str, float]]  # question -> item -> score


def now(connection: Connection) -> Answers:
    """The answers of the present."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return _ask(connection, row[0], None)


def as_of(connection: Connection, at: datetime) -> Answers:
    """The answers of a moment, given today."""
    return _ask(connection, at, at)


def _ask(connection: Connection, at: datetime, as_of: datetime | None) -> Answers:
    items = connection.execute(
        "select k::text, dynrec.item_vector_at(%s, k::text, coalesce(%s, now()))::real[] from unnest(%s::int[]) k",
        [shop.NAME, as_of, list(shop.ITEMS)],
    ).fetchall()
    users = connection.execute(
        "select u, dynrec.user_vector_at(%s, u, %s)::real[] from unnest(%s::text[]) u", [shop.NAME, as_of, shop.USERS]
    ).fetchall()
    # what is popular or seen at a moment is counted from today's interactions: only scores by vector are compared
    lists = connection.execute(
        """
        select 'for ' || u, r.item_id, r.score from unnest(%(users)s::text[]) u,
          dynrec.recommend(%(name)s, u, 50, exclude_seen => false, as_of => %(as_of)s) r where r.source = 'personal'
        """,
        {"users": shop.USERS, "name": shop.NAME, "as_of": as_of},
    ).fetchall()
    answer: dict[str, dict[str, float]] = {}
    for question, item, score in lists:
        answer.setdefault(question, {})[item] = score
    return Answers(at, _vectors(items), _vectors(users), answer)


def _vectors(rows: list[tuple[str, list[float] | None]]) -> dict[str, Vector | None]:
    return {key: None if vector is None else np.asarray(vector) for key, vector in rows}


def differences(then: Answers, later: Answers) -> list[str]:
    """Where two answers differ by more than rounding."""
    return [
        f"{key} at {then.at}: {before} became {after}"
        for key, before, after in [
            *((f"item {item}", then.items[item], later.items[item]) for item in then.items),
            *((f"user {user}", then.users[user], later.users[user]) for user in then.users),
        ]
        if not _close(before, after)
    ] + [
        f"{question} at {then.at}: {then.lists.get(question)} became {later.lists.get(question)}"
        for question in sorted(then.lists.keys() | later.lists.keys())
        if not _same_scores(then.lists.get(question, {}), later.lists.get(question, {}))
    ]


def _same_scores(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and all(abs(a[item] - b[item]) < 1e-4 for item in a)


def _close(a: Vector | None, b: Vector | None) -> bool:
    return (a is None) == (b is None) and (a is None or b is None or bool(np.allclose(a, b, atol=1e-4)))
