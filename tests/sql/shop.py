"""A shop: products, events, a recommender over both, and what its vectors have to be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import numpy as np
from psycopg.types.json import Jsonb

from tests.drain import Encodes, Session, drain, from_text
from tests.reference import CLOSE, DEFAULT_KINDS, Event, Kind, Kinds, Vector, document, item_vectors, user_vectors

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)

TABLES = """
    create schema shop;
    create table shop.products (
        id bigint primary key, title text, body text, category text, price numeric, stock int not null default 0, extra json);
    create table shop.events (
        id bigint generated always as identity primary key, user_id text, item_id bigint, kind text,
        value double precision, occurred_at timestamptz not null default now());
    create index on shop.events (user_id);
    create index on shop.events (item_id);
"""

KINDS: Kinds = {
    "view": Kind(1, timedelta(days=1)),
    "purchase": Kind(3, timedelta(days=90)),
    "return": Kind(-2.5, timedelta(days=90)),
    "*": Kind(0.5, timedelta(days=30)),
}

WORDS = [
    "red",
    "blue",
    "green",
    "small",
    "large",
    "old",
    "new",
    "wooden",
    "iron",
    "paper",
    "lamp",
    "chair",
    "table",
    "spoon",
    "kettle",
    "shelf",
    "clock",
    "brush",
]


def title(number: int) -> str:
    """A title of three words that no other number below 5,000 has."""
    return f"{WORDS[number % 9]} {WORDS[9 + number % 9]} nr {number}"


def kinds_argument(kinds: Kinds) -> Jsonb:
    """Kinds as create_recommender takes them."""
    return Jsonb(
        {
            name: {"weight": kind.weight, "half_life": f"{kind.half_life.total_seconds()} seconds"}
            for name, kind in kinds.items()
        }
    )


@dataclass
class Shop:
    """A recommender and the queries that read its sources: (id, parts of the text …) and (user, item, time, kind, value)."""

    connection: Session
    name: str = "shop"
    items: LiteralString = "select id::text, title, category from shop.products"
    interactions: LiteralString | None = "select user_id, item_id::text, occurred_at, kind, value from shop.events"
    kinds: Kinds = field(default_factory=lambda: KINDS)

    def execute(self, statement: LiteralString, arguments: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement; its rows if it has any."""
        cursor = self.connection.execute(statement, arguments)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: LiteralString, arguments: Any = None) -> Any:
        """The first column of the first row."""
        return self.execute(statement, arguments)[0][0]

    def add_products(self, numbers: Iterable[int]) -> None:
        """Products with their titles, ten categories and prices."""
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into shop.products (id, title, category, price) values (%s, %s, %s, %s)",
                [(n, title(n), f"c{n % 10}", n) for n in numbers],
            )

    def add_events(self, events: Iterable[Event]) -> None:
        """Events, one statement each."""
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into shop.events (user_id, item_id, occurred_at, kind, value) values (%s, %s, %s, %s, %s)",
                [(e.user, e.item, e.at, e.kind, e.value) for e in events],
            )

    def texts(self) -> dict[str, str]:
        """The text of each item that the source has now."""
        return {row[0]: document(*row[1:]) for row in self.execute(self.items)}

    def events(self) -> list[Event]:
        """The interactions that the source has now, without those that count for nobody."""
        rows = self.execute(self.interactions) if self.interactions else []
        return [Event(*row) for row in rows if None not in row[:3]]

    def drain(self, encoder: Encodes | None = None) -> None:
        """Let the workers do what waits."""
        drain(self.connection, encoder)

    def item_vectors(self, ids: Iterable[str]) -> dict[str, Vector | None]:
        """The vectors of items as the database has them."""
        rows = self.execute(
            "select i, dynrec.item_vector_at(%s, i)::text from unnest(%s::text[]) i", [self.name, list(ids)]
        )
        return {item: from_text(vector) for item, vector in rows}

    def user_vectors(self, ids: Iterable[str]) -> dict[str, Vector | None]:
        """The vectors of users as the database has them."""
        rows = self.execute(
            "select u, dynrec.user_vector_at(%s, u)::text from unnest(%s::text[]) u", [self.name, list(ids)]
        )
        return {user: from_text(vector) for user, vector in rows}

    def assert_right(self) -> None:
        """Every current vector is the reference's, and there is none besides."""
        self.assert_items_right()
        self.assert_users_right()

    def assert_items_right(self) -> None:
        """Items alone."""
        expected = item_vectors(self.texts())
        assert_close(self.item_vectors(expected), expected)
        assert self.counts()[0] == len(expected), "vectors of items that the source has not"

    def assert_users_right(self) -> None:
        """Users alone."""
        self.assert_users_folded()
        assert self.counts()[1] == len({event.user for event in self.events()}), (
            "users stored and users with interactions"
        )

    def assert_users_folded(self) -> None:
        """Users whose interactions may not have been published yet."""
        expected = user_vectors(self.events(), item_vectors(self.texts()), self.kinds)
        assert_close(self.user_vectors(expected), expected)

    def counts(self) -> tuple[int, int]:
        """How many items and users are stored."""
        ((items, users),) = self.execute(
            "select items, users from dynrec.model_versions where recommender = %s", [self.name]
        )
        return items, users

    def queued(self) -> set[tuple[str, str]]:
        """The kinds and keys that wait, tasks as ('task', action)."""
        rows = self.execute(
            """
            select c.kind, c.entity from dynrec_data.change c join dynrec_data.recommender r on r.id = c.recommender_id
            where r.name = %(name)s
            union all
            select 'task', t.action from dynrec_data.task t join dynrec_data.recommender r on r.id = t.recommender_id
            where r.name = %(name)s
            """,
            {"name": self.name},
        )
        assert len(rows) >= len(set(rows))
        return {(kind, entity) for kind, entity in rows}

    def recommend(self, user: str, **arguments: Any) -> list[tuple[str, float, str]]:
        """Item, score and source of each row for a user."""
        return self.call("recommend", user_id=user, **arguments)

    def call(self, function: str, **arguments: Any) -> list[tuple[str, float, str]]:
        """Item, score and source of each row that a read gives; the ranks are checked here."""
        return call(self.connection, self.name, function, **arguments)


def call(connection: Session, recommender: str, function: str, **arguments: Any) -> list[tuple[str, float, str]]:
    """Item, score and source of each row of a read, its ranks checked."""
    given = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in arguments.items()}
    named = "".join(f", {name} => %({name})s" for name in given)
    rows = connection.execute(
        f"select item_id, score, source, rank from dynrec.{function}(%(recommender)s{named}) order by rank".encode(),
        {"recommender": recommender, **given},
    ).fetchall()
    assert [row[3] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row[0] for row in rows}) == len(rows), "an item comes twice"
    return [(item, score, source) for item, score, source, _ in rows]


def assert_close(got: Mapping[str, Vector | None], expected: Mapping[str, Vector | None]) -> None:
    """The same keys, and vectors that differ by rounding alone."""
    assert got.keys() == expected.keys()
    for key, vector in expected.items():
        other = got[key]
        if vector is None or other is None:
            assert vector is other, f"{key}: {vector} expected, {other} found"
        else:
            assert np.abs(vector - other).max() < CLOSE, f"{key} is off by {np.abs(vector - other).max()}"


def create_shop(connection: Session, products: int = 0, kinds: Kinds = KINDS, options: Mapping[str, Any] = {}) -> Shop:
    """The tables, that many products, and a recommender over title and category."""
    connection.execute(TABLES)
    shop = Shop(connection, kinds=kinds)
    shop.add_products(range(1, products + 1))
    connection.execute(
        """
        select * from dynrec.create_recommender('shop', 'shop.products', text_columns => '{title}',
            categorical_columns => '{category}', numeric_columns => '{price}', interactions => 'shop.events',
            kind_column => 'kind', value_column => 'value', kinds => %s, encoder => 'hashing', options => %s)
        """,
        [kinds_argument(kinds), Jsonb(dict(options))],
    )
    return shop


def open_shop(connection: Session) -> Shop:
    """Twelve products without events; everything published."""
    shop = create_shop(connection, products=12)
    shop.drain()
    return shop


__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "NOON",
    "Event",
    "Kind",
    "Shop",
    "assert_close",
    "call",
    "create_shop",
    "open_shop",
    "title",
]
