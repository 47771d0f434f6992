"""The application of the demo: three ordinary tables in schema shop, as any grocer's web site might have them."""

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, LiteralString

import pandas as pd
import psycopg
import pyarrow
from psycopg import sql
from pyarrow import csv

from workers.demo.grocery import Grocery

CHUNK = 1 << 20  # bytes in a message to the server

TABLES: LiteralString = """
drop schema if exists shop cascade;
create schema shop;
create table shop.products (
  product_id      integer primary key,
  name            text not null,
  category        text not null,
  department      text not null,
  package_size    text,
  brand           text not null check (brand in ('national', 'store brand')),
  manufacturer_id integer not null,
  price           numeric(8, 2) not null check (price > 0)
);
create table shop.households (
  household_id   integer primary key,
  age            text,
  household_size text
);
create table shop.purchases (
  purchase_id  bigint generated always as identity,
  household_id integer not null,
  product_id   integer not null,
  basket_id    bigint not null,
  store_id     integer not null,
  quantity     integer not null default 1,
  amount       numeric(10, 2) not null,
  bought_at    timestamptz not null default now()
);
"""

# After the rows: an index is built faster than it grows. Purchases outlive the products they were of.
INDEXES: LiteralString = """
alter table shop.purchases add primary key (purchase_id);
create index on shop.purchases (household_id, bought_at);
create index on shop.purchases (product_id);
alter table shop.purchases add foreign key (household_id) references shop.households;
analyze shop.products, shop.households, shop.purchases;
"""

Connection = psycopg.Connection[Any]


def create_shop(connection: Connection, grocery: Grocery, progress: Callable[[int, int], None]) -> None:
    """Make schema shop anew and fill it, in one transaction; `progress` gets the bytes sent so far and in all."""
    tables = {name: _as_csv(getattr(grocery, name)) for name in ("products", "households", "purchases")}
    total, sent = sum(len(rows) for rows in tables.values()), 0
    with connection.transaction():
        connection.execute(TABLES)
        for name, rows in tables.items():
            for size in _copy(connection, name, getattr(grocery, name).columns, rows):
                sent += size
                progress(sent, total)
        connection.execute(INDEXES)


def _as_csv(frame: pd.DataFrame) -> memoryview:
    rows = io.BytesIO()
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    csv.write_csv(table, rows, csv.WriteOptions(include_header=False))
    return rows.getbuffer()


def _copy(connection: Connection, table: str, columns: Iterable[str], rows: memoryview) -> Iterator[int]:
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        sql.Identifier("shop", table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            copy.write(chunk)
            yield len(chunk)
