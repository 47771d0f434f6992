"""A small application and random things to do with it: the tables that the random histories write to.

The domains are tiny on purpose, so that writers, workers and readers keep meeting at the same rows.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

NAME = "shop"
DIMENSION = 16
ITEMS = range(1, 13)
USERS = [f"u{n}" for n in range(1, 8)]
TITLES = ["red shoe", "blue shoe", "green hat", "warm hat", "long coat", "", None]
KINDS = ["view", "buy", "return", "other"]
WEIGHTS = {"view": 1.0, "buy": 3.0, "return": -2.0, "other": 0.5}
DECLARED = """
    {"view": {"weight": 1}, "buy": {"weight": 3, "half_life": "30 days"},
     "return": {"weight": -2}, "*": {"weight": 0.5}}
"""
HALF_LIVES = {"view": 7 * 86400.0, "buy": 30 * 86400.0, "return": 7 * 86400.0, "other": 7 * 86400.0}  # seconds
TRENDING_HALF_LIFE = 7 * 86400.0  # seconds
OLDEST = 60 * 86400.0  # seconds before now

_TABLES: dict[str, LiteralString] = {
    "plain": """
        create table item (id int primary key, title text, category text, price numeric, note text);
        create table event (id bigint generated always as identity primary key,
          user_id text, item_id int, kind text, value double precision, occurred_at timestamptz, note text)
    """,
    "partitioned": """
        create table item (id int primary key, title text, category text, price numeric, note text)
          partition by range (id);
        create table item_low partition of item for values from (minvalue) to (7);
        create table item_high partition of item for values from (7) to (maxvalue);
        create table event (id bigint generated always as identity,
          user_id text, item_id int, kind text, value double precision, occurred_at timestamptz, note text)
          partition by list (kind);
        create table event_view partition of event for values in ('view');
        create table event_other partition of event default
    """,
}
_TABLES["adopted"] = _TABLES["plain"]
LAYOUTS = sorted(_TABLES)

# Vectors that the application keeps itself: of a title, as far from the encoder's as can be.
_ADOPTED: LiteralString = """
    create function title_vector(title text) returns vector language sql immutable as $$
      select array(select get_byte(decode(md5(title), 'hex'), b)::real - 128 from generate_series(0, 15) b)::vector
      where title <> ''
    $$;
    alter table item add column embedding vector(16) generated always as (title_vector(title)) stored
"""


def declare(connection: Connection, layout: str = "plain", *, max_attempts: int = 100) -> None:
    """Make the tables and the recommender over them."""
    connection.execute(_TABLES[layout])
    if layout == "adopted":
        connection.execute(_ADOPTED)
    connection.execute("create index on event (user_id); create index on event (item_id)")
    connection.execute("select dynrec.register_encoder('tiny', 'hashing', '', %s)", [DIMENSION])
    connection.execute(
        """
        select dynrec.create_recommender(%s, 'item', text_columns => '{title}', numeric_columns => '{price}',
          categorical_columns => '{category}', interactions => 'event', kind_column => 'kind', value_column => 'value',
          encoder => 'tiny', vector_column => %s, kinds => %s,
          options => jsonb_build_object('half_life', '7 days', 'max_attempts', %s::int))
        """,
        [NAME, "embedding" if layout == "adopted" else None, DECLARED, max_attempts],
    )


Action: TypeAlias = Callable[["Writer"], None]


@dataclass(frozen=True)
class Writer:
    """One connection's share of a random history; everything it does follows from the generator."""

    connection: Connection
    random: random.Random
    only: Sequence[Action] = ()  # what to do; nothing here: everything

    def item(self) -> int:
        return self.random.choice(ITEMS)

    def user(self) -> str:
        return self.random.choice(USERS)

    def title(self) -> str | None:
        return self.random.choice(TITLES)

    def category(self) -> str | None:
        return self.random.choice(["wear", "feet", None])

    def price(self) -> float | None:
        return self.random.choice([1.5, 20.0, None])

    def event(self) -> list[object]:
        """user, item, kind, value, age in seconds: mostly recent, some late; now and then without item or user."""
        age = self.random.choice([0.0, self.random.uniform(0, 3600), self.random.uniform(0, OLDEST)])
        item = None if self.random.random() < 0.03 else self.item()
        user = None if self.random.random() < 0.03 else self.user()
        value: float | None = self.random.choice([None, 1.0, 2.5, 0.0, -1.0])
        return [user, item, self.random.choice(KINDS), value, age]

    def act(self) -> str:
        """One random statement; returns its name."""
        choice = self.only or list(ACTIONS)
        action = self.random.choices(choice, [ACTIONS.get(action, OWN) for action in choice])[0]
        action(self)
        return action.__name__


def insert_item(writer: Writer) -> None:
    writer.connection.execute(
        """
        insert into item (id, title, category, price) values (%s, %s, %s, %s) on conflict (id) do nothing
        """,
        [writer.item(), writer.title(), writer.category(), writer.price()],
    )


def upsert_items(writer: Writer) -> None:
    for_items = writer.random.sample(list(ITEMS), 4)
    writer.connection.execute(
        """
        insert into item (id, title, category, price)
        select * from unnest(%s::int[], %s::text[], %s::text[], %s::numeric[]) n order by 1
        on conflict (id) do update set title = excluded.title, price = excluded.price
        """,
        [
            for_items,
            [writer.title() for _ in for_items],
            [writer.category() for _ in for_items],
            [writer.price() for _ in for_items],
        ],
    )


def merge_item(writer: Writer) -> None:
    writer.connection.execute(
        """
        merge into item i using (select %s::int as id, %s::text as title) n on i.id = n.id
        when matched and i.title is null then delete
        when matched then update set title = n.title
        when not matched then insert (id, title) values (n.id, n.title)
        """,
        [writer.item(), writer.title()],
    )


def update_title(writer: Writer) -> None:
    writer.connection.execute("update item set title = %s where id = %s", [writer.title(), writer.item()])


def update_many(writer: Writer) -> None:
    writer.connection.execute(
        "with chosen as (select id from item where id %% 3 = %s order by id for update)"
        " update item set category = %s, title = %s where id in (select id from chosen)",
        [writer.random.randrange(3), writer.category(), writer.title()],
    )


def update_unwatched(writer: Writer) -> None:
    writer.connection.execute("update item set note = 'seen' where id = %s", [writer.item()])


def update_price(writer: Writer) -> None:
    writer.connection.execute("update item set price = %s where id = %s", [writer.price(), writer.item()])


def move_key(writer: Writer) -> None:
    writer.connection.execute(
        "update item set id = %(new)s where id = %(old)s and not exists (select from item where id = %(new)s)",
        {"new": writer.item(), "old": writer.item()},
    )


def delete_item(writer: Writer) -> None:
    writer.connection.execute("delete from item where id = %s", [writer.item()])


def truncate_items(writer: Writer) -> None:
    writer.connection.execute("truncate item")


def insert_events(writer: Writer) -> None:
    events = [writer.event() for _ in range(writer.random.randint(1, 5))]
    writer.connection.execute(
        """
        insert into event (user_id, item_id, kind, value, occurred_at)
        select n.user_id, n.item_id, n.kind, n.value, now() - make_interval(secs => n.age)
        from unnest(%s::text[], %s::int[], %s::text[], %s::float8[], %s::float8[])
          n (user_id, item_id, kind, value, age)
        """,
        [list(column) for column in zip(*events, strict=True)],
    )


def update_event(writer: Writer) -> None:
    user, item, kind, value, age = writer.event()
    writer.connection.execute(
        """
        update event set user_id = coalesce(%s, user_id), item_id = %s, kind = %s, value = %s,
          occurred_at = now() - make_interval(secs => %s)
        where id = (select id from event where user_id = %s order by id desc limit 1)
        """,
        [user, item, kind, value, age, writer.user()],
    )


def note_events(writer: Writer) -> None:
    writer.connection.execute(
        "update event set note = 'x' where id in (select id from event where user_id = %s order by id for update)",
        [writer.user()],
    )


def delete_event(writer: Writer) -> None:
    writer.connection.execute(
        "delete from event where id = (select id from event where user_id = %s order by id limit 1)", [writer.user()]
    )


def forget_user(writer: Writer) -> None:
    writer.connection.execute(
        "delete from event where id in (select id from event where user_id = %s order by id for update)",
        [writer.user()],
    )


def truncate_events(writer: Writer) -> None:
    writer.connection.execute("truncate event")


def refresh(writer: Writer) -> None:
    writer.connection.execute(
        "select dynrec.refresh(%s, item_ids => %s, user_ids => %s)", [NAME, [str(writer.item())], [writer.user()]]
    )


def refresh_all(writer: Writer) -> None:
    writer.connection.execute("select dynrec.refresh(%s)", [NAME])


ACTIONS: dict[Action, int] = {
    insert_item: 10,
    upsert_items: 6,
    merge_item: 4,
    update_title: 10,
    update_many: 3,
    update_unwatched: 3,
    update_price: 3,
    move_key: 4,
    delete_item: 6,
    truncate_items: 1,
    insert_events: 40,
    update_event: 8,
    note_events: 2,
    delete_event: 8,
    forget_user: 1,
    truncate_events: 1,
    refresh: 2,
    refresh_all: 1,
}

OWN = 30  # the weight of a test's own actions

OF_EVENTS = [insert_events, update_event, note_events, delete_event, forget_user]
