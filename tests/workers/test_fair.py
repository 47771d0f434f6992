"""Recommenders take turns: nobody waits for another's storm."""

import time

from dynrec_store.settings import Settings
from tests.workers.support import Connection, Fussy, fresh, stored, until
from workers.inprocess import running

MANY = 3000  # items, sixty batches


def slow(fussy: Fussy) -> None:
    """Every batch takes a while, as on a busy device."""
    fussy.before = lambda: time.sleep(0.05)


def waiting(connection: Connection, recommender: str) -> int:
    row = connection.execute(
        "select coalesce(sum(entities), 0) from dynrec.queue where recommender = %s and kind = 'item'", [recommender]
    ).fetchone()
    assert row is not None
    return int(row[0])


def small_batches(settings: Settings) -> Settings:
    return settings.model_copy(update={"batch_size": 50, "lease_seconds": 60})


def test_a_storm_does_not_keep_another_recommender_waiting(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    products.execute("create table books (id text primary key, title text)")
    products.execute("""
        select dynrec.create_recommender('books', 'books', text_columns => '{title}', encoder => 'hashing')""")
    slow(fussy)
    with running(small_batches(settings), database_url):
        assert fresh(products)
        products.execute("insert into products select n::text, 'item ' || n from generate_series(1, %s) n", [MANY])
        until(lambda: len(stored(products)) > 100)
        for number in range(3):
            products.execute("insert into books values (%s, %s)", [str(number), f"book {number}"])
            done = products.execute("select dynrec.wait_until_fresh('books', '60 s')").fetchone()
            assert done == (True,)
        assert waiting(products, "shop") > MANY / 4
        fussy.before = lambda: None
        assert fresh(products)
