"""The database of the first release: what a user built on it, and what a later version has to make of it."""

import gzip
import re
import subprocess
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from dynrec_store import migrate, queue
from dynrec_store.binaries import Binaries
from tests.drain import drain
from tests.property import labour, oracle, shop
from tests.sql.shop import KINDS, TABLES, Shop, kinds_argument
from workers.maintenance import build_indexes

RELEASE = Path(__file__).parent / "releases" / "0001.sql.gz"

# Over recommend, which has more arguments today: no version can replace it under them.
IN_THE_WAY: dict[str, LiteralString] = {
    "function app.first_item(pg_catalog.text)": "drop function app.first_item(text)",
    "materialized view app.lists": "drop materialized view app.lists",
    "view app.for_everybody": "drop view app.for_everybody",
}

# Over what is replaced in place.
VIEWS: LiteralString = """
    create schema app;
    create view app.alike as
      select i.id, s.item_id, s.rank
      from public.item i cross join lateral dynrec.similar_items('shop', i.id::text, 3) s;
    create view app.trends as select * from dynrec.trending('store', 5);
    create view app.state as select recommender, queued, dead_letters from dynrec.status;
"""


def restore(binaries: Binaries, url: str, *, owned: bool = False) -> None:
    """Make an empty database the one of the first release; `owned`: by the role that is connected, no superuser."""
    quiet = ["--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1"]
    dump = gzip.decompress(RELEASE.read_bytes())
    if owned:  # as pg_restore does with --no-owner and without the extension's entries
        dump = re.sub(
            rb"^(ALTER .* OWNER TO|CREATE EXTENSION|COMMENT ON EXTENSION) .*;\n", b"", dump, flags=re.MULTILINE
        )
    subprocess.run([binaries.program("psql"), *quiet, f"--dbname={url}"], input=dump, check=True)


def clear_the_way(url: str) -> None:
    """Drop what the user is asked to drop."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in IN_THE_WAY.values():
            connection.execute(statement)


def declare_anew(url: str) -> None:
    """The same declarations in an empty database, by this version, and an item for each: only then there is an index."""
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        shop.declare(connection, "partitioned", max_attempts=1)
        connection.execute(TABLES)
        connection.execute(
            """
            select dynrec.create_recommender('store', 'shop.products', text_columns => '{title}',
                categorical_columns => '{category}', numeric_columns => '{price}', interactions => 'shop.events',
                kind_column => 'kind', value_column => 'value', kinds => %s, encoder => 'hashing')
            """,
            [kinds_argument(KINDS)],
        )
        connection.execute(VIEWS)
        connection.execute("insert into item (id, title) values (1, 'red shoe')")
        Shop(connection).add_products([1])


def work_off(url: str) -> list[str]:
    """Do everything that waits, in both shops; returns what is not as computed from scratch then."""
    with psycopg.connect(url, autocommit=True) as connection, queue.connect(url, application_name="worker") as worker:
        connection.execute("update dynrec_data.lease set deadline = now()")
        connection.execute("select dynrec.pause('shop')")  # the other one has another encoder
        drain(connection)
        connection.execute("select dynrec.resume('shop')")
        labour.drain(worker)
        Shop(connection, name="store").assert_right()
        return list(oracle.differences(connection))


def maintain(url: str) -> None:
    """What a maintenance worker does: partitions of later months, vector indexes."""
    with queue.connect(url, application_name="worker") as worker:
        queue.maintain(worker)
        build_indexes(worker)


def declarations(url: str) -> dict[str, list[Any]]:
    """What the private tables say about both shops, without the moments at which it was said."""
    moments = ["created_at", "activated_at", "stored_at", "popularity_since"]
    with psycopg.connect(url, autocommit=True) as connection:
        return {
            table: connection.execute(
                sql.SQL("select to_jsonb(t) - %s::text[] from dynrec_data.{} t order by 1").format(
                    sql.Identifier(table)
                ),
                [moments],
            ).fetchall()
            for table in ("recommender", "interaction_kind", "model_version", "model_activation", "encoder")
        }
