"""What the workers publish is what computing everything from scratch would give."""

import time

import numpy as np

from dynrec_store.settings import Settings
from tests.workers.support import Connection, Fussy, assert_as_from_scratch, drained, fresh, stored, until
from workers.context import Context
from workers.inprocess import running


def test_inserts_updates_and_deletes_end_up_as_from_scratch(
    products: Connection, settings: Settings, database_url: str
) -> None:
    with running(settings, database_url):
        products.execute("insert into products select n::text, 'red apple ' || n from generate_series(1, 300) n")
        products.execute("update products set title = 'green pear ' || id where id::int % 3 = 0")
        products.execute("delete from products where id::int % 5 = 0")
        products.execute("update products set id = 'moved' where id = '7'")
        assert fresh(products)
        assert_as_from_scratch(products)
        products.execute("insert into products values ('late', 'a late plum')")
        assert fresh(products)
        assert_as_from_scratch(products)


def test_users_follow_their_clicks_and_the_index_is_built(
    products: Connection, settings: Settings, database_url: str
) -> None:
    products.execute("insert into products select n::text, 'red apple ' || n from generate_series(1, 50) n")
    with running(settings, database_url):
        products.execute("insert into clicks select 'u' || n % 7, n::text from generate_series(1, 50) n")
        assert fresh(products)
        counts = products.execute("select user_id, event_count from dynrec_data.user_vector order by 1").fetchall()
        assert counts == [(f"u{n}", 8 if n == 1 else 7) for n in range(7)]
        until(lambda: products.execute("select from dynrec.model_versions where indexed").fetchone() is not None)


def test_the_packaged_model_serves(products: Connection, settings: Settings, database_url: str) -> None:
    products.execute("select dynrec.drop_recommender('shop')")
    products.execute("select dynrec.create_recommender('shop', 'products', text_columns => '{title}')")
    with running(settings, database_url, preload=True):
        products.execute("insert into products values ('a', 'apple juice'), ('b', 'orange juice'), ('c', 'tyre')")
        assert fresh(products)
        found = products.execute("select item_id from dynrec.similar_items('shop', 'a', 2)").fetchall()
        assert found == [("b",), ("c",)]
        lengths = [float(np.linalg.norm(vector)) for vector in stored(products).values()]
        np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_equal_texts_are_encoded_once_and_known_ones_never_again(
    products: Connection, context: Context, fussy: Fussy
) -> None:
    products.execute("insert into products select n::text, 'apple ' || n % 4 from generate_series(1, 20) n")
    tally = drained(context)
    assert (tally.claimed, tally.encoded, tally.saved, tally.published, tally.calls) == (20, 4, 16, 20, 1)
    products.execute("insert into products values ('another', 'apple 1')")
    products.execute("update products set title = 'apple 2' where id = '1'")
    assert drained(context).encoded == 0
    assert sorted(fussy.texts) == [f"apple {n}" for n in range(4)]
    assert_as_from_scratch(products)


def test_a_live_change_overtakes_a_backfill(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    fussy.before = lambda: time.sleep(0.1)
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 1000) n")
    products.execute("delete from dynrec_data.change")
    products.execute("select dynrec.refresh('shop')")  # everything, in the backfill lane
    with running(settings.model_copy(update={"batch_size": 20}), database_url):
        until(lambda: len(stored(products)) > 50)
        products.execute("insert into products values ('live', 'a pear')")
        until(lambda: "live" in stored(products))
        assert len(stored(products)) < 1000
        fussy.before = lambda: None
        assert fresh(products)
    assert_as_from_scratch(products)


def test_the_heartbeat_tells_what_was_done(products: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url):
        products.execute("insert into products values ('a', 'apple'), ('b', 'apple')")
        assert fresh(products)
    row = products.execute("select details from dynrec_data.heartbeat where role = 'worker'").fetchone()
    assert row is not None
    details = row[0]
    assert details["encoded"] == details["calls"] == 1
    assert details["saved"] == details["claimed"] - 1 >= 1
    assert details["encoder"] == ["hashing"]
    assert details["device"] == ["cpu"]


def test_processes_say_what_they_are_and_that_they_end(
    products: Connection, settings: Settings, database_url: str
) -> None:
    def told(column: str) -> dict[str, object]:
        rows = products.execute(f"select role, details -> '{column}' from dynrec_data.heartbeat".encode()).fetchall()
        return dict(rows)

    (code,) = products.execute("select hash from dynrec_data.code").fetchall()
    with running(settings, database_url):
        products.execute("insert into products values ('a', 'apple')")
        assert fresh(products)
        until(lambda: told("ended").keys() == {"worker", "dispatcher", "stream"})
        assert "true" not in str(told("ended")).lower()
    assert told("ended") == {"worker": True, "dispatcher": True, "stream": True}
    assert told("code") == dict.fromkeys(("worker", "dispatcher", "stream"), code[0])
    assert told("models")["worker"] == {"hashing": "hashing of dimension 256, precision auto on cpu"}
    memory = told("device_memory")["worker"]
    assert isinstance(memory, dict)
    assert 0 < memory["cpu"]["allocated"] < memory["cpu"]["used"] < memory["cpu"]["total"]
    products.execute("update dynrec_data.heartbeat set beat_at = now() - interval '1 minute'")
    findings = products.execute("select finding from dynrec.doctor() where finding like '%process%'").fetchall()
    assert findings == [], "nobody looks for who has said goodbye"


def test_what_failed_is_in_no_histogram(products: Connection, context: Context, fussy: Fussy) -> None:
    products.execute("insert into products values ('good', 'apple'), ('bad', 'poison')")
    drained(context)
    assert [one for one in context.meters.report() if "fresh" in str(one["name"])] == []
    products.execute("insert into products values ('other', 'pear')")
    drained(context)
    counts = [one["value"] for one in context.meters.report() if str(one["name"]).endswith("_count")]
    assert counts == [1]
    assert fussy.texts.count("pear") == 1
