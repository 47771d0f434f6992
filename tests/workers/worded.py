"""A shop for models: what products are called and what users like can be told from their names."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np

from tests.workers.support import Connection, fresh, quick_settings, until, url_of
from workers.inprocess import running
from workers.learning.run import train

WORDS = ("red", "blue", "green", "old", "new", "small", "large", "round")
THINGS = ("lamp", "chair", "table", "spoon", "kettle", "shelf", "clock", "brush")
START = datetime(2026, 1, 1, tzinfo=UTC)


def worded_shop(connection: Connection) -> Connection:
    """Sixty-four products, forty users who each like one sort of thing, a recommender over both."""
    connection.execute("""
        create table products (id text primary key, title text, sort text, price numeric);
        create table clicks (user_id text, item_id text, kind text, occurred_at timestamptz);
        create index on clicks (user_id);
        create index on clicks (item_id)""")
    rng = np.random.default_rng(0)
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into products values (%s, %s, %s, %s)",
            [(f"{w}-{t}", f"{w} {t}", t, n + 1) for n, t in enumerate(THINGS) for w in WORDS],
        )
        cursor.executemany(
            "insert into clicks values (%s, %s, 'view', %s)",
            [
                (
                    f"u{user}",
                    f"{rng.choice(WORDS)}-{THINGS[user % 8]}",
                    START + timedelta(hours=float(n + rng.random())),
                )
                for n in range(20)
                for user in range(40)
            ],
        )
    connection.execute("""
        select dynrec.create_recommender('shop', 'products', text_columns => '{title}', categorical_columns => '{sort}',
          numeric_columns => '{price}', interactions => 'clicks', kind_column => 'kind', encoder => 'hashing',
          options => '{"exclude_seen": false}')""")
    return connection


def let_a_model_answer(connection: Connection, options: Mapping[str, object]) -> int:
    """Train a model of the shop and promote it; its number. Nothing waits afterwards."""
    url, settings = url_of(connection), quick_settings()
    with running(settings, url):
        assert fresh(connection)
        model = train(settings, url, "shop", options=options)
        ready = "select state = 'shadow' from dynrec.model_versions where model_version = %s"
        until(lambda: connection.execute(ready, [model]).fetchone() == (True,))
        connection.execute("select dynrec.promote_model('shop', %s)", [model])
        assert fresh(connection)
    return model
