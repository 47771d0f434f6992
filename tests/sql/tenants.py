"""Two tenants who share a recommender, under row-level security; and how to ask everything that one of them may ask."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tests import learned
from tests.drain import Session, claim, drain, fail

# What belongs to one tenant has its mark in every key, text, category, kind and number.
ANT, BEE = "tenant_ant", "tenant_bee"
MARKS = {ANT: ("ant-", "31337"), BEE: ("bee-", "80717")}
PRICES = {ANT: 31337000, BEE: 80717000}

TABLES = """
    create schema market;
    create table market.products (
        id text primary key, title text, category text, price numeric, secret text default 'hidden', tenant text not null);
    create table market.events (
        user_id text, item_id text, kind text, value double precision, occurred_at timestamptz not null, tenant text not null);
    create index on market.events (user_id);
    create index on market.events (item_id)
"""
DECLARE = """
    select dynrec.create_recommender('market', 'market.products', text_columns => '{title}', categorical_columns => '{category}',
        numeric_columns => '{price}', interactions => 'market.events', kind_column => 'kind', value_column => 'value',
        kinds => '{"view": {"weight": 1, "half_life": "1 day"}, "*": {"weight": 2, "half_life": "90 days"}}', encoder => 'hashing')
"""
# Who a row belongs to: a setting of the session, or the role itself.
CONDITIONS: dict[str, LiteralString] = {
    "setting": "tenant = current_setting('app.tenant')",
    "role": "tenant = current_user",
}
ITEMS, USERS = 12, 4
FIRST, SPAN = "timestamptz '2024-03-01 12:00+00'", "interval '40 days'"


def fill(connection: Session, tenant: str) -> None:
    """The tenant's products, and what its users did with them."""
    mark, price = MARKS[tenant][0], PRICES[tenant]
    connection.execute(
        """
        insert into market.products (id, title, category, price, tenant)
        select %(mark)s || to_char(n, 'FM00'), %(mark)s || 'title ' || (array['red','blue','old','new'])[1 + n %% 4] || ' '
            || (array['lamp','chair','spoon'])[1 + n %% 3] || ' nr ' || n, %(mark)s || 'class' || n %% 3, %(price)s + n, %(tenant)s
        from generate_series(1, %(items)s) n
        """,
        {"mark": mark, "price": price, "tenant": tenant, "items": ITEMS},
    )
    connection.execute(
        """
        insert into market.events
        select %(mark)s || 'user' || u, %(mark)s || to_char(1 + (u * 5 + n * 3) %% 12, 'FM00'),
            case n %% 3 when 0 then 'view' else %(mark)s || 'kind' end, %(price)s / 1000 + n / 1000.0,
            timestamptz '2024-03-01 12:00+00' + n * interval '4 days' + u * interval '1 hour', %(tenant)s
        from generate_series(1, %(users)s) u, generate_series(1, 8) n
        """,
        {"mark": mark, "price": price, "tenant": tenant, "users": USERS},
    )


def open_market(connection: Session, tenants: Sequence[str] = (ANT, BEE)) -> None:
    """The tables with what these tenants have, and a recommender over them; all is published."""
    connection.execute(TABLES)
    for tenant in tenants:
        fill(connection, tenant)
    connection.execute(DECLARE)
    drain(connection)


@dataclass(frozen=True)
class Market:
    """A market with everything that dynrec keeps about its users."""

    connection: Session
    model: int  # the learned one, in its shadow; the content model answers
    since: datetime  # all vectors are known from here on


def busy_market(connection: Session, tenants: Sequence[str] = (ANT, BEE)) -> Market:
    """The market of these tenants, in full use."""
    open_market(connection, tenants)
    model = learned.stage(connection, recommender="market")
    learned.backfill(connection, "market")
    ((since,),) = connection.execute("select clock_timestamp()").fetchall()
    connection.execute("""select dynrec.create_experiment('market', 'trial', '[{"arm": "a"}, {"arm": "b"}]')""")
    for tenant in tenants:
        mark, number = MARKS[tenant]
        for user in (1, 2, 3):
            _live(connection, tenant, f"{mark}user{user}", [f"{mark}{n:02}" for n in (1, 2, 3)], number)
        connection.execute("select dynrec.forget_user('market', %s)", [f"{mark}user4"])
    drain(connection)
    learned.backfill(connection, "market")
    connection.execute("select dynrec.watch('market')")
    _fail_some(connection)
    return Market(connection, model, since)


def _live(connection: Session, tenant: str, user: str, items: Sequence[str], number: str) -> None:
    # a list is shown, and the user takes something from it
    connection.execute(
        "select dynrec.log_impressions('market', %s, %s, surface => %s, experiment => 'trial', model_version => 1)",
        [user, list(items), user],
    )
    connection.execute(
        "insert into market.events values (%s, %s, 'view', %s, clock_timestamp(), %s)", [user, items[0], number, tenant]
    )


def _fail_some(connection: Session) -> None:
    # changes that wait, one that failed, one that was given up, a lease; of either tenant
    connection.execute(
        "update market.products set title = title || '!' where id in ('ant-05', 'bee-05', 'ant-06', 'bee-06')"
    )
    connection.execute("update market.events set value = value + 0.5 where user_id in ('ant-user2', 'bee-user2')")
    for kind, entities in (("item", ["ant-05", "bee-05"]), ("user", ["ant-user2", "bee-user2"])):
        token = claim(connection, "market", kind)
        assert token is not None
        for entity in entities:
            fail(connection, token, [entity], f"cannot encode {entity}", charge=True)
    connection.execute(
        """
        insert into dynrec_data.dead_letter (entity, kind, recommender_id, attempts, error)
        select k.entity, k.kind, r.id, 1, 'gave up ' || k.entity from dynrec_data.recommender r,
            (values ('item', 'ant-07'), ('item', 'bee-07'), ('user', 'ant-user3'), ('user', 'bee-user3')) as k (kind, entity)
        where r.name = 'market'
        """
    )


def secure(connection: Session, tables: Sequence[str] = ("products", "events"), by: str = "role") -> None:
    """Rows of these tables are for their tenant."""
    for table in tables:
        connection.execute(
            sql.SQL(
                "alter table market.{0} enable row level security;"
                "drop policy if exists tenant on market.{0}; create policy tenant on market.{0} using ({1})"
            ).format(sql.Identifier(table), sql.SQL(CONDITIONS[by]))
        )


@contextmanager
def roles(*connections: Session, grants: LiteralString = "select on all tables in schema market") -> Iterator[None]:
    """The roles of both tenants, who may read and log in these databases."""
    for tenant in (ANT, BEE):
        connections[0].execute(
            sql.SQL("create role {0}; grant dynrec_writer to {0}").format(sql.Identifier(tenant)).as_bytes()
        )
        for connection in connections:
            _grant(connection, "usage on schema market", tenant)
            _grant(connection, grants, tenant)
    try:
        yield
    finally:
        for connection in connections:
            _reset(connection)
            connection.execute(f"drop owned by {ANT}, {BEE} cascade".encode())
        connections[0].execute(f"drop role {ANT}, {BEE}".encode())


def _grant(connection: Session, right: LiteralString, tenant: str) -> None:
    connection.execute(sql.SQL("grant {} to {}").format(sql.SQL(right), sql.Identifier(tenant)))


def _reset(connection: Session) -> None:
    connection.execute("rollback" if connection.info.transaction_status else "select 1")
    connection.execute("reset role; reset all")


@contextmanager
def acting(connection: Session, tenant: str = ANT) -> Iterator[None]:
    """The connection as one of them."""
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(tenant)))
    connection.execute("select set_config('app.tenant', %s, false)", [tenant])
    try:
        yield
    finally:
        _reset(connection)


def told(error: psycopg.Error) -> str:
    """All that an error says to a client."""
    return " ".join(
        str(part)
        for part in (
            error.diag.message_primary,
            error.diag.message_detail,
            error.diag.message_hint,
            error.diag.context,
            error.diag.internal_query,
        )
    )


def heard(connection: Session, statement: str, arguments: Any = None) -> str:
    """All that a statement tells: rows as text, errors, notices."""
    notices: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        notices.append(f"{notice.message_primary} {notice.message_detail} {notice.message_hint} {notice.context}")

    connection.add_notice_handler(listen)
    try:
        rows = connection.execute(statement.encode(), arguments).fetchall()
        return "\n".join([*(str(row) for row in rows), *notices])
    except psycopg.Error as error:
        return "\n".join([f"error: {told(error)}", *notices])
    finally:
        connection.remove_notice_handler(listen)
