"""A shop that is watched, and what its measurements say."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.drain import Session
from tests.sql.shop import NOON, Event, Shop

USERS = [f"u{n}" for n in range(8)]


Noted = dict[tuple[str, int | None, str], tuple[Any, ...]]


@pytest.fixture
def watched(shop: Shop) -> Shop:
    """A shop with a past, whose vectors are complete and whose profile is taken."""
    shop.add_events(
        Event(USERS[n % 6], str(1 + (n * 7) % 11), NOON + timedelta(hours=n), ["view", "purchase"][n % 2], 1)
        for n in range(40)
    )
    shop.drain()
    shop.execute("select dynrec._take_profiles()")
    return shop


def now(shop: Shop) -> datetime:
    moment: datetime = shop.value("select clock_timestamp()")
    return moment


def act(shop: Shop, shift: int = 0) -> None:
    """Every user meets an item at this very moment."""
    for n, user in enumerate(USERS):
        shop.add_events([Event(user, str(1 + (5 * n + shift) % 12), now(shop), "purchase", 2)])


def watch(shop: Shop) -> datetime:
    """Measure; the moment of it. What is returned is how many rows there are more."""
    before = shop.value("select count(*) from dynrec_data.measurement")
    noted = shop.value("select dynrec.watch(%s)", [shop.name])
    assert shop.value("select count(*) from dynrec_data.measurement") == before + noted
    moment: datetime = shop.value("select measured_at from dynrec_data.recommender where name = %s", [shop.name])
    return moment


def measured(shop: Shop, moment: datetime) -> list[tuple[Any, ...]]:
    return shop.execute(
        "select metric, at_k, slice, value, standard_error, n, model_version, period_from from dynrec.measurements "
        "where recommender = %s and measured_at = %s order by 1, 2, 3",
        [shop.name, moment],
    )


def period(shop: Shop, moment: datetime) -> tuple[datetime, int] | None:
    """From when on and which version a measurement judged; None where it judged no lists."""
    found = {(row[7], row[6]) for row in measured(shop, moment) if row[7] is not None}
    assert len(found) <= 1
    return next(iter(found), None)


def complete_since(shop: Shop, model: int = 1) -> datetime:
    moment: datetime = shop.value(
        "select (profile ->> 'taken_at')::timestamptz from dynrec_data.model_version where id = %s", [model]
    )
    return moment


def make_older(shop: Shop, age: str) -> None:
    """As if all had been made so long ago, its vectors and lists included."""
    for statement in (
        "update dynrec_data.recommender set created_at = created_at - %(age)s::interval, measured_at = measured_at - %(age)s::interval",
        """
        update dynrec_data.model_version set stored_at = stored_at - %(age)s::interval,
          profile = profile || jsonb_build_object('taken_at', (profile ->> 'taken_at')::timestamptz - %(age)s::interval)
        """,
        "update dynrec_data.model_activation set activated_at = activated_at - %(age)s::interval",
        "update dynrec_data.item_vector set created_at = created_at - %(age)s::interval",
    ):
        shop.connection.execute(statement.encode(), {"age": age})


def answering(shop: Shop, moment: datetime) -> int:
    """The version that answered at a moment."""
    return int(
        shop.value(
            "select model_id from dynrec_data.model_activation where activated_at <= %s order by activated_at desc limit 1",
            [moment],
        )
    )


def add_other(shop: Shop, name: str = "other") -> None:
    shop.execute(
        "select dynrec.create_recommender(%s, 'shop.products', text_columns => '{title}', interactions => 'shop.events', encoder => 'hashing')",
        [name],
    )
    shop.drain()
    shop.execute("select dynrec._take_profiles()")


def next_one(connection: Session) -> str | None:
    ((name,),) = connection.execute("select dynrec._watch_next()").fetchall()
    return None if name is None else str(name)


def ages(connection: Session, **of: str | None) -> None:
    """When recommenders were measured last; None: never, and made long ago."""
    for name, age in of.items():
        connection.execute(
            "update dynrec_data.recommender set measured_at = now() - %s::interval, created_at = now() - interval '100 days' where name = %s",
            [age, name],
        )


@contextmanager
def other_sessions(url: str) -> Iterator[tuple[Session, Session]]:
    """One whose transaction stays open, and one that must not wait for it."""
    with psycopg.connect(url) as holding, psycopg.connect(url, autocommit=True) as passing:
        yield holding, passing
        holding.rollback()
