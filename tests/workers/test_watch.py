"""Maintenance by a worker: profiles are taken and what is due is measured, one recommender after another."""

from datetime import datetime, timedelta

from dynrec_store import queue
from dynrec_store.settings import Settings
from tests.workers.support import Connection, drained, until
from workers.context import Context
from workers.inprocess import running
from workers.maintenance import maintain


def make_due(connection: Connection, name: str = "shop") -> None:
    connection.execute(
        "update dynrec_data.recommender set created_at = now() - interval '9 days', measured_at = measured_at - interval '2 days' where name = %s",
        [name],
    )


def measured(connection: Connection) -> dict[str, datetime | None]:
    return dict(connection.execute("select name, measured_at from dynrec_data.recommender").fetchall())


def metrics(connection: Connection) -> set[str]:
    rows = connection.execute("select distinct metric from dynrec.measurements").fetchall()
    return {metric for (metric,) in rows}


def profile(connection: Connection) -> object:
    row = connection.execute(
        "select m.profile from dynrec_data.model_version m join dynrec_data.recommender r on r.active_model_id = m.id where r.name = 'shop'"
    ).fetchone()
    assert row is not None
    return row[0]


def fill(products: Connection, context: Context) -> None:
    """Twenty products and eight users who met some of them."""
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 20) n")
    products.execute("insert into clicks select 'u' || n % 8, (1 + n % 20)::text from generate_series(1, 24) n")
    drained(context)


def test_profiles_are_taken_and_what_is_due_is_measured(products: Connection, context: Context) -> None:
    maintain(context)
    assert profile(products) is None, "there are no vectors yet"
    fill(products, context)
    maintain(context)
    taken = profile(products)
    assert taken is not None
    assert measured(products) == {"shop": None}, "made just now"
    products.execute(
        "insert into clicks select 'u' || n, (20 - n)::text, clock_timestamp() from generate_series(0, 7) n"
    )
    make_due(products)
    maintain(context)
    first = measured(products)["shop"]
    assert first is not None
    assert metrics(products) >= {"ndcg_at_k", "hit_rate_at_k", "index_recall_at_k", "psi"}
    count = products.execute("select count(*) from dynrec.measurements").fetchone()
    maintain(context)
    assert measured(products) == {"shop": first}
    assert products.execute("select count(*) from dynrec.measurements").fetchone() == count
    make_due(products)
    maintain(context)
    second = measured(products)["shop"]
    assert second is not None
    assert second > first - timedelta(days=2)
    assert profile(products) == taken


def test_all_that_are_due_are_measured_and_no_others(products: Connection, context: Context) -> None:
    for name in ("second", "third", "paused"):
        products.execute(
            "select dynrec.create_recommender(%s, 'products', text_columns => '{title}', encoder => 'hashing')", [name]
        )
    products.execute("select dynrec.pause('paused')")
    for name in ("shop", "second", "paused"):
        make_due(products, name)
    fill(products, context)
    maintain(context)
    assert {name for name, moment in measured(products).items() if moment} == {"shop", "second"}


def test_the_queue_says_who_was_measured(products: Connection, context: Context) -> None:
    fill(products, context)
    assert context.call(queue.watch) is None
    make_due(products)
    assert context.call(queue.watch) == "shop"
    assert context.call(queue.watch) is None
    context.call(queue.take_profiles)
    assert profile(products) is not None


def test_who_stops_begins_no_measurement(products: Connection, context: Context) -> None:
    fill(products, context)
    make_due(products)
    context.stopping.set()
    maintain(context)
    assert measured(products) == {"shop": None}


def test_workers_do_it_by_themselves(products: Connection, settings: Settings, database_url: str) -> None:
    """With their first round of maintenance."""
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 20) n")
    make_due(products)
    with running(settings, database_url):
        until(lambda: measured(products)["shop"])
    assert products.execute("select count(*) from dynrec.alerts where alert = 'not measured'").fetchone() == (0,)
