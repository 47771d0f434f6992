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
MARKETS = {ANT: "ant-market", BEE: "bee-market"}  # where each has tables of his own

# Who a row belongs to: a setting of the session, or the role itself.
CONDITIONS: dict[str, LiteralString] = {
    "setting": "tenant = current_setting('app.tenant')",
    "role": "tenant = current_user",
}
READ = ("usage on schema market", "select on all tables in schema market")
ITEMS, USERS = 12, 4
FIRST, SPAN = "timestamptz '2024-03-01 12:00+00'", "interval '40 days'"


def of(market: str, statement: str) -> bytes:
    """A statement about the schema and recommender `market`, about those of another name."""
    return statement.replace("'market'", "'\0'").replace("market", f'"{market}"').replace("\0", market).encode()


def fill(connection: Session, tenant: str, market: str = "market") -> None:
    """The tenant's products, and what its users did with them."""
    mark, price = MARKS[tenant][0], PRICES[tenant]
    connection.execute(
        of(
            market,
            """
        insert into market.products (id, title, category, price, tenant)
        select %(mark)s || to_char(n, 'FM00'), %(mark)s || 'title ' || (array['red','blue','old','new'])[1 + n %% 4] || ' '
            || (array['lamp','chair','spoon'])[1 + n %% 3] || ' nr ' || n, %(mark)s || 'class' || n %% 3, %(price)s + n, %(tenant)s
        from generate_series(1, %(items)s) n
        """,
        ),
        {"mark": mark, "price": price, "tenant": tenant, "items": ITEMS},
    )
    connection.execute(
        of(
            market,
            """
        insert into market.events
        select %(mark)s || 'user' || u, %(mark)s || to_char(1 + (u * 5 + n * 3) %% 12, 'FM00'),
            case n %% 3 when 0 then 'view' else %(mark)s || 'kind' end, %(price)s / 1000 + n / 1000.0,
            timestamptz '2024-03-01 12:00+00' + n * interval '4 days' + u * interval '1 hour', %(tenant)s
        from generate_series(1, %(users)s) u, generate_series(1, 8) n
        """,
        ),
        {"mark": mark, "price": price, "tenant": tenant, "users": USERS},
    )


def open_market(connection: Session, tenants: Sequence[str] = (ANT, BEE), market: str = "market") -> None:
    """The tables with what these tenants have, and a recommender over them; all is published."""
    connection.execute(of(market, TABLES))
    for tenant in tenants:
        fill(connection, tenant, market)
    connection.execute(of(market, DECLARE))
    drain(connection)


@dataclass(frozen=True)
class Market:
    """A market with everything that dynrec keeps about its users."""

    connection: Session
    model: int  # the learned one, in its shadow; the content model answers
    since: datetime  # all vectors are known from here on


def busy_market(connection: Session, tenants: Sequence[str] = (ANT, BEE), market: str = "market") -> Market:
    """The market of these tenants, in full use."""
    open_market(connection, tenants, market)
    model = learned.stage(connection, recommender=market)
    learned.backfill(connection, market)
    ((since,),) = connection.execute("select clock_timestamp()").fetchall()
    connection.execute(
        of(market, """select dynrec.create_experiment('market', 'trial', '[{"arm": "a"}, {"arm": "b"}]')""")
    )
    for tenant in tenants:
        mark, _ = MARKS[tenant]
        for user in (1, 2, 3):
            _live(connection, market, tenant, f"{mark}user{user}", [f"{mark}{n:02}" for n in (1, 2, 3)])
        connection.execute("select dynrec.forget_user(%s, %s)", [market, f"{mark}user4"])
    drain(connection)
    learned.backfill(connection, market)
    connection.execute("select dynrec.watch(%s)", [market])
    _fail_some(connection, market)
    return Market(connection, model, since)


def _live(connection: Session, market: str, tenant: str, user: str, items: Sequence[str]) -> None:
    # a list is shown, and the user takes something from it
    connection.execute(
        "select dynrec.log_impressions(%s, %s, %s, surface => %s, experiment => 'trial', model_version => 1)",
        [market, user, list(items), user],
    )
    connection.execute(
        of(market, "insert into market.events values (%s, %s, 'view', %s, clock_timestamp(), %s)"),
        [user, items[0], MARKS[tenant][1], tenant],
    )


def _fail_some(connection: Session, market: str) -> None:
    # changes that wait, that failed, that were given up, leases
    connection.execute(of(market, "update market.products set title = title || '!' where id ~ '-0[56]$'"))
    connection.execute(of(market, "update market.events set value = value + 0.5 where user_id ~ 'user2$'"))
    for kind in ("item", "user"):
        token = claim(connection, market, kind)
        assert token is not None
        ((entities,),) = connection.execute("select dynrec._leased_entities(%s)", [token]).fetchall()
        for entity in entities[::2]:
            fail(connection, token, [entity], f"cannot encode {entity}", charge=True)
    connection.execute(
        of(
            market,
            """
        insert into dynrec_data.dead_letter (entity, kind, recommender_id, attempts, error)
        select p.id, 'item', r.id, 1, 'gave up ' || p.id from dynrec_data.recommender r, market.products p
        where r.name = 'market' and p.id ~ '07$'
        union all
        select distinct e.user_id, 'user', r.id, 1, 'gave up ' || e.user_id from dynrec_data.recommender r, market.events e
        where r.name = 'market' and e.user_id ~ 'user3$'
        """,
        )
    )


def open_both(connection: Session) -> dict[str, Market]:
    """A market of each, whose schema and tables are the tenant's."""
    made = {tenant: busy_market(connection, [tenant], market) for tenant, market in MARKETS.items()}
    for tenant, market in MARKETS.items():
        connection.execute(f"create role {tenant}; grant dynrec_writer to {tenant}".encode())
        for thing in ("schema market", "table market.products", "table market.events"):
            connection.execute(of(market, f"alter {thing} owner to {tenant}"))
        connection.execute("select dynrec.trust_owner(%s)", [tenant])
    return made


def close_both(connection: Session) -> None:
    """The roles are of the whole server."""
    connection.execute(f"reset role; drop owned by {ANT}, {BEE} cascade; drop role {ANT}, {BEE}".encode())


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
def roles(*connections: Session, grants: Sequence[str] = READ) -> Iterator[None]:
    """The roles of both tenants, who may read and log in these databases."""
    for tenant in (ANT, BEE):
        connections[0].execute(f"create role {tenant}; grant dynrec_writer to {tenant}".encode())
        for connection in connections:
            for right in grants:
                connection.execute(f"grant {right} to {tenant}".encode())
    try:
        yield
    finally:
        for connection in connections:
            reset(connection)
            connection.execute(f"drop owned by {ANT}, {BEE} cascade".encode())
        connections[0].execute(f"drop role {ANT}, {BEE}".encode())


def reset(connection: Session) -> None:
    """The connection as its own user again."""
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
        reset(connection)


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
